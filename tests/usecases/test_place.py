"""The functions of a mapping that tell where a record stands: file(), line(), partition() and parent()."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pik.errors import Invalid, UsageError
from pik.inputs.archives import with_members
from pik.inputs.folders import SkippedFiles, folder_sources
from pik.inputs.mapping import RecordMapping
from pik.inputs.one_batch import one_batch
from pik.inputs.source import file_source
from pik.model.delivery import Filter, read_delivery
from pik.model.place import Place
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.reading import Reading
from pik.stores import open_store
from pik.usecases.ingest.batch_ingest import Outcome

from .test_dry_run import checked
from .test_ingest import crash_at, ingest

pytestmark = pytest.mark.usefixtures("blocks_of_a_few_lines")

MAPPING = {
    "source": "'s'",
    "event_type": "partition('kind')",
    "entity_id": "partition('dt')",
    "event_time": "at",
    "payload": "{n: n, line: line(), file: file()}",
    "idempotency_key": "join(':', [file(), to_string(line())])",
}
READING = Reading(2000, mapping=MAPPING)
LINES = ["", *(json.dumps({"n": n, "at": f"2026-01-{n % 3 + 1:02d}T00:00:00Z"}) for n in range(40)), "{", "", '{"n":1}']
FILES = ("kind=a%2Fb/1.jsonl", "kind=c/kind=d/1.jsonl", "kind=c/2.jsonl")
KINDS = ("a/b", "d", "c")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "dt=2026-01-31" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(LINES))
    return tmp_path / "dt=2026-01-31"


EXPECTED = {
    (kind, "2026-01-31", f"{name.rpartition('/')[2]}:{line}", json.loads(text)["n"])
    for name, kind in zip(FILES, KINDS, strict=True)
    for line, text in enumerate(LINES, 1)
    if "at" in text
}


def found(store: Store) -> set[tuple[Any, ...]]:
    events = [read_delivery(one.line) for one in deliveries(store, Filter(ALL_TIME))]
    keys = [(json.loads(bytes(event.payload)), event) for event in events]
    assert all(event.idempotency_key == f"{payload['file']}:{payload['line']}" for payload, event in keys)
    return {(event.event_type, event.entity_id, event.idempotency_key, payload["n"]) for payload, event in keys}


def test_every_file_of_a_folder_and_of_an_archive_tells_its_name_its_folders_and_its_lines(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in folder_sources(str(folder), SkippedFiles()):
        with crash_at(store, 9) as crashing:
            ingest(crashing, source, reading=READING)
        assert ingest(store, source, reading=READING).outcome == Outcome.RESUMED
    assert found(store) == EXPECTED
    archive = folder / "kind=x" / "all.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        for name in FILES:
            tar.add(folder / name, name)
    monkeypatch.chdir(archive.parent)  # whose folders are those of the file all the same
    for member in with_members([file_source("all.tar")], pytest.fail):
        assert ingest(store, member, reading=READING).outcome == Outcome.ALREADY
    renamed = (folder / FILES[0]).rename(folder / FILES[0].replace("1", "3"))
    assert ingest(store, file_source(str(renamed)), reading=READING).outcome == Outcome.NEW  # its keys are others
    moved = (folder / FILES[2]).rename(folder / "2.jsonl")
    with pytest.raises(UsageError, match=r"event_type=partition\('kind'\): no folder kind=… in the path of .*2.jsonl"):
        ingest(store, file_source(str(moved)), reading=READING)


def test_so_do_the_files_of_one_batch(store: Store, folder: Path, tmp_path: Path) -> None:
    sources = folder_sources(str(folder), SkippedFiles())
    with crash_at(store, 9) as crashing:
        ingest(crashing, one_batch(sources, "dt", f"{folder}/", pytest.fail), reading=READING)
    done = ingest(store, one_batch(sources, "dt", f"{folder}/", pytest.fail), reading=READING)
    assert done.outcome == Outcome.RESUMED
    assert found(store) == EXPECTED
    assert dict(done.batch.origin.options)["partition.dt"] == "2026-01-31"
    (tmp_path / "x").mkdir()
    for name, outcome in (("x/dt=2026-01-31", Outcome.ALREADY), ("dt=2026-02-01", Outcome.NEW)):
        folder = folder.rename(tmp_path / name)
        sources = folder_sources(str(folder), SkippedFiles())
        assert ingest(store, one_batch(sources, "dt", f"{folder}/", pytest.fail), reading=READING).outcome == outcome


def test_a_stream_has_lines_but_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = file_source("-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(LINES).encode())))
    with pytest.raises(UsageError, match="standard input has no file name"):
        checked(None, stream, reading=READING)
    constants = dict.fromkeys(("event_type", "entity_id"), "'x'")
    numbered = {**MAPPING, **constants, "payload": "{n: n}", "idempotency_key": "line()"}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(LINES).encode())))
    report = checked(None, stream, reading=Reading(2000, mapping=numbered))
    [keys] = [one for one in report.sample[0][1].fields if one.field == "idempotency_key"]
    assert (report.valid, keys.found, keys.value) == (40, b"2", b'"2"')


def test_what_a_place_does_not_have_rejects_a_record_or_is_null() -> None:
    mapping = RecordMapping(
        {**MAPPING, "event_type": "'t'", "entity_id": "parent('id') || partition('id')", "payload": "@"}
    )
    record = b'{"at":"2026-01-01T00:00:00Z"}'
    assert mapping.parents == {"id"}
    parents = ({"other": 1}, {"id": "inner"}, {"id": "outer"})
    assert mapping.read(record, Place("a", 1, parents))[0].entity_id == "inner"
    assert mapping.read(record, Place("id=1/a", 1))[0].entity_id == "1"
    for file, reason in {
        "a": "no folder id=… in the path of the file",
        "id=%ff/a": "the folder 'id=%ff' is not percent-encoded UTF-8",
        "id=__HIVE_DEFAULT_PARTITION__/a": "its expression finds nothing in this record",
        "": "no folder id=…",
    }.items():
        with pytest.raises(Invalid, match=f"^entity_id: {reason}"):
            mapping.read(record, Place(file, 1))
