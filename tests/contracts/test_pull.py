"""Pull: for what was pulled, the copy says what its source says; of the rest it says that it does not know."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pik.errors import Busy, Damaged, NotFound, NotHeld, StoreError, UsageError
from pik.model.batch import BatchState
from pik.model.delivery import Filter
from pik.model.metric import Definition
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.stores import open_copy, open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import ProblemKind
from pik.usecases.ingest.api_request import record_request
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.inspect.events import list_events
from pik.usecases.metrics.definitions import add_version, list_aggregates
from pik.usecases.pull import pull as pull_module
from pik.usecases.pull.pull import PullRequest, plan_pull, pull
from tests.support.contracts.pulling import (
    ENTITIES,
    answers,
    fill,
    pulled,
    recomputed,
    record,
    refusal,
    sound,
    verdicts,
)
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.stores import PlainEngine, event, replayed, window

WINDOWS = [
    (window("03", "05"), ()),
    (window("03T07:00:00", "04T01:00:00"), ()),
    (window("06", "07"), ("a",)),
    (window("01", "15"), ("b", "c")),
    (ALL_TIME, ()),
]


LOCAL = pytest.mark.parametrize("kind", ["local"])
"""For what does not depend on the source."""

ALSO_AWS = pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])


@pytest.fixture
def source(store: Store, tmp_path: Path) -> Store:
    fill(store, tmp_path, 1)
    return store


@pytest.mark.parametrize(("within", "entities"), WINDOWS)
@pytest.mark.parametrize(("kind", "seed"), [("local", 1), ("local", 2), pytest.param("aws", 1, marks=pytest.mark.slow)])
def test_the_copy_answers_as_its_source(
    store: Store, tmp_path: Path, seed: int, within: Window, entities: tuple[str, ...]
) -> None:
    fill(store, tmp_path, seed)
    copy, done = pulled(store, tmp_path / "copy", within, entities)
    assert done.problems == ()
    expected = answers(store, within, entities)
    assert expected["events"]
    assert answers(copy, within, entities) == expected
    sound(copy)
    assert verdicts(copy).items() <= verdicts(store).items()
    rebuild_index(copy, SILENT)
    assert answers(copy, within, entities) == expected
    assert verdicts(copy).items() <= verdicts(store).items()
    sound(copy)
    assert recomputed(copy, within, entities) == recomputed(store, within, entities)
    sound(copy)


def test_an_event_has_all_of_its_deliveries_whatever_their_days(store: Store, tmp_path: Path) -> None:
    def keyed(day: str, number: int) -> dict[str, Any]:
        return event(number, "a", f"{day}T01:00") | {"idempotency_key": "k"}

    record(store, tmp_path, "one", [keyed("01", 1), event(7, "a", "01T02:00"), event(8, "a", "02T02:00")])
    record(store, tmp_path, "two", [keyed("02", 2), keyed("03", 1), event(7, "a", "03T01:00")])
    (first,) = [row.event_id for row in list_events(store, Filter(window("01", "02"))) if row.deliveries == 3]
    for day, following, elsewhere in (("01", "02", 2), ("02", "03", 2), ("03", "04", 2)):
        copy, done = pulled(store, tmp_path / day, window(day, following))
        assert done.elsewhere == elsewhere
        mine, theirs = (show_event(each, PlainEngine(), first) for each in (copy, store))
        assert mine.deliveries == theirs.deliveries
        assert [row.kind for row in mine.deliveries] == [
            "accepted",
            "conflict",
            "conflict",
        ]  # another time is other content
        # The accepted delivery counts in the aggregates of its own day, which only the first copy knows.
        assert (mine.aggregates is None) == (day != "01")
        assert answers(copy, window(day, following))["events"] == answers(store, window(day, following))["events"]
        sound(copy)


@ALSO_AWS
def test_a_duplicate_is_not_accepted_because_the_accepted_delivery_was_not_pulled(store: Store, tmp_path: Path) -> None:
    def keyed(day: str, key: str) -> dict[str, Any]:
        return event(1, "a", f"{day}T01:00") | {"idempotency_key": key}

    record(store, tmp_path, "one", [keyed("03", "other")])
    record(store, tmp_path, "two", [keyed("01", "asked for"), keyed("01", "other"), keyed("02", "asked for")])
    (other,) = [row.event_id for row in list_events(store, Filter(window("03", "04")))]
    copy, done = pulled(store, tmp_path / "copy", window("02", "03"))
    assert done.elsewhere == 1  # that of 1 January: of "asked for" accepted, of "other" a duplicate
    for _ in range(2):
        assert verdicts(copy).items() <= verdicts(store).items()
        assert sorted(verdicts(copy).values()) == ["accepted", "conflict", "conflict"]
        assert copy.index.locate(other) == []
        with pytest.raises(NotFound):
            show_event(copy, PlainEngine(), other)
        sound(copy)
        rebuild_index(copy, SILENT)
    copy, _ = pulled(store, tmp_path / "copy", window("03", "04"))
    assert show_event(copy, PlainEngine(), other).deliveries == show_event(store, PlainEngine(), other).deliveries


@LOCAL
def test_what_was_not_pulled_is_refused(source: Store, tmp_path: Path) -> None:
    copy, _ = pulled(source, tmp_path / "copy", window("08", "15"), ("a", "b"))
    for within, entities in (
        (ALL_TIME, ("a",)),
        (window("07", "09"), ("a",)),
        (window("08", "09"), ()),
        (ALL_TIME, ()),
    ):
        said = refusal(copy, within, entities)
        for each in said.split(" | "):
            assert each.startswith(f"NotHeld: {copy.url}, a copy of {source.url}, does not hold ")
            assert each.endswith("it holds [2026-01-08T00:00:00Z, 2026-01-15T00:00:00Z) of a, b")
    assert refusal(copy, window("08", "09"), ("b",)) == "answered"
    neighbours = [found for found in deliveries(copy, Filter(ALL_TIME)) if found.delivery.entity_id == "c"]
    assert neighbours
    for found in neighbours:
        with pytest.raises((NotHeld, NotFound)):
            show_event(copy, PlainEngine(), found.delivery.event_id)


@LOCAL
def test_pulls_add_up(source: Store, tmp_path: Path) -> None:
    copy, _ = pulled(source, tmp_path / "copy", window("08", "15"), ("a",))
    copy, _ = pulled(source, tmp_path / "copy", window("01", "08"))
    both = Window(window("01").start, window("", "15").end)
    assert answers(copy, both, ("a",)) == answers(source, both, ("a",))
    copy, done = pulled(source, tmp_path / "copy", window("08", "15"), ("c", "b"))
    assert done.changed
    assert answers(copy, both, ENTITIES) == answers(source, both, ENTITIES)
    assert refusal(copy, both) != "answered"  # there may be a fourth entity
    sound(copy)


@LOCAL
def test_the_same_again_is_nothing_new(source: Store, tmp_path: Path) -> None:
    copy, first = pulled(source, tmp_path / "copy", window("01", "15"))
    assert first.changed
    assert first.copied > 0
    before = files(tmp_path / "copy")
    _, again = pulled(source, tmp_path / "copy", window("01", "15"))
    assert (again.changed, again.copied, again.segments) == (False, 0, first.segments)
    _, part = pulled(source, tmp_path / "copy", window("10", "12"), ("a",))
    assert not part.changed
    assert files(tmp_path / "copy") == before
    assert copy.index.totals() == open_copy(str(tmp_path / "copy"), source).index.totals()


def files(directory: Path) -> dict[str, bytes]:
    raw = directory / "raw"
    return {str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()}


@LOCAL
def test_a_dry_run_counts_and_writes_nothing(source: Store, tmp_path: Path) -> None:
    request = PullRequest(window("01", "08"))
    plan = plan_pull(source, None, request)
    copy, done = pulled(source, tmp_path / "copy", window("01", "08"))
    assert (plan.segments, plan.missing) == (done.segments, done.segments)
    assert plan.size == plan.missing_size == sum(each.size for each in source.index.segments(plan.effective))
    again = plan_pull(source, copy, request)
    assert (again.segments, again.size, again.missing, again.missing_size) == (plan.segments, plan.size, 0, 0)
    more = plan_pull(source, copy, PullRequest(window("01", "15")))
    assert 0 < more.missing < more.segments


@LOCAL
def test_batches_of_a_copy_are_called_parts_and_count_what_is_there(source: Store, tmp_path: Path) -> None:
    copy, _ = pulled(source, tmp_path / "copy", window("08", "15"), ("a",))
    whole = {batch.batch_id: batch for batch in source.index.batches()}
    assert {batch.state for batch in whole.values()} == {BatchState.COMPLETE}
    fewer = 0
    for batch in copy.index.batches():
        assert batch.state == BatchState.PULLED
        assert batch.origin == whole[batch.batch_id].origin
        assert batch.counts.rejected == whole[batch.batch_id].counts.rejected
        fewer += batch.counts.read < whole[batch.batch_id].counts.read
    assert fewer > 0
    sound(copy)


@ALSO_AWS
def test_later_events_and_promotions_come_with_the_next_pull(source: Store, tmp_path: Path) -> None:
    within = window("01", "08")
    copy, _ = pulled(source, tmp_path / "copy", within)
    mine = replayed(copy, PlainEngine(), within, reason="an idea of mine")
    record(source, tmp_path, "later still", [event(1, "a", "03T05:00"), event(2, "b", "04T05:00")])
    replayed(source, PlainEngine(), within, reason="the repair")
    add_version(source.metrics, Definition(name="total", value="sum(v)", bucket="12h", where="event_type = 'gone'"), 7)
    copy, done = pulled(source, tmp_path / "copy", within)
    assert done.changed
    assert done.replaced == len(list(copy.aggregates.changes(mine)))
    theirs, ours = answers(source, within), answers(copy, within)
    ours["history"] = [each for each in ours["history"] if each.run_id != mine]  # stays, as history
    assert ours == theirs
    sound(copy)
    assert pulled(source, tmp_path / "copy", within)[1].replaced == 0


@LOCAL
def test_another_definition_under_the_same_number_is_refused(source: Store, tmp_path: Path) -> None:
    copy, _ = pulled(source, tmp_path / "copy", window("01", "02"))
    add_version(copy.metrics, Definition(name="weekly", value="max(v)", bucket="7d"), 8)
    pulled(source, tmp_path / "copy", window("02", "03"))
    add_version(source.metrics, Definition(name="weekly", value="min(v)", bucket="7d"), 8)
    with pytest.raises(StoreError, match="weekly has another version 2 in this copy"):
        pulled(source, tmp_path / "copy", window("03", "04"))


@LOCAL
def test_nothing_else_gets_into_a_copy(source: Store, tmp_path: Path) -> None:
    copy, _ = pulled(source, tmp_path / "copy", window("01", "02"))
    with pytest.raises(UsageError, match=f"is a copy of {source.url}; events are not ingested into copies"):
        record(copy, tmp_path, "mine", [event(1, "a", "01T00:00")])
    with pytest.raises(UsageError, match="is a copy of"):
        record_request(copy, b'{"source":"s"}')
    sound(copy)


@LOCAL
def test_a_copy_is_of_one_store_and_does_not_ingest(source: Store, tmp_path: Path) -> None:
    pulled(source, tmp_path / "copy", window("01", "02"))
    own = open_store(str(tmp_path / "own"), create=True)
    with pytest.raises(StoreError, match="is not a copy: it ingests events itself"):
        open_copy(own.url, source)
    with pytest.raises(StoreError, match="is a copy of "):
        open_copy(str(tmp_path / "copy"), own)
    with pytest.raises(UsageError, match="is the store itself"):
        open_copy(own.url, own)
    with pytest.raises(UsageError, match="copies are made in directories"):
        open_copy("aws://other", own)
    with pytest.raises(NotFound):
        open_copy(str(tmp_path / "none"), own, create=False)


@LOCAL
def test_a_copy_may_be_copied_as_far_as_it_goes(source: Store, tmp_path: Path) -> None:
    copy, _ = pulled(source, tmp_path / "copy", window("01", "15"))
    second, _ = pulled(copy, tmp_path / "second", window("05", "06"))
    assert answers(second, window("05", "06")) == answers(source, window("05", "06"))
    with pytest.raises(NotHeld):
        pulled(copy, tmp_path / "third", ALL_TIME)


@LOCAL
def test_two_pulls_into_one_copy_do_not_mix(source: Store, tmp_path: Path) -> None:
    copy, _ = pulled(source, tmp_path / "copy", window("01", "02"))
    assert copy.copy
    with copy.copy.pulling(), pytest.raises(Busy):
        pulled(source, tmp_path / "copy", window("02", "03"))


# Damage


@LOCAL
def test_a_window_that_reaches_expired_raw_is_not_pulled(source: Store, tmp_path: Path) -> None:
    with pytest.raises(NotHeld, match="has expired"):
        pulled(replace(source, retention_days=-2), tmp_path / "copy", window("01", "02"))


class Harmed:
    """Raw of which one object is harmed."""

    def __init__(self, raw: Any, key: str, harm: Callable[[bytes], bytes | None]) -> None:
        self._raw, self._key, self._harm = raw, key, harm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        data: bytes = self._raw.read(key, offset, length)
        if key != self._key:
            return data
        harmed = self._harm(data)
        if harmed is None:
            raise Damaged(f"raw object {key} is missing")
        return harmed

    def size(self, key: str) -> int | None:
        gone = key == self._key and self._harm(b"x" * 100) is None
        size: int | None = None if gone else self._raw.size(key)
        return size


HARM: dict[str, Callable[[bytes], bytes | None]] = {
    ProblemKind.MISSING: lambda _: None,
    ProblemKind.MODIFIED: lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:],
    "cut": lambda data: data[:-1],
}


@ALSO_AWS
@pytest.mark.parametrize("harm", HARM)
def test_what_is_damaged_in_the_source_is_reported_not_copied_and_comes_later(
    source: Store, tmp_path: Path, harm: str
) -> None:
    within = window("03", "05")
    segment = next(each for each in source.index.segments(within) if not each.inline and each.deliveries > 1)
    harmed: Any = Harmed(source.raw, segment.key, HARM[harm])
    copy, done = pulled(replace(source, raw=harmed), tmp_path / "copy", within)
    (problem,) = done.problems
    assert (problem.kind, problem.what) == (
        ProblemKind.MISSING if harm == ProblemKind.MISSING else ProblemKind.MODIFIED,
        segment.key,
    )
    assert problem.entities
    assert copy.raw.size(segment.key) is None
    found, *unproven = verify(copy, PlainEngine(), ALL_TIME, SILENT)
    assert (found.kind, found.what) == (ProblemKind.MISSING, segment.key)
    assert {one.kind for one in unproven} == {ProblemKind.AGGREGATE}
    with pytest.raises(Damaged):
        answers(copy, within)
    assert pulled(replace(source, raw=harmed), tmp_path / "copy", within)[1].problems == done.problems
    copy, mended = pulled(source, tmp_path / "copy", within)
    assert (mended.problems, mended.copied) == ((), 1)
    assert answers(copy, within) == answers(source, within)
    sound(copy)


@LOCAL
def test_what_is_damaged_in_the_copy_is_reported(source: Store, tmp_path: Path) -> None:
    copy, _ = pulled(source, tmp_path / "copy", window("03", "05"))
    segment = next(copy.index.segments(window("03", "05")))
    path = tmp_path / "copy" / segment.key
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    _, done = pulled(source, tmp_path / "copy", window("03", "05"))
    (problem,) = done.problems
    assert (problem.kind, problem.what) == (ProblemKind.MODIFIED, segment.key)
    assert "the copy has it already" in problem.detail


# Interruptions


@LOCAL
def test_interrupted_at_any_step_the_same_pull_resumes(store: Store, tmp_path: Path) -> None:
    source, within = store, window("02", "03")
    keyed = [event(n, "a", f"{day}T0{n}:00") | {"idempotency_key": "k"} for n, day in enumerate(["01", "02", "03"])]
    record(source, tmp_path, "one", [*keyed[1:], event(1, "a", "02T01:00"), "not JSON\n"])
    record(source, tmp_path, "two", [keyed[0], event(2, "b", "02T01:00")])
    replayed(source, PlainEngine())
    expected = answers(source, within)
    steps = 0
    while True:
        steps += 1
        fault = FailAt(steps // 2 + 1, after=bool(steps % 2))
        target = tmp_path / "copy"
        shutil.rmtree(target, ignore_errors=True)
        copy = open_copy(str(target), source)
        faulty = wrapped(copy, fault, "raw")
        try:
            pull(source, faulty, PullRequest(within), SILENT)
        except Crash:
            pass
        else:
            break
        copy = open_copy(str(target), source)
        with suppress(NotHeld):
            assert answers(copy, within) == expected
        assert list(verify(copy, PlainEngine(), ALL_TIME, SILENT)) == []
        copy, done = pulled(source, target, within)
        assert done.problems == ()
        assert answers(copy, within) == expected
        sound(copy)
    assert steps == 2 * len(fault.calls) == 2 * 6  # four segments, the rejects, and the record


@LOCAL
@pytest.mark.parametrize("step", ["restore_index", "write_pull", "copy_object"])
@pytest.mark.parametrize("first", [True, False])
def test_interrupted_between_raw_index_and_record(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, first: bool
) -> None:
    within = window("03", "05")
    copy = open_copy(str(tmp_path / "copy"), source)
    if not first:
        pulled(source, tmp_path / "copy", within)
        before = answers(source, within)
        record(source, tmp_path, "later still", [event(1, "a", "03T05:00")])

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pull_module, step, stop)
        with pytest.raises(KeyboardInterrupt):
            pulled(source, tmp_path / "copy", within)
    copy = open_copy(str(tmp_path / "copy"), source)
    assert list(verify(copy, PlainEngine(), ALL_TIME, SILENT)) == []
    if first:
        assert refusal(copy, within).startswith("NotHeld")
    else:
        assert answers(copy, within) in (before, answers(source, within))
    copy, _ = pulled(source, tmp_path / "copy", within)
    assert answers(copy, within) == answers(source, within)
    sound(copy)


@LOCAL
def test_what_a_pull_changed_in_the_state(source: Store, tmp_path: Path) -> None:
    within = window("01", "08")
    copy, first = pulled(source, tmp_path / "copy", within)
    assert first.aggregates == len(list(list_aggregates(source, within).rows))
    replayed(source, PlainEngine(), within, reason="promoted, from the same events")
    assert pulled(source, tmp_path / "copy", within)[1].changed
    assert not pulled(source, tmp_path / "copy", within)[1].changed
    add_version(source.metrics, Definition(name="another", value="count(*)", bucket="1d"), 9)
    copy, done = pulled(source, tmp_path / "copy", within)
    assert done.changed
    assert answers(copy, within) == answers(source, within)
    sound(copy)
