"""Ingest: an input becomes a batch, exactly once."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.engine import DuckEngine
from pik.errors import ConflictFound, InputError, StoreError, UsageError
from pik.inputs import blocks as blocks_module
from pik.inputs.source import Input, Source, file_source
from pik.model.batch import BatchState, Counts, Verdict
from pik.model.event import read_event
from pik.model.instant import SECOND, parse_instant
from pik.model.times import Times
from pik.model.window import ALL_TIME
from pik.model.zone import Zone, load_zone
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.batch_ingest import IngestOptions, IngestReport, Outcome
from pik.usecases.ingest.batch_ingest import ingest as ingest_source
from pik.usecases.metrics.diff import diff_aggregates
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.snapshot import assert_sound, rejects, snapshot
from tests.support.stores import digest

READING = Reading(1 << 20)
pytestmark = pytest.mark.usefixtures("blocks_of_a_few_lines")


def line(value: object = 1, *, key: str | None = None, day: int = 1, entity: str = "e", **fields: Any) -> str:
    event = {
        "source": "s",
        "event_type": "t",
        "entity_id": entity,
        "event_time": f"2026-01-{day:02d}T00:00:00Z",
        "payload": {"v": value},
        **fields,
    }
    return json.dumps(event if key is None else {**event, "idempotency_key": key})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


def written(directory: Path, lines: Iterable[str], name: str = "events.jsonl") -> Source:
    path = directory / name
    path.write_text("".join(each + "\n" for each in lines), encoding="utf-8")
    return file_source(str(path))


def ingest(store: Store, source: Input, *, reading: Reading = READING, **options: Any) -> IngestReport:
    return ingest_source(store, source, IngestOptions(reading, workers=0, **options), SILENT)


@contextmanager
def crash_at(store: Store, number: int, *, after: bool = False) -> Iterator[Store]:
    """The store, from which the process is torn away at its n-th durable step."""
    with pytest.raises(Crash):
        yield wrapped(store, FailAt(number, after=after), "raw", "batches")


LINES = st.one_of(
    st.builds(line, st.integers(0, 3), day=st.integers(1, 2), entity=st.sampled_from("ab")),
    st.builds(line, st.integers(0, 1), day=st.integers(1, 2), key=st.sampled_from("kl")),
    st.sampled_from(["", "  ", "{", "7", line(entity=""), line(event_time="never"), "é" * 90]),
)


class Model:
    """What a store has to hold: each event's deliveries, and each file's counts."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.events: dict[str, list[tuple[str, int, str]]] = defaultdict(list)

    def ingest(self, name: str, lines: list[str]) -> Counts:
        kinds: Counter[str] = Counter()
        for seq, text in enumerate(lines, 1):
            if not text.strip():
                continue
            try:
                event = read_event(text.encode())
            except ValueError:
                raise
            except Exception:  # noqa: BLE001 - whatever it says is no event
                kinds["rejected"] += 1
                continue
            event_id, content = event.event_id.hex(), event.content_hash.hex()
            kind = (
                Verdict.ACCEPTED
                if event_id not in self.first
                else Verdict.EXACT
                if self.first[event_id] == content
                else Verdict.CONFLICT
            )
            self.first.setdefault(event_id, content)
            self.events[event_id].append((name, seq, kind))
            kinds[kind] += 1
        return Counts(
            kinds.total(), kinds[Verdict.ACCEPTED], kinds[Verdict.EXACT], kinds[Verdict.CONFLICT], kinds["rejected"]
        )


def check_verdicts(files: list[list[str]], block: int) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "BLOCK", block)
        store = open_store(f"{directory}/store", create=True)
        for number, lines in enumerate(files):
            source = written(Path(directory), [*lines, line(f"unique {number}")], f"{number}")
            counts = model.ingest(digest(source), [*lines, line(f"unique {number}")])
            assert ingest(store, source).batch.counts == counts
            assert counts.read == counts.accepted + counts.duplicates + counts.rejected
        found = snapshot(store)
        held = {event_id: {(name.split()[0], seq, kind) for name, seq, kind, _ in of_event}
                for event_id, of_event in found["events"].items()}  # fmt: skip
        assert held == {event_id: set(of_event) for event_id, of_event in model.events.items()}
        assert_sound(store)
        rebuild_index(store, SILENT)
        assert snapshot(store) == found  # promise 3


