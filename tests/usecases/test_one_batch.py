"""Several files as one batch: its records are those of all files, and each names its file and its place there."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pik.errors import InputError, UsageError
from pik.inputs.folders import SkippedFiles, folder_sources
from pik.inputs.one_batch import one_batch
from pik.inputs.source import Input, file_source, stream_source
from pik.model.batch import BatchState
from pik.model.delivery import Filter, read_delivery
from pik.model.times import Times
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.batch_ingest import Outcome
from pik.usecases.inspect.batches import list_rejects, with_closing
from tests.support.snapshot import assert_sound, damage, snapshot

from .test_ingest import crash_at, ingest, line

pytestmark = pytest.mark.usefixtures("blocks_of_a_few_lines")

FILES = {
    "a/1.jsonl": [line(1), "", "{", line(2, key="k")],
    "a/2.jsonl": [line(n, day=n % 3 + 1, entity=f"é{n}") for n in range(10, 40)],
    "b.jsonl": [line(3, key="k"), line(1)],  # without a line break at its end
    "c.jsonl.gz": ["  ", line(4), "é" * 90, line(5)],
    "d.jsonl": ["x" * 3000, line(6)],
}
READING = Reading(2000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, lines in FILES.items():
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = ("\n".join(lines) + "\n" * (name != "b.jsonl")).encode()
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return tmp_path / "logs"


def source_of(folder: Path) -> Input:
    return one_batch(folder_sources(str(folder), SkippedFiles()), "logs", f"{folder}/", pytest.fail)


PLACES = {
    seq: (name, place, text)
    for seq, (name, place, text) in enumerate(
        ((name, place, text) for name, lines in FILES.items() for place, text in enumerate(lines, 1)), 1
    )
}
"""The file, the place in it and the text of each record, by its seq."""
INVALID = {seq for seq, (_, _, text) in PLACES.items() if text.strip() and not text.startswith('{"')}


def test_seq_runs_on_and_every_record_keeps_its_file_and_its_place_there(store: Store, folder: Path) -> None:
    done = ingest(store, source_of(folder), reading=READING)
    texts = [text for _, _, text in PLACES.values() if text.strip()]
    assert (done.batch.counts.read, done.batch.counts.rejected) == (len(texts), len(INVALID))
    assert done.batch.next_seq == len(PLACES) + 1
    found = [read_delivery(one.line) for one in deliveries(store, Filter(ALL_TIME))]
    rejects = list(list_rejects(store, done.batch))
    kept = {one.seq: (one.file, one.file_record) for one in found} | {
        one.seq: (one.file, one.record) for one in rejects
    }
    assert kept == {seq: (name, place) for seq, (name, place, text) in PLACES.items() if text.strip()}
    assert {one.seq for one in rejects} == INVALID
    before = snapshot(store)
    rebuild_index(store, SILENT)
    assert snapshot(store) == before
    assert_sound(store)
    assert ingest(store, source_of(folder), reading=READING).outcome == Outcome.ALREADY


def test_promise_1_it_resumes_and_ends_as_if_nothing_had_happened(store: Store, folder: Path, tmp_path: Path) -> None:
    whole = open_store(str(tmp_path / "whole"), create=True)
    ingest(whole, source_of(folder), reading=READING)
    for number in (4, 9, 14):
        with crash_at(store, number) as crashing:
            ingest(crashing, source_of(folder), reading=READING)
    done = ingest(store, source_of(folder), reading=READING)
    assert done.outcome == Outcome.RESUMED
    assert (done.resumed_from or 0) > 1
    assert snapshot(store) == snapshot(whole)
    assert_sound(store)


@pytest.mark.parametrize("change", ["added", "renamed", "written to"])
def test_files_that_changed_after_a_crash_are_another_batch_which_closes_the_first_one(
    store: Store, folder: Path, change: str
) -> None:
    with crash_at(store, 9) as crashing:
        ingest(crashing, source_of(folder), reading=READING)
    if change == "added":
        (folder / "e.jsonl").write_text(line(7) + "\n")
    elif change == "renamed":
        (folder / "b.jsonl").rename(folder / "e.jsonl")
    else:
        (folder / "d.jsonl").write_text(line(8) + "\n")
    done = ingest(store, source_of(folder), reading=READING)
    assert done.outcome == Outcome.NEW
    assert done.batch.counts.exact > 2
    new, old = (with_closing(store, batch) for batch in store.index.batches())
    assert (new.batch_id, new.state) == (done.batch.batch_id, BatchState.COMPLETE)
    assert (old.state, old.replaced_by) == (BatchState.REPLACED, new.batch_id)
    assert damage(store) == []


def test_an_archive_is_the_same_batch_as_the_folder_that_it_was_made_of(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    first = ingest(store, source_of(folder), reading=READING)
    archive = tmp_path / "it.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        for name in FILES:
            made.add(folder / name, name)
    done = ingest(store, one_batch([file_source(str(archive))], "it", f"{archive}:", pytest.fail), reading=READING)
    assert (done.outcome, done.batch) == (Outcome.ALREADY, first.batch)


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
def test_files_of_any_format_are_one_batch_and_each_of_their_records_is_read(
    store: Store, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    rows = [{"id": f"u{n}", "at": 1_700_000_000 + n} for n in range(90)]
    for number in range(3):
        path, of_file = folder / f"{number}.{kind}", rows[number * 30 : number * 30 + 30]
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(of_file), path, row_group_size=7)
        elif kind == "csv":
            cells = "".join(f"{row['id']},{row['at']}\n" for row in of_file[:-1])
            path.write_text(f"id,at\n{cells}a,row,of,many\n")
        else:
            path.write_text(json.dumps(of_file, indent=1))
    mapping = {"source": "'s'", "event_type": "'t'", "entity_id": "id", "event_time": "at", "payload": "@"}
    done = ingest(store, source_of(folder), reading=Reading(2000, mapping=mapping, times=Times("epoch")))
    found = [read_delivery(one.line) for one in deliveries(store, Filter(ALL_TIME))]
    expected = {(row["id"], n + 1, f"{n // 30}.{kind}", n % 30 + 1) for n, row in enumerate(rows)}
    if kind == "csv":  # the last row of each file is a reject
        expected = {one for one in expected if one[3] != 30}
        rejects = [(one.seq, one.file, one.record) for one in list_rejects(store, done.batch)]
        assert rejects == [(30, "0.csv", 30), (60, "1.csv", 30), (90, "2.csv", 30)]
    assert {(one.entity_id, one.seq, one.file, one.file_record) for one in found} == expected
    assert done.batch.counts.read == 90
    if kind == "csv":
        (folder / "3.csv").write_text("id;at\na;1700000000\nb;1700000001\n")
        with pytest.raises(InputError, match=r"3\.csv is written otherwise than the first file of logs"):
            ingest(store, source_of(folder), reading=Reading(2000, mapping=mapping, times=Times("epoch")))


def test_what_cannot_be_one_batch_is_refused_before_anything_is_recorded(store: Store, folder: Path) -> None:
    (folder / "c.csv").write_text("id,at\n1,2\n2,3\n")
    with pytest.raises(InputError, match=r"c\.csv is csv, the first file of logs is jsonl") as error:
        ingest(store, source_of(folder), reading=READING)
    assert "--one-batch" in error.value.hint
    assert not list(store.index.batches())
    (folder / "c.csv").unlink()
    with pytest.raises(InputError, match=r"logs: record 3 is not an event: .* \(record 3 of a/1\.jsonl\)"):
        ingest(store, source_of(folder), reading=Reading(2000, stop=True))
    stream = stream_source("pipe", folder / "b.jsonl")
    with pytest.raises(UsageError, match="--one-batch: pipe can be read only once"):
        one_batch([stream], "pipe", "", pytest.fail)


def test_a_file_that_is_replaced_while_others_are_read_is_an_error(store: Store, folder: Path) -> None:
    source = source_of(folder)
    with source.open() as opened:
        layout = opened.recognize(READING.layout, mapped=False)
        opened.digest()
        (folder / "new").write_text(line(9) + "\n")
        (folder / "new").rename(folder / "d.jsonl")
        list(opened.blocks(layout, 2000))
        with pytest.raises(InputError, match=r"d\.jsonl changed while it was being read"):
            opened.expect_unchanged()
