"""Many inputs in one go: small files share transactions and syncs, and end as if they had come one by one."""

from __future__ import annotations

import gzip
import random
import shutil
from pathlib import Path

import pytest

from pik.errors import InputError
from pik.inputs.archives import with_members
from pik.inputs.source import Source, file_source
from pik.model.batch import BatchState, Counts
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest import many_inputs as ingest_many
from pik.usecases.ingest.batch_ingest import IngestOptions, IngestReport, Outcome, ingest
from pik.usecases.ingest.many_inputs import ingest_all
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.snapshot import assert_sound, snapshot

OPTIONS = IngestOptions(Reading(1 << 20), workers=0)
EVENT = '{"source":"s%d","event_type":"t","entity_id":"e","event_time":"2026-01-%02dT00:00:00Z","payload":{"n":%d}%s}\n'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """Twelve files: some days each, duplicates, conflicts and rejects, one empty, one compressed."""
    draw = random.Random(3)
    found = []
    for number in range(12):
        key = f',"idempotency_key":"k{number % 3}"' if number % 2 else ""
        lines = [EVENT % (number % 2, draw.randint(1, 3), draw.randint(1, 5), key) for _ in range(6)] + ["{\n"]
        path = tmp_path / f"{number}.jsonl"
        path.write_text("" if number == 4 else "".join(lines))
        if number == 5:
            path.write_bytes(gzip.compress(path.read_bytes()))
        found.append(file_source(str(path)))
    return found


def ingested(store: Store, sources: list[Source], options: IngestOptions = OPTIONS) -> list[IngestReport]:
    return list(ingest_all(store, sources, options, SILENT))


def one_by_one(directory: Path, sources: list[Source]) -> Store:
    store = open_store(str(directory / "one-by-one"), create=True)
    for source in sources:
        ingest(store, source, OPTIONS, SILENT)
    return store


def test_they_end_as_if_they_had_come_one_by_one(tmp_path: Path, store: Store, sources: list[Source]) -> None:
    done = ingested(store, sources)
    assert [one.source for one in done] == [source.name for source in sources]
    assert {one.outcome for one in done} == {Outcome.NEW}
    assert {one.batch.state for one in done} == {BatchState.COMPLETE}
    assert sum((one.batch.counts for one in done), Counts()).conflict > 0
    expected = snapshot(one_by_one(tmp_path, sources))
    assert snapshot(store) == expected
    assert_sound(store)
    rebuild_index(store, SILENT)
    assert snapshot(store) == expected  # promise 3


def test_what_they_share(store: Store, sources: list[Source]) -> None:
    counting = FailAt(0)
    ingested(wrapped(store, counting, "raw", "batches"), sources)
    assert counting.calls.count("raw.create_all") == 2
    assert "raw.create" not in counting.calls


def test_the_same_files_again(store: Store, sources: list[Source]) -> None:
    first = ingested(store, sources)
    assert [(one.outcome, one.batch) for one in ingested(store, sources)] == [
        (Outcome.ALREADY, one.batch) for one in first
    ]


def test_the_same_content_twice_in_one_go_is_one_batch(tmp_path: Path, store: Store, sources: list[Source]) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(sources[1].name).read_bytes())
    done = ingested(store, [*sources[:3], file_source(str(copy)), *sources[3:]])
    assert [one.outcome for one in done] == [Outcome.NEW] * 3 + [Outcome.ALREADY] + [Outcome.NEW] * 9
    assert done[3].batch == done[1].batch


def test_a_file_that_is_wrong_stops_at_itself(tmp_path: Path, store: Store, sources: list[Source]) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_bytes(b"\x7fELF\0\0\0\0")
    with pytest.raises(InputError, match="wrong"):
        ingested(store, [*sources[:5], file_source(str(wrong))])
    assert [batch.state for batch in store.index.batches()] == [BatchState.COMPLETE] * 5


def test_what_is_not_small_is_taken_by_itself(
    store: Store, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither large files nor those whose content is."""
    expected = [one.batch.counts for one in ingested(store, sources)]
    monkeypatch.setattr(ingest_many, "BLOCK", 1500)
    monkeypatch.setattr(ingest_many, "SMALL", 700)
    other = open_store(store.url + "-other", create=True)
    assert [one.batch.counts for one in ingested(other, sources)] == expected
    assert snapshot(other) == snapshot(store)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_promise_1_a_crash_at_every_durable_step_of_a_group(tmp_path: Path, sources: list[Source], after: bool) -> None:
    sources = sources[:6]
    expected = snapshot(one_by_one(tmp_path, sources))
    counting = FailAt(0)
    ingested(wrapped(open_store(str(tmp_path / "steps"), create=True), counting, "raw", "batches"), sources)
    for number in range(1, len(counting.calls) + 1):
        store = open_store(str(tmp_path / f"store{number}"), create=True)
        with pytest.raises(Crash):
            ingested(wrapped(store, FailAt(number, after=after), "raw", "batches"), sources)
        done = ingested(store, sources)
        assert {one.outcome for one in done} <= {Outcome.NEW, Outcome.RESUMED, Outcome.ALREADY}
        assert snapshot(store) == expected, f"step {number}"
        assert_sound(store)


@pytest.mark.parametrize("kind", ["gztar", "zip"])
def test_promise_1_a_crash_within_an_archive_is_resumed_there(
    tmp_path: Path, store: Store, sources: list[Source], kind: str
) -> None:
    """Its files are the batches that they would be alone, except for the empty one."""
    (tmp_path / "inner").mkdir()
    paths = [Path(source.name) for source in sources]
    for path in paths:
        (tmp_path / "inner" / path.name).write_bytes(path.read_bytes())
    archive = file_source(shutil.make_archive(str(tmp_path / "it"), kind, tmp_path, "inner"))
    told: list[str] = []
    for number in (1, 9, 15):
        crashing = wrapped(store, FailAt(number), "raw", "batches")
        with pytest.raises(Crash):
            list(ingest_all(crashing, with_members([archive], told.append), OPTIONS, SILENT))
    done = list(ingest_all(store, with_members([archive], told.append), OPTIONS, SILENT))
    assert set(told) == {f"{archive.name}: skipped 1 empty file"}
    assert {one.source.removeprefix(f"{archive.name}:inner/") for one in done} == {
        path.name for path in paths if path.stat().st_size
    }
    assert_sound(store)
    plain = [gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for data in map(Path.read_bytes, paths)]
    lines = [line for data in plain for line in data.splitlines()]
    total = sum((one.batch.counts for one in done), Counts())
    assert (total.read, total.rejected) == (len(lines), sum(line == b"{" for line in lines))
    assert {one.outcome for one in ingested(store, [source for source in sources if source.size])} == {Outcome.ALREADY}