VERDICTS = given(st.lists(st.lists(LINES, max_size=12), min_size=1, max_size=4), st.integers(1, 900))
test_promise_4_every_delivery_is_recorded_once_with_its_verdict = settings(max_examples=20)(VERDICTS(check_verdicts))
test_promise_4_every_delivery_is_recorded_once_with_its_verdict_for_long = pytest.mark.slow(
    settings(max_examples=200)(VERDICTS(check_verdicts))
)


def test_what_is_counted_over_a_batch(store: Store, tmp_path: Path) -> None:
    texts = [
        line(1, received_time="2026-01-01T00:00:01.2345Z"),
        line(2, received_time="2025-12-31T23:59:59Z", source="app"),
        line(3, day=9, received_time="2026-01-10T00:00:00Z"),
        "{",
        line(event_time="2026-02-30T00:00:00Z"),
        line(event_time="2026-02-31T00:00:00Z"),
    ]
    batch = ingest(store, written(tmp_path, texts)).batch
    assert batch.counts == Counts(6, 3, 0, 0, 3)
    assert batch.lags == {1_234_500_000: 1, -SECOND: 1, 86_400 * SECOND: 1}
    assert batch.sources == {"s": 2, "app": 1}
    assert sum(batch.reasons.values()) == 3
    assert batch.state == BatchState.COMPLETE
    assert batch.first_event is not None
    assert batch.last_event is not None
    assert batch.last_event - batch.first_event == 8 * 86_400 * SECOND
    assert batch.started_at <= (batch.finished_at or 0)


