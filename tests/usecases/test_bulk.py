"""Bulk ingest: files that a fleet reads end as if they had been ingested one after the other."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import ConflictFound, PikError
from pik.inputs import blocks, splits
from pik.inputs.archives import with_members
from pik.inputs.source import Source, file_source
from pik.model.window import ALL_TIME
from pik.ports.raw import RawKey, RawKind
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest import bulk, bulk_plan
from pik.usecases.ingest.batch_ingest import IngestOptions, IngestReport, Outcome, PartlyRead
from pik.usecases.ingest.bulk import ingest_in_bulk
from pik.usecases.ingest.bulk_tasks import build
from pik.usecases.ingest.many_inputs import ingest_all
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.fleet import ShuffledFleet
from tests.support.snapshot import assert_sound, damage, snapshot
from tests.usecases.test_correct import correct

OPTIONS = IngestOptions(Reading(1 << 20, mixed=True), workers=0)

MAPPED = IngestOptions(
    Reading(
        1 << 20,
        mixed=True,
        mapping={
            "source": "'shop'",
            "event_type": "'order'",
            "entity_id": "customer",
            "event_time": "at",
            "payload": "@",
        },
    ),
    workers=0,
)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are cut into many parts and blocks, and machines are given few of them."""
    monkeypatch.setattr(blocks, "BLOCK", 200)
    monkeypatch.setattr(blocks, "FIRST_READ", 60)
    monkeypatch.setattr(splits, "HEAD", 100)
    monkeypatch.setattr(bulk_plan, "SMALL", 0)
    for module in (bulk, bulk_plan):
        monkeypatch.setattr(module, "PART", 450)


class Done:
    """What ingesting files gave: reports, and what was refused."""

    def __init__(self) -> None:
        self.reports: list[IngestReport] = []
        self.refused: list[tuple[str, str, str]] = []

    def refuse(self, name: str, error: PikError) -> None:
        if isinstance(error, PartlyRead):
            self.reports.append(error.report)
        self.refused.append((name, error.message, error.hint))

    def told(self) -> list[object]:
        """What two ways to ingest must agree in."""
        return [
            *((one.source, one.outcome, one.resumed_from, one.batch.counts, dict(one.longer)) for one in self.reports),
            *self.refused,
        ]


def in_bulk(store: Store, sources: Sequence[Source], options: IngestOptions = OPTIONS) -> Done:
    done = Done()
    fleet = ShuffledFleet(store)
    done.reports += ingest_in_bulk(store, fleet, sources, options, SILENT, done.refuse, lambda _: None)
    return done


def one_by_one(store: Store, sources: Sequence[Source], options: IngestOptions = OPTIONS) -> Done:
    done = Done()
    inputs = with_members(sources, lambda _: None, done.refuse)
    done.reports += ingest_all(store, inputs, options, SILENT, done.refuse)
    return done


def both(directory: Path) -> tuple[Store, Store]:
    return tuple(open_store(str(directory / name), create=True) for name in ("plain", "bulk"))  # type: ignore[return-value]


def event(number: int, day: int, key: str | None = None) -> bytes:
    fields = {
        "source": f"s{number % 2}",
        "event_type": "t",
        "entity_id": f"e{number % 3}",
        "event_time": f"2026-01-{day:02}T00:00:00Z",
        "payload": {"n": number},
    }
    return json.dumps(fields | ({"idempotency_key": key} if key else {})).encode()


EVENTS = st.builds(event, st.integers(0, 8), st.integers(1, 3), st.sampled_from([None, None, "k1", "k2"]))
OTHERS = st.sampled_from(
    [b"", b"{", b'{"source":"s"}', b"\xff{}", b'{"n":"' + b"x" * 700 + b'"}', b"\xef\xbb\xbf{}", b"\0\0"]
)
LINES = st.lists(st.one_of(EVENTS, EVENTS, EVENTS, OTHERS), max_size=14)
FILES = st.builds(
    lambda lines, ending, before, pack: pack(before + b"\n".join(lines) + ending),
    LINES,
    st.sampled_from([b"", b"\n", b"\n\n"]),
    st.sampled_from([b"", b"", b"\xef\xbb\xbf"]),
    st.sampled_from([bytes, bytes, bytes, gzip.compress, lambda data: gzip.compress(data)[:-12]]),
)
ROWS = st.builds(
    lambda rows: "\n".join(["customer,at,n", *rows, ""]).encode(),
    st.lists(
        st.builds("c{},2026-01-0{}T00:00:00Z,{}".format, st.integers(1, 3), st.integers(0, 3), st.integers(1, 4)),
        min_size=1,
        max_size=30,
    ),
)


