"""Promise 3: the index comes back from raw, whatever state the batches were in when it was lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.errors import Busy, Damaged, StoreError
from pik.inputs import blocks as blocks_module
from pik.inputs.source import file_source
from pik.model.batch import BatchState, Counts, Verdict
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import ProblemKind
from pik.usecases.ingest import batch_ingest as ingest_module
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest
from pik.usecases.inspect.batches import list_rejects

OPTIONS = IngestOptions(Reading(1 << 20), workers=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """400 events over two days, every seventh line invalid, read in about ten blocks."""
    monkeypatch.setattr(blocks_module, "BLOCK", 4096)
    lines = []
    for number in range(400):
        event = {
            "source": "s",
            "event_type": "t",
            "entity_id": f"e{number % 5}",
            "event_time": f"2026-01-0{1 + number % 2}T00:00:00Z",
            "payload": {"n": number // 2 * 2},
        }
        lines.append("{broken" if number % 7 == 0 else json.dumps(event))
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def seen(store: Store) -> list[tuple[str, int, str]]:
    return sorted((f.delivery.event_id, f.delivery.seq, f.kind) for f in deliveries(store, Filter(ALL_TIME)))


def lose_index(store: Store) -> None:
    (Path(store.url) / "index.db").unlink()


class Crash(Exception):
    pass


def test_a_batch_that_was_interrupted_twice_counts_each_record_once(store, file, monkeypatch):
    """Blocks whose raw is there without being recorded are superseded by those of the next attempt."""

    def crash_at(count: int) -> None:
        """Crash when the segments and rejects of the count-th block are in raw, and the index knows nothing of it."""
        record, calls = type(store.batches).record, iter(range(1000))

        def crashing(self, chunk, **options):
            if next(calls) == count:
                raise Crash
            return record(self, chunk, **options)

        with monkeypatch.context() as patch:
            patch.setattr(type(store.batches), "record", crashing)
            with pytest.raises(Crash):
                ingest(store, file_source(str(file)), OPTIONS, SILENT)

    crash_at(3)
    crash_at(2)
    (batch,) = store.index.batches()
    before, counts = seen(store), batch.counts
    assert batch.state == BatchState.INTERRUPTED
    lose_index(store)
    store = open_store(store.url)
    with pytest.raises(StoreError, match=r"index\.db is missing"):
        seen(store)
    rebuilt = rebuild_index(store, SILENT)
    (batch,) = store.index.batches()
    assert (rebuilt.unfinished, rebuilt.revised, rebuilt.damaged) == (1, 0, ())
    assert rebuilt.superseded > 0
    # The last block was durable in raw but not recorded; from raw alone it counts.
    assert set(before) <= set(seen(store))
    assert batch.state == BatchState.INTERRUPTED
    assert batch.counts.read == batch.counts.accepted + batch.counts.duplicates + batch.counts.rejected
    assert batch.counts.read >= counts.read
    seqs = [seq for _, seq, _ in seen(store)] + [reject.seq for reject in list_rejects(store, batch)]
    assert len(seqs) == len(set(seqs)) == batch.counts.read


def test_a_finished_batch_comes_back_as_it_was(store, file):
    done = ingest(store, file_source(str(file)), OPTIONS, SILENT).batch
    before = seen(store)
    segments = list(store.index.segments(ALL_TIME))
    lose_index(store)
    rebuilt = rebuild_index(store, SILENT)
    assert (rebuilt.batches, rebuilt.unfinished, rebuilt.superseded, rebuilt.revised) == (1, 0, 0, 0)
    assert seen(store) == before
    assert list(store.index.batches()) == [done]
    assert sorted(store.index.segments(ALL_TIME), key=lambda s: s.key) == sorted(segments, key=lambda s: s.key)
    assert ingest(store, file_source(str(file)), OPTIONS, SILENT).outcome == ingest_module.Outcome.ALREADY


def test_a_segment_that_is_lost_stays_known_until_it_is_restored(store, tmp_path):
    """Rebuilding over damage must not make it look whole, nor any number smaller without a word."""
    line = '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{"n":%d}}\n'
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_text(line % 1 + line % 2)
    second.write_text(line % 1 + line % 3)
    lost = ingest(store, file_source(str(first)), OPTIONS, SILENT).batch
    ingest(store, file_source(str(second)), OPTIONS, SILENT)
    before, batches = seen(store), list(store.index.batches())
    (segment,) = store.index.segments(ALL_TIME, batch_id=lost.batch_id)
    path = Path(store.url) / segment.key
    data = path.read_bytes()
    path.unlink()
    lose_index(store)
    rebuilt = rebuild_index(store, SILENT)
    assert len(rebuilt.damaged) == 1
    assert rebuilt.revised == 1  # its duplicate in the other batch counts meanwhile, and that is told
    assert next(one for one in store.index.batches() if one.batch_id == lost.batch_id).counts == lost.counts
    with pytest.raises(Damaged, match="is missing"):
        seen(store)
    found = verify(store, DuckEngine(), ALL_TIME, SILENT)
    assert [problem.kind for problem in found] == [ProblemKind.MISSING]

    path.write_bytes(data)
    found = verify(store, DuckEngine(), ALL_TIME, SILENT)
    assert [problem.kind for problem in found] == [ProblemKind.INDEX]  # and so it says what to type next
    again = rebuild_index(store, SILENT)
    assert (again.damaged, again.revised) == ((), 0)
    # The delivery that was chosen meanwhile goes on counting: that was recorded.
    swapped = {Verdict.ACCEPTED: Verdict.EXACT, Verdict.EXACT: Verdict.ACCEPTED}
    (twice,) = {event_id for event_id, _, kind in before if kind == Verdict.EXACT}
    assert seen(store) == sorted((i, s, swapped[Verdict(k)] if i == twice else k) for i, s, k in before)
    assert [batch.counts.read for batch in store.index.batches()] == [batch.counts.read for batch in batches]
    assert verify_kinds(store) == []
    assert (rebuild_index(store, SILENT).revised, len(corrections(store))) == (0, 3)  # each rebuild leaves one


def corrections(store: Store) -> list[Path]:
    return list((Path(store.url) / "corrections").glob("*"))


def verify_kinds(store: Store) -> list[str]:
    return [problem.kind for problem in verify(store, DuckEngine(), ALL_TIME, SILENT)]


def test_an_interrupted_rebuild_leaves_the_old_index(store, file, monkeypatch):
    ingest(store, file_source(str(file)), OPTIONS, SILENT)
    before = seen(store)

    def failing(*_: object) -> None:
        raise Damaged("at will")

    with monkeypatch.context() as patch:
        patch.setattr(type(store.raw), "objects", failing)
        with pytest.raises(Damaged):
            rebuild_index(store, SILENT)
    assert seen(store) == before


def test_rejects_are_counted_by_batch(store, file):
    batch = ingest(store, file_source(str(file)), OPTIONS, SILENT).batch
    assert batch.counts == Counts(read=400, accepted=batch.counts.accepted, exact=batch.counts.exact, rejected=58)
    assert len(list(list_rejects(store, batch))) == 58


def test_a_batch_whose_record_is_damaged_keeps_its_events_and_comes_back_with_the_record(store, file):
    ingest(store, file_source(str(file)), OPTIONS, SILENT)
    before, batches = seen(store), list(store.index.batches())
    (record,) = (Path(store.url) / "raw" / "batches").iterdir()
    whole = record.read_bytes()
    record.chmod(0o644)
    record.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    lose_index(store)
    rebuilt = rebuild_index(store, SILENT)
    assert (rebuilt.batches, rebuilt.unfinished, len(rebuilt.damaged)) == (1, 1, 1)
    assert seen(store) == before
    key = str(record.relative_to(store.url))
    found = verify(store, DuckEngine(), ALL_TIME, SILENT)
    assert [(problem.kind, problem.what) for problem in found] == [(ProblemKind.MODIFIED, key)]
    record.write_bytes(whole)
    lose_index(store)
    assert rebuild_index(store, SILENT).damaged == ()
    assert (seen(store), list(store.index.batches())) == (before, batches)


def test_a_rebuild_during_a_write_is_reported(store):
    with store.batches.writing("c"), pytest.raises(Busy, match="another pik process is writing to this store"):
        rebuild_index(store, SILENT)
    assert rebuild_index(store, SILENT).batches == 0