def test_rejected_lines_are_kept_with_line_number_and_reason(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    bad = [b"{", b'{"a":"\xff"}', b"[1]", b"x" * 600, b'"' + b"\xc3" * 20, line(entity="").encode() + b"\r"]
    path.write_bytes(line().encode() + b"\n\n" + b"\n".join(bad) + b"\n")
    done = ingest(store, file_source(str(path)), reading=Reading(500))
    kept = rejects(store, done.batch.batch_id)
    assert [reject.seq for reject in kept] == [3, 4, 5, 6, 7, 8]
    assert (kept[-1].field, kept[-1].reason) == ("entity_id", "entity_id is empty")
    assert [reject.line for reject in kept[:3:2]] == ["{", "[1]"]
    assert kept[3].line == "x" * 501
    assert kept[3].reason == "the line is longer than 500 bytes"
    assert [bool(reject.bytes) for reject in kept] == [False, True, False, False, True, False]
    assert done.batch.counts == Counts(7, 1, 0, 0, 6)


def test_over_long_lines_are_rejected_alike_wherever_blocks_end(tmp_path: Path) -> None:
    """Also where they are long for white space alone, and where what makes them no blank line comes late."""
    path = tmp_path / "long.jsonl"
    long = [b" " * 800, b" " * 800 + b"x", b"y" * 2000, line("z" * 700).encode()]
    path.write_bytes(b"\n".join([line().encode(), *long, line(2).encode()]) + b"\n")
    found = []
    for number, block in enumerate((7, 300, 801, 1000, 10_000)):
        store = open_store(str(tmp_path / f"store{number}"), create=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks_module, "BLOCK", block)
            ingest(store, file_source(str(path)), reading=Reading(500))
        found.append(snapshot(store))
    assert all(other == found[0] for other in found)
    [batch] = found[0]["batches"].values()
    assert batch[1] == Counts(6, 2, 0, 0, 4)


def test_the_same_content_once_complete_is_the_earlier_batch(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path, [line(1), line(2)])
    first = ingest(store, source)
    before = snapshot(store)
    moved = written(tmp_path, [line(1), line(2)], "moved.jsonl")
    for again in (source, moved):
        done = ingest(store, again)
        assert (first.outcome, done.outcome, done.batch) == (Outcome.NEW, Outcome.ALREADY, first.batch)
    assert snapshot(store) == before


def test_again_records_each_event_as_delivered_once_more(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path, [line(1), line(2), line(2), line(3, key="k")])
    ingest(store, source)
    for _ in range(2):
        done = ingest(store, source, again=True)
        assert done.outcome == Outcome.NEW
        assert done.batch.counts == Counts(4, 0, 4, 0, 0)
    assert ingest(store, source).outcome == Outcome.ALREADY
    assert store.index.totals().deliveries == 12
    assert_sound(store)


def test_an_again_that_was_interrupted_is_resumed_and_the_next_begins_anew(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path, map(line, range(20)))
    ingest(store, source)
    with crash_at(store, 7) as crashing:
        ingest(crashing, source, again=True)
    assert ingest(store, source, again=True).outcome == Outcome.RESUMED
    assert ingest(store, source, again=True).outcome == Outcome.NEW
    assert store.index.totals().deliveries == 60


def test_other_options_or_another_mapping_are_another_batch(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path, [line(1, extra="x"), line(2, extra="y")])
    readings = [
        READING,
        Reading(1000),
        Reading(1 << 20, mapping={"entity_id": "extra"}),
        Reading(1 << 20, mapping={"entity_id": "'z'"}),
        Reading(1 << 20, mapping={"entity_id": "'z'"}, times=Times("auto")),
        Reading(1 << 20, times=Times(timezone="UTC")),
        Reading(1 << 20, times=Times(timezone="Europe/Berlin")),
        Reading(1 << 20, times=Times(timezone="UTC", special=(("timezone", "event_time", "Europe/Berlin"),))),
    ]
    outcomes = [ingest(store, source, reading=reading) for reading in readings]
    assert [done.outcome for done in outcomes] == [Outcome.NEW] * 8
    assert [done.batch.counts.accepted for done in outcomes] == [2, 0, 2, 2, 0, 0, 0, 0]
    assert [ingest(store, source, reading=reading).batch for reading in readings] == [done.batch for done in outcomes]


def test_an_interrupted_batch_with_other_options_is_not_taken_over(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path, map(line, range(20)))
    with crash_at(store, 7) as crashing:
        ingest(crashing, source)
    assert ingest(store, source, reading=Reading(1000)).outcome == Outcome.NEW
    assert ingest(store, source).outcome == Outcome.RESUMED
    assert_sound(store)


def test_times_without_an_offset_are_in_the_zone_that_the_batch_records(store: Store, tmp_path: Path) -> None:
    """Another zone is another batch, never silently the same one; raw keeps what the producer wrote."""
    source = written(tmp_path, [line(1, event_time="2026-01-01T12:00:00", received_time="2026-01-01 12:00:01")])
    assert ingest(store, source).batch.counts.rejected == 1
    for zone, hour in (("Europe/Berlin", 11), ("America/New_York", 17)):
        reading = Reading(1 << 20, times=Times(timezone=zone))
        done = ingest(store, source, reading=reading)
        assert (done.outcome, done.batch.counts.accepted) == (Outcome.NEW, 1)
        assert dict(done.batch.origin.options)["timezone"] == zone
        assert done.batch.first_event == parse_instant(f"2026-01-01T{hour}:00:00Z")
        assert ingest(store, source, reading=reading).outcome != Outcome.NEW
    raw = [deliveries[0][3] for deliveries in snapshot(store)["events"].values()]
    assert len(raw) == 2
    for kept in raw:
        assert b'"event_time_original":"2026-01-01T12:00:00","received_time_original":"2026-01-01 12:00:01"' in kept


def test_mapped_records_keep_what_they_came_from(store: Store, tmp_path: Path) -> None:
    record = '{"who": "a/b", "at": 1767225600.5, "n": 1.50}'
    mapping = {"source": "'hook'", "event_type": "'t'", "entity_id": "who", "event_time": "at", "payload": "{n: n}"}
    reading = Reading(1 << 20, mapping=mapping, times=Times("epoch"))
    ingest(store, written(tmp_path, [record, "[1]"]), reading=reading)
    [[[_, seq, kind, raw]]] = snapshot(store)["events"].values()
    assert (seq, kind) == (1, Verdict.ACCEPTED)
    assert b'"original":' + record.encode() + b',"payload":{"n":1.5}}' in raw


AMBIGUOUS = Times("auto", "Europe/Berlin", (("timezone", "received_time", "America/New_York"),), "later")


def lost_index(store: Store) -> Store:
    for file in Path(store.url).glob("index.db*"):
        file.unlink()
    return open_store(store.url)


def without_zone(name: str) -> Zone:
    if name == "America/New_York":
        raise UsageError(f"unknown time zone {name!r}")
    return load_zone(name)


def test_how_times_were_read_is_counted_once_however_they_come_in(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of a unit that their size tells, and local times that clocks showed twice: of valid records alone, in one
    go, resumed, by a rebuild of the finished and of the interrupted batch, and of lines that are read one by one. A
    rebuild that does not know the zone says that it cannot count them."""
    twice, there = "2026-10-25T02:30:00", "2026-11-01T01:30:00"
    texts = [
        line(n, event_time=time) for n, time in enumerate([1792888200, 1792888200000, twice, "2026-01-01T00:00:00Z"])
    ]
    texts += [
        line(1e400, event_time=twice, received_time=there).replace("Infinity", "1.50"),
        line(event_time=twice, entity=""),
    ]
    texts += [line(9, event_time="2026-03-29T02:30:00"), *(line(n, event_time=1792888200 + n) for n in range(20))]
    expected = {
        "event_time epoch": 21,
        "event_time epoch_ms": 1,
        "event_time later Europe/Berlin": 2,
        "received_time later America/New_York": 1,
    }
    reading = Reading(1 << 20, times=AMBIGUOUS)
    done = ingest(store, written(tmp_path, texts), reading=reading).batch
    assert done.times == expected
    assert {"ambiguous": "later", "timezone.event_time": "Europe/Berlin"}.items() <= dict(done.origin.options).items()
    other = open_store(str(tmp_path / "other"), create=True)
    with crash_at(other, 9) as crashing:
        ingest(crashing, written(tmp_path, texts), reading=reading)
    [interrupted] = other.index.batches()
    assert 0 < sum(interrupted.times.values()) < 25
    with monkeypatch.context() as unknown:
        unknown.setattr("pik.model.times.load_zone", without_zone)
        [problem] = rebuild_index(lost_index(other), SILENT).uncounted
        assert problem == f"{interrupted.batch_id} ({interrupted.origin.name}): unknown time zone 'America/New_York'"
    assert rebuild_index(lost_index(other), SILENT).uncounted == ()
    [rebuilt] = other.index.batches()
    assert (rebuilt.times, rebuilt.next_seq) == (interrupted.times, interrupted.next_seq)
    assert ingest(other, written(tmp_path, texts), reading=reading).batch.times == expected
    rebuild_index(other, SILENT)
    assert [one.times for one in other.index.batches()] == [expected]
    events = Times(timezone="Europe/Berlin", ambiguous="earlier")
    raw = [line(n, event_time=twice) for n in range(3)] + [line(entity=""), line(3, event_time=twice, extra=1), "{"]
    assert ingest(store, written(tmp_path, raw), reading=Reading(1 << 20, times=events)).batch.times == {
        "event_time earlier Europe/Berlin": 4
    }


def test_promise_1_a_batch_that_was_interrupted_resumes_where_it_stopped(store: Store, tmp_path: Path) -> None:
    texts = [*map(line, range(40)), "{", *map(line, range(30, 60)), line(1, key="k"), line(2, key="k")]
    source = written(tmp_path, texts)
    whole = open_store(str(tmp_path / "whole"), create=True)
    ingest(whole, source)
    with crash_at(store, 11) as crashing:
        ingest(crashing, source)
    [interrupted] = store.index.batches()
    assert interrupted.state == BatchState.INTERRUPTED
    assert 0 < interrupted.next_seq - 1 < len(texts)
    done = ingest(store, source)
    assert (done.outcome, done.resumed_from) == (Outcome.RESUMED, interrupted.next_seq)
    assert (done.batch.batch_id, done.batch.attempt) == (interrupted.batch_id, 2)
    assert snapshot(store) == snapshot(whole)
    assert_sound(store)


@pytest.mark.parametrize(
    ("kind", "compressed"), [("lines", False), ("lines", True), ("array", True), ("values", False)]
)
def test_promise_1_any_kind_of_file_resumes(store: Store, tmp_path: Path, kind: str, compressed: bool) -> None:
    texts = list(map(line, range(30)))
    written_as = {
        "lines": "\n".join(texts),
        "array": "[" + ",\n".join(texts) + "]",
        "values": "\n".join(json.dumps(json.loads(text), indent=1) for text in texts),
    }
    data = written_as[kind].encode()
    path = tmp_path / "events"
    path.write_bytes(gzip.compress(data) if compressed else b"\xef\xbb\xbf" + data)
    number, outcome = 0, ""
    while outcome != Outcome.RESUMED:
        number += 2
        fault = FailAt(number if number % 4 else 10**9)
        try:
            outcome = ingest(wrapped(store, fault, "raw", "batches"), file_source(str(path))).outcome
        except Crash:
            continue
    assert store.index.totals().events == 30
    assert_sound(store)


def test_refused_conflicts_stop_the_batch_before_the_block(store: Store, tmp_path: Path) -> None:
    texts = [*map(line, range(10)), line(1, key="k"), *map(line, range(10, 20)), line(2, key="k"), line("late")]
    source = written(tmp_path, texts)
    for _ in range(2):
        with pytest.raises(ConflictFound, match=r"\.jsonl: records .* \(conflicts: 1\)"):
            ingest(store, source, refuse_conflicts=True)
    [batch] = store.index.batches()
    assert batch.state == BatchState.INTERRUPTED
    assert batch.counts.conflict == 0
    assert batch.counts.accepted == batch.next_seq - 1 > 11
    done = ingest(store, source)
    assert done.outcome == Outcome.RESUMED
    assert done.batch.counts == Counts(23, 22, 0, 1, 0)
    assert_sound(store)


def test_an_invalid_record_stops_the_batch_where_none_may_be(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path, [*map(line, range(10)), "", "{", line("late")])
    with pytest.raises(InputError, match=r"events.jsonl: record 12 is not an event: the line is not JSON") as error:
        ingest(store, source, reading=Reading(1 << 20, stop=True))
    assert "--on-invalid reject" in error.value.hint
    [batch] = store.index.batches()
    assert (batch.state, batch.counts.rejected) == (BatchState.INTERRUPTED, 0)
    assert ingest(store, source).outcome == Outcome.RESUMED
    assert_sound(store)


def test_an_error_of_the_store_stops_and_the_next_run_resumes(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path, map(line, range(30)))
    with pytest.raises(StoreError, match="no space"):
        ingest(wrapped(store, FailAt(8, StoreError("no space")), "raw", "batches"), source)
    assert ingest(store, source).outcome == Outcome.RESUMED
    assert_sound(store)


def test_an_empty_input_is_a_batch_too(store: Store, tmp_path: Path) -> None:
    for number, data in enumerate(["", "\n\n", "[]"]):
        path = tmp_path / f"{number}"
        path.write_text(data)
        done = ingest(store, file_source(str(path)))
        assert (done.outcome, done.batch.counts) == (Outcome.NEW, Counts())
        assert ingest(store, file_source(str(path))).outcome == Outcome.ALREADY
    assert_sound(store)


def without_conflicts(files: list[list[str]]) -> list[list[str]]:
    """Each idempotency key says one thing, wherever it comes."""
    said: dict[str, str] = {}

    def one(text: str) -> str:
        key = json.loads(text).get("idempotency_key") if "idempotency_key" in text else None
        return said.setdefault(key, text) if key else text

    return [[one(text) for text in of_file] for of_file in files]


def check_orders(files: list[list[str]], random: Any) -> None:
    """Conflicts aside, where the first to come is the event."""
    files = without_conflicts(files)
    with tempfile.TemporaryDirectory() as directory:
        held = []
        for name in ("one", "other"):
            store = open_store(f"{directory}/{name}", create=True)
            for number, lines in enumerate(files):
                ingest(store, written(Path(directory), [*lines, line(os.urandom(4).hex(), entity="z")], f"{number}"))
            found = snapshot(store)["events"]
            events = {event: (one[0][3].partition(b'"seq"')[0], len(one)) for event, one in found.items()
                      if b'"entity_id":"z"' not in one[0][3]}  # fmt: skip
            computed = diff_aggregates(store, DuckEngine(threads=1), ALL_TIME).rows
            held.append((events, [row for row in computed if row.entity_id != "z"]))
            files = [random.sample(lines, len(lines)) for lines in random.sample(files, len(files))]
        assert held[0] == held[1]


ORDERS = given(
    st.lists(st.lists(LINES, min_size=1, max_size=8), min_size=2, max_size=4), st.randoms(use_true_random=False)
)
test_two_stores_fed_in_different_orders_hold_the_same_events_and_aggregates = settings(max_examples=10)(
    ORDERS(check_orders)
)
test_two_stores_fed_in_different_orders_hold_the_same_events_and_aggregates_for_long = pytest.mark.slow(
    settings(max_examples=100)(ORDERS(check_orders))
)