def written(directory: Path, contents: Sequence[bytes], ending: str) -> list[Source]:
    found = []
    for number, content in enumerate(contents):
        path = directory / f"{number}.{ending}"
        path.write_bytes(content)
        found.append(file_source(str(path)))
    return found


@settings(max_examples=40, deadline=None)
@given(
    before=FILES, files=st.lists(FILES, min_size=1, max_size=6), again=st.booleans(), small=st.sampled_from([0, 200])
)
def test_the_result_is_that_of_ingesting_one_after_the_other(
    before: bytes, files: list[bytes], again: bool, small: int
) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk_plan, "SMALL", small)
        place = Path(name)
        plain, bulk_store = both(place)
        (first,) = written(place, [before], "before")
        for store in (plain, bulk_store):
            one_by_one(store, [first])
        sources = written(place, files, "jsonl")
        options = replace(OPTIONS, again=again)
        expected = one_by_one(plain, sources, options)
        assert in_bulk(bulk_store, sources, options).told() == expected.told()
        assert snapshot(bulk_store) == snapshot(plain)
        assert damage(bulk_store) == []


@settings(max_examples=15, deadline=None)
@given(files=st.lists(ROWS, min_size=1, max_size=3))
def test_mapped_rows_are_read_as_by_ingest(files: list[bytes]) -> None:
    with TemporaryDirectory() as name:
        plain, bulk_store = both(Path(name))
        sources = written(Path(name), files, "csv")
        expected = one_by_one(plain, sources, MAPPED)
        assert in_bulk(bulk_store, sources, MAPPED).told() == expected.told()
        assert snapshot(bulk_store) == snapshot(plain)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """Of several parts, of one, compressed, empty, twice the same; with duplicates, conflicts and rejects."""
    lines = [event(number % 9, number % 3 + 1, f"k{number % 4}" if number % 2 else None) for number in range(25)]
    several, one = b"\n".join([*lines[:12], b"{", *lines[12:]]), b"\n".join(lines[7:9])
    return written(tmp_path, [several, one, b"", gzip.compress(several + b"\n" + one), one, one + b"\n"], "jsonl")


def segments(store: Store) -> set[str]:
    return {found.key for found in store.raw.objects(RawKind.SEGMENT)}


def listed(store: Store) -> set[str]:
    return {segment.key for segment in store.index.segments(ALL_TIME)}


def test_a_segment_has_what_a_part_has_of_a_day(tmp_path: Path, sources: list[Source]) -> None:
    plain, store = both(tmp_path)
    one_by_one(plain, sources)
    in_bulk(store, sources)
    of_first = [RawKey.of(key) for key in segments(store) if RawKey.of(key).id == min(listed_ids(store))]
    assert len({key.number for key in of_first}) > 3
    assert {key.day for key in of_first} == {20454, 20455, 20456}
    assert len(of_first) == len(set(of_first))
    assert segments(store) == listed(store)
    assert [RawKey.of(key.key).number for key in store.raw.objects(RawKind.PLAN)] == [1]


def listed_ids(store: Store) -> list[str]:
    return [batch.batch_id for batch in store.index.batches()]


@pytest.mark.parametrize(
    ("after", "step"),
    [(False, 5), (True, 7), *(pytest.param(after, 1, marks=pytest.mark.slow) for after in (False, True))],
)
def test_promise_1_a_crash_at_every_durable_step(tmp_path: Path, sources: list[Source], after: bool, step: int) -> None:
    """The same call goes on with what was made, which nothing makes again under another name."""
    plain, counted = both(tmp_path)
    one_by_one(plain, sources)
    expected, counting = snapshot(plain), FailAt(0)
    in_bulk(wrapped(counted, counting, "raw", "batches"), sources)
    for number in range(1 + after, len(counting.calls) + 1, step):
        store = open_store(str(tmp_path / f"store{number}"), create=True)
        try:
            in_bulk(wrapped(store, FailAt(number, after=after), "raw", "batches"), sources)
        except Crash:
            pass
        else:
            assert after  # the call failed by itself: a segment was there already
        if number % 4 == 0:
            one_by_one(store, sources[:1])  # something else goes on with it
        done = in_bulk(store, sources)
        assert not done.refused
        assert snapshot(store) == expected, f"step {number}"
        assert_sound(store)
        if number % 4:
            assert segments(store) == listed(store)


