"""Promise 3 after a fault: a rebuild keeps what the replaced index says, and tells what it could not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pik.errors import InputError
from pik.inputs import blocks as blocks_module
from pik.inputs.source import Source, file_source
from pik.model.batch import BatchState, Verdict
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog import segment_writer as segments_module
from pik.rawlog.deliveries import deliveries
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import RebuildReport, rebuild_index
from pik.usecases.ingest.api_request import record_request
from pik.usecases.ingest.batch_ingest import IngestOptions, Outcome, ingest
from tests.support.snapshot import assert_sound, damage, snapshot

OPTIONS = IngestOptions(Reading(1 << 20), workers=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """300 records over three days, some invalid, some twice, in about ten blocks."""
    monkeypatch.setattr(blocks_module, "BLOCK", 4096)
    path = tmp_path / "events.jsonl"
    path.write_text("".join(line(number) for number in range(300)))
    return path


def line(number: int) -> str:
    if number % 17 == 0:
        return "{broken\n" if number % 2 else "\n"
    event = {
        "source": "s",
        "event_type": "t",
        "entity_id": f"e{number % 5}",
        "event_time": f"2026-01-0{1 + number % 3}T00:00:00Z",
        "payload": {"n": number // 4 * 4},
    }
    return json.dumps(event | ({"idempotency_key": f"k{number % 11}"} if number % 5 == 0 else {})) + "\n"


def event(key: str, amount: int) -> bytes:
    fields = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-01-01T00:00:00Z"}
    return json.dumps({**fields, "idempotency_key": key, "payload": {"amount": amount}}).encode()


class Crash(Exception):
    """At will."""


def refused(store: Store, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose object is written, and nothing else."""

    def crash(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(type(store.requests), "record_request", crash)
        with pytest.raises(Crash):
            record_request(store, body)


def lose_index(store: Store) -> None:
    (Path(store.url) / "index.db").unlink()
    for name in ("index.db-wal", "index.db-shm"):
        (Path(store.url) / name).unlink(missing_ok=True)


def rebuild(store: Store) -> RebuildReport:
    return rebuild_index(store, SILENT)


def amounts(store: Store) -> dict[int, str]:
    found = deliveries(store, Filter(ALL_TIME))
    return {json.loads(bytes(one.delivery.payload))["amount"]: one.kind for one in found}


def test_a_refused_request_never_beats_one_that_was_acknowledged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(store, event("k", 1), monkeypatch)
    record_request(store, event("k", 2))
    for _ in range(2):
        done = rebuild(store)
        assert (done.unacknowledged, done.uncertain, done.revised, done.replaced) == (1, 0, 0, "all")
        assert amounts(store) == {2: Verdict.ACCEPTED}
        assert done.superseded == 0


def test_with_the_index_gone_a_key_that_only_arrival_decides_is_listed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(store, event("k", 1), monkeypatch)
    record_request(store, event("k", 2))
    record_request(store, event("other", 3))
    lose_index(store)
    done = rebuild(store)
    assert (done.unacknowledged, done.uncertain, done.undecided, done.replaced) == (0, 3, 1, "none")
    (rivals,) = done.undecided_examples
    assert amounts(store) == {1: Verdict.ACCEPTED, 2: Verdict.CONFLICT, 3: Verdict.ACCEPTED}
    (batch,) = {one.delivery.batch_id for one in deliveries(store, Filter(ALL_TIME)) if one.kind == Verdict.CONFLICT}
    assert rivals.other == (batch, 1)
    assert done.guessed == 3
    assert all(s.guessed and s.recorded_at == s.ingest_time for s in store.index.segments(ALL_TIME))
    assert rebuild(store).guessed == 3  # they stay marked


def test_raw_that_was_moved_into_a_new_store_counts(store: Store, tmp_path: Path) -> None:
    """Its index is there, and empty: that is no reason to leave out requests."""
    record_request(store, event("k", 1))
    new = open_store(str(tmp_path / "new"), create=True)
    (Path(new.url) / "raw").rmdir()
    (Path(store.url) / "raw").rename(Path(new.url) / "raw")
    assert rebuild(new).replaced == "none"
    assert amounts(new) == {1: Verdict.ACCEPTED}


def test_a_request_whose_index_rows_are_lost_in_part_comes_back(store: Store) -> None:
    record_request(store, event("k", 1))
    index = store.index
    for table in ("batch", "segment"):
        with index.database.write() as connection:  # type: ignore[attr-defined]
            connection.execute(f"DELETE FROM {table}")
        record_request(store, event(table, 2))
        done = rebuild(store)
        assert done.unacknowledged == 0, table
        assert amounts(store)[1] == Verdict.ACCEPTED
        assert damage(store) == []


def test_recorded_at_is_kept(store: Store, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_request(store, event("k", 1))
    cut(store, file_source(str(events)), 4, monkeypatch)

    def times() -> dict[str, int]:
        return {segment.key: segment.recorded_at for segment in store.index.segments(ALL_TIME)}

    before = times()
    assert rebuild(store).guessed == 0
    assert times() == before


def cut(store: Store, source: Source, count: int, monkeypatch: pytest.MonkeyPatch, *, options: Any = OPTIONS) -> None:
    """Ingest until the count-th block is in raw, and the index has not taken it."""
    record, calls = type(store.batches).record, iter(range(1000))

    def crashing(self: Any, chunk: Any, **rest: Any) -> Any:
        if next(calls) == count:
            raise Crash
        return record(self, chunk, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(type(store.batches), "record", crashing)
        with pytest.raises(Crash):
            ingest(store, source, options, SILENT)


@pytest.fixture
def whole(tmp_path: Path, events: Path) -> dict[str, Any]:
    """What an uninterrupted ingest leaves."""
    reference = open_store(str(tmp_path / "reference"), create=True)
    ingest(reference, file_source(str(events)), OPTIONS, SILENT)
    return snapshot(reference)


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("cuts", [[0], [1], [4], [3, 2], [3, 0, 2]])
def test_promise_1_a_cut_batch_is_resumed_after_a_rebuild(
    store: Store, events: Path, whole: dict[str, Any], cuts: list[int], gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebuilt after each cut: no record is missing, none comes twice, and nothing is superseded that was counted."""
    for count in cuts:
        cut(store, file_source(str(events)), count, monkeypatch)
        if gone:
            lose_index(store)
        held = (
            {(f.delivery.batch_id, f.delivery.seq) for f in deliveries(store, Filter(ALL_TIME))} if not gone else set()
        )
        done = rebuild(store)
        assert (done.unfinished, done.revised, done.damaged) == (1, 0, ())
        assert held <= places(store)
        assert damage(store) == []
    assert ingest(store, file_source(str(events)), OPTIONS, SILENT).outcome == Outcome.RESUMED
    assert snapshot(store) == whole
    assert_sound(store)
    lose_index(store)
    rebuild(store)
    assert snapshot(store) == whole


def places(store: Store) -> set[tuple[str, int]]:
    return {(found.delivery.batch_id, found.delivery.seq) for found in deliveries(store, Filter(ALL_TIME))}


def piped(path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A stream of the file's content."""

    monkeypatch.setattr("sys.stdin", path.open())
    return file_source("-")


@pytest.mark.parametrize("gone", [False, True])
def test_promise_1_a_cut_stream_is_resumed_after_a_rebuild_and_another_one_refused(
    store: Store, events: Path, gone: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = IngestOptions(Reading(1 << 20), workers=0, batch_key="night")
    cut(store, piped(events, monkeypatch), 4, monkeypatch, options=options)
    if gone:
        lose_index(store)
    rebuild(store)
    other = tmp_path / "other.jsonl"
    other.write_text(events.read_text().replace('"n": 0', '"n": 1'))
    with pytest.raises(InputError, match=r"is not what batch \w+ \("):
        ingest(store, piped(other, monkeypatch), options, SILENT)
    done = ingest(store, piped(events, monkeypatch), options, SILENT)
    assert done.outcome == Outcome.RESUMED
    assert done.batch.counts.read == sum(bool(text.strip()) for text in events.read_text().splitlines())
    assert_sound(store)


@pytest.fixture
def frames(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A segment of several frames, an entity each, of a finished batch."""
    monkeypatch.setattr(segments_module, "FRAME", 1000)
    path = tmp_path / "frames.jsonl"
    text = '{"source":"s","event_type":"t","entity_id":"e%d","event_time":"2026-01-01T00:00:00Z","payload":{"n":%d}}\n'
    path.write_text("".join(text % (number // 10, number) for number in range(50)))
    return path


def flip(store: Store, frame: int) -> str:
    """Flip a bit in the middle of a frame of the store's only segment."""
    (segment,) = store.index.segments(ALL_TIME)
    path = Path(store.url) / segment.key
    data = bytearray(path.read_bytes())
    place = segment.frames[frame]
    data[place.offset + place.length // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    return segment.frames[frame].first


def entity(store: Store, name: str) -> int:
    return sum(1 for _ in deliveries(store, Filter(ALL_TIME, entities=(name,))))


@pytest.mark.parametrize("gone", [False, True])
def test_a_rebuild_over_a_damaged_segment_keeps_its_whole_frames_and_counts_what_is_lost(
    store: Store, frames: Path, gone: bool
) -> None:
    ingest(store, file_source(str(frames)), OPTIONS, SILENT)
    (segment,) = store.index.segments(ALL_TIME)
    damaged = flip(store, 6)
    if gone:
        lose_index(store)
    done = rebuild(store)
    assert done.lost == segment.frames[6].lines
    assert done.lost_in[0].startswith(f"{segment.key}: {damaged}")
    assert len(done.damaged) == 1
    assert entity(store, "e0") == 10
    (batch,) = store.index.batches()
    assert (batch.counts.read, batch.counts.accepted) == (50, 50)
    located = len(store.index.locate("", limit=100))
    assert located == (50 - done.lost if gone else 50)  # the rows of what is lost are kept, where there were any
    (now,) = store.index.segments(ALL_TIME)
    assert now.unknown_frames == ((structs.replace(segment.frames[6], lines=0),) if gone else ())
    assert structs.replace(now, frames=segment.frames) == segment


def test_an_unfinished_batch_keeps_the_whole_frames_of_a_damaged_segment(
    store: Store, frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing but its bytes to tell where frames begin."""
    with monkeypatch.context() as patch:
        patch.setattr("pik.usecases.ingest.batch_ingest.write_record", lambda *_: (_ for _ in ()).throw(Crash))
        with pytest.raises(Crash):
            ingest(store, file_source(str(frames)), OPTIONS, SILENT)
    (segment,) = store.index.segments(ALL_TIME)
    flip(store, 6)
    lose_index(store)
    done = rebuild(store)
    assert (done.deliveries, len(done.damaged), done.unfinished) == (50 - segment.frames[6].lines, 1, 1)
    assert entity(store, "e0") == 10
    (found,) = store.index.segments(ALL_TIME)
    assert [(f.offset, f.length) for f in found.frames] == [(f.offset, f.length) for f in segment.frames]
    assert [problem.kind for problem in damage(store)] == ["modified"]
    (batch,) = store.index.batches()
    assert batch.state == BatchState.INTERRUPTED


def test_a_damaged_index_answers_what_it_still_can(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are then not left out: it may be its own damage that it does not know them."""
    record_request(store, event("a", 1))
    refused(store, event("b", 2), monkeypatch)
    with store.index.database.write() as connection:  # type: ignore[attr-defined]
        connection.execute("UPDATE segment SET frames = 'x'")
    done = rebuild(store)
    assert (done.replaced, done.unacknowledged, done.uncertain) == ("part", 0, 1)
    assert amounts(store) == {1: Verdict.ACCEPTED, 2: Verdict.ACCEPTED}


def test_a_winner_changed_by_a_flipped_index_is_reported_with_both_deliveries(store: Store, tmp_path: Path) -> None:
    """The sealed record stands; the change is a correction, once."""
    for number in (1, 2):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(event("k", number) + b"\n")
        ingest(store, file_source(str(path)), OPTIONS, SILENT)
    second, first = (batch.batch_id for batch in store.index.batches())
    with store.index.database.write() as connection:  # type: ignore[attr-defined]
        (later,) = connection.execute("SELECT number FROM segment WHERE batch = ?", (second,)).fetchone()
        (earlier,) = connection.execute("SELECT number FROM segment WHERE batch = ?", (first,)).fetchone()
        connection.execute("UPDATE keyed_event SET segment = ?", (later,))
        connection.execute("UPDATE duplicate SET segment = ?", (earlier,))
    done = rebuild(store)
    (revised,) = done.examples
    assert (revised.old, revised.new) == ((second, 1), (first, 1))
    assert amounts(store) == {1: Verdict.ACCEPTED, 2: Verdict.CONFLICT}
    assert rebuild(store).revised == 0
    assert len(list((Path(store.url) / "corrections").iterdir())) == 2


def test_verify_finds_an_opening_record_a_block_record_or_a_correction_that_is_flipped_swapped_or_gone(
    store: Store, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(store, file_source(str(events)), 4, monkeypatch)
    root = Path(store.url)
    (opening,) = (root / "raw" / "openings").iterdir()
    (root / "corrections").mkdir()
    correction = root / "corrections" / "01J00000000000000000000000.ndjson.zst"
    blocks = sorted((root / "raw" / "blocks").iterdir())
    assert len(blocks) == 5  # the last one was not recorded
    for path in (*blocks[:4], opening):
        whole = path.read_bytes()
        for data, kind in ((whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], "modified"), (None, "missing")):
            path.unlink()
            if data is not None:
                path.write_bytes(data)
            assert [(problem.kind, problem.what) for problem in damage(store)] == [(kind, str(path.relative_to(root)))]
        path.write_bytes(whole)
    other = opening.with_name("01J00000000000000000000000.ndjson.zst")
    other.write_bytes(whole)
    opening.write_bytes(whole)
    correction.write_bytes(whole)
    assert [(problem.kind, problem.what) for problem in damage(store)] == [
        ("modified", str(other.relative_to(root))),
        ("modified", str(correction.relative_to(root))),
    ]
