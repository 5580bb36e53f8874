"""Bulk ingest of objects in S3 into a stack: as into a directory, from files."""

from __future__ import annotations

import gzip
from pathlib import Path
from uuid import uuid4

import pytest

from pik.inputs import blocks, splits
from pik.inputs.paths import sources_of
from pik.model.batch import BatchState
from pik.runtime import SILENT
from pik.stores import open_foreign, open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.ingest import bulk_plan
from pik.usecases.ingest.batch_ingest import IngestReport, Outcome
from pik.usecases.ingest.bulk import ingest_in_bulk
from pik.usecases.ingest.many_inputs import ingest_all
from tests.contracts.conftest import aws_store
from tests.support.aws.emulator import REGION
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.fleet import ShuffledFleet
from tests.support.snapshot import assert_sound, snapshot
from tests.usecases.test_bulk import OPTIONS, event


def test_objects_become_what_files_become(aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the driver dies in between; the parts are read from S3, and written to it, by the fleet."""
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    monkeypatch.setattr(blocks, "BLOCK", 200)
    monkeypatch.setattr(splits, "HEAD", 100)
    monkeypatch.setattr(bulk_plan, "PART_IN_STACK", 900)
    lines = [event(number % 9, number % 2 + 1, f"k{number % 4}" if number % 2 else None) for number in range(16)]
    content = b"\n".join([*lines, b"{", b""])
    contents = {"a.jsonl": content, "b.jsonl.gz": gzip.compress(content + lines[0]), "c.jsonl": lines[3] + b"\n"}
    bucket, s3 = f"archive-{uuid4().hex[:12]}", aws.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    (tmp_path / "files").mkdir()
    for name, data in contents.items():
        s3.put_object(Bucket=bucket, Key=f"x/{name}", Body=data)
        (tmp_path / "files" / name).write_bytes(data)
    plain = open_store(str(tmp_path / "plain"), create=True)
    list(ingest_all(plain, sources_of([str(tmp_path / "files")], lambda: None, print), OPTIONS, SILENT))  # type: ignore[arg-type,return-value]

    store = aws_store(aws)

    def in_bulk(here: object = store) -> list[IngestReport]:
        sources = sources_of([f"s3://{bucket}/x/*"], lambda: open_foreign(store.url), print)
        return list(ingest_in_bulk(here, ShuffledFleet(here), sources, OPTIONS, SILENT, _stop, print))  # type: ignore[arg-type]

    with pytest.raises(Crash):
        in_bulk(wrapped(store, FailAt(6), "batches"))
    done = in_bulk()
    assert {one.batch.state for one in done} == {BatchState.COMPLETE}
    assert {one.outcome for one in in_bulk()} == {Outcome.ALREADY}
    assert snapshot(store) == snapshot(plain)
    assert_sound(store)


def _stop(_name: str, error: Exception) -> None:
    raise error