@pytest.mark.parametrize("number", [2, 9, 13, 20])
def test_promise_3_the_index_may_be_lost_as_well(tmp_path: Path, sources: list[Source], number: int) -> None:
    plain, store = both(tmp_path)
    files = [sources[0], sources[3]]
    one_by_one(plain, files)
    with pytest.raises(Crash):
        in_bulk(wrapped(store, FailAt(number), "raw", "batches"), files)
    Path(store.url, "index.db").unlink()
    rebuild_index(store, SILENT)
    in_bulk(store, files)
    assert snapshot(store) == snapshot(plain)
    assert_sound(store)


def test_the_same_files_again_are_known(tmp_path: Path, sources: list[Source]) -> None:
    store = both(tmp_path)[1]
    first = in_bulk(store, sources)
    for _ in range(2):
        known = in_bulk(store, sources)
        assert [one.batch for one in known.reports] == [one.batch for one in first.reports]
        assert {one.outcome for one in known.reports} == {Outcome.ALREADY}
    again = replace(OPTIONS, again=True)
    for _ in range(2):  # a plan that is done is not gone on with
        assert {one.outcome for one in in_bulk(store, sources, again).reports} == {Outcome.NEW}
    assert sorted(RawKey.of(found.key).number or 0 for found in store.raw.objects(RawKind.PLAN)) == [1, 1, 2]


def test_files_again_that_were_cut_are_not_ingested_twice(tmp_path: Path, sources: list[Source]) -> None:
    plain, store = both(tmp_path)
    again = replace(OPTIONS, again=True)
    one_by_one(plain, sources, again)
    with pytest.raises(Crash):
        in_bulk(wrapped(store, FailAt(14), "batches"), sources, again)
    assert {one.outcome for one in in_bulk(store, sources, again).reports} == {
        Outcome.ALREADY,
        Outcome.RESUMED,
        Outcome.NEW,
    }
    assert snapshot(store) == snapshot(plain)


def test_a_file_that_changes_after_it_was_planned_is_refused(tmp_path: Path, sources: list[Source]) -> None:
    store = both(tmp_path)[1]

    class Changing(ShuffledFleet):
        def map(self, body: Any, items: Any) -> Any:
            if body is build:
                with open(sources[0].name, "ab") as file:
                    file.write(b"\n{}")
            return super().map(body, items)

    done = Done()
    done.reports += ingest_in_bulk(store, Changing(store), sources, OPTIONS, SILENT, done.refuse, lambda _: None)
    assert [(name, message) for name, message, _ in done.refused] == [
        (sources[0].name, f"{sources[0].name} changed while it was being read")
    ]
    assert len(done.reports) == len(sources) - 1


def test_archives_are_read_here(tmp_path: Path, sources: list[Source]) -> None:
    plain, store = both(tmp_path)
    with zipfile.ZipFile(tmp_path / "it.zip", "w") as archive:
        archive.writestr("inner.jsonl", event(77, 1) + b"\n" + event(1, 1))
    inputs = [sources[1], file_source(str(tmp_path / "it.zip")), *sources]
    assert in_bulk(store, inputs).told() == one_by_one(plain, inputs).told()
    assert snapshot(store) == snapshot(plain)


def test_what_stops_an_ingest_stops_at_its_own_file(tmp_path: Path, sources: list[Source]) -> None:
    plain, store = both(tmp_path)
    files, raised = [sources[1], sources[0], sources[3]], []
    for here, run in ((plain, one_by_one), (store, in_bulk)):
        with pytest.raises(ConflictFound) as caught:
            run(here, files, replace(OPTIONS, refuse_conflicts=True))
        raised.append((re.sub(r"records \d+ to \d+", "", caught.value.message), caught.value.hint))
    assert raised[0] == raised[1]
    stopping = replace(OPTIONS, reading=replace(OPTIONS.reading, stop=True))
    expected = one_by_one(plain, files, stopping)
    assert len(expected.refused) == 1
    assert in_bulk(store, files, stopping).refused == expected.refused


def test_a_withdrawn_batch_is_ingested_anew(tmp_path: Path, sources: list[Source]) -> None:
    store = both(tmp_path)[1]
    first = in_bulk(store, sources[:2]).reports
    correct(store, f"without-batch={first[0].batch.batch_id}")
    second = in_bulk(store, sources[:2]).reports
    assert [one.outcome for one in second] == [Outcome.NEW, Outcome.ALREADY]
    assert second[0].batch.batch_id != first[0].batch.batch_id
    assert_sound(store)
