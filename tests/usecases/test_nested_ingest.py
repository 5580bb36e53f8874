"""Records in documents are recorded with the fields around them, after any crash, alone and as one batch."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from pik.errors import InputError, UsageError
from pik.inputs import held_records
from pik.inputs.folders import SkippedFiles, folder_sources
from pik.inputs.one_batch import one_batch
from pik.inputs.source import file_source
from pik.model.batch import Batch, BatchState
from pik.model.delivery import Filter, read_delivery
from pik.model.layout import Layout, read_layout
from pik.model.times import Times
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.ingest import batch_ingest
from pik.usecases.ingest.batch_ingest import IngestOptions, Outcome
from pik.usecases.ingest.batch_ingest import ingest as ingest_source
from pik.usecases.inspect.batches import list_rejects

from .test_dry_run import checked
from .test_ingest import crash_at, ingest

pytestmark = pytest.mark.usefixtures("blocks_of_a_few_lines")

MAPPING = {
    "source": "parent('service')",
    "event_type": "'log'",
    "entity_id": "parent('scope').name",
    "event_time": "at",
    "payload": "{n: n, size: parent('size')}",
}
READING = Reading(2000, mapping=MAPPING, layout=read_layout({"records": "services[].scopes[].logs[]"}))


def service(name: str, first: int) -> dict[str, Any]:
    scopes = [
        {
            "logs": [{"at": f"2026-01-0{n % 3 + 1}T00:00:00Z", "n": n} for n in range(begin, begin + 7)],
            "scope": {"name": f"scope-{begin}"},
        }
        for begin in (first, first + 7)
    ]
    return {"size": 12.50, "scopes": scopes, "service": name}


def documents(name: str) -> list[str]:
    whole = [json.dumps({"services": [service(f"{name}-{n}", 20 * n) for n in (1, 2)], "other": [1]}, indent=1)]
    last = json.dumps({"services": [service(name, 60)]}).replace('"n": 61', '"n": tru')
    return [text.replace("12.5", "12.50") for text in (*whole, '{"other":1}', last)]


EXPECTED = [
    (service, f"scope-{first + n // 7 * 7}", first + n)
    for service, first in (("a-1", 20), ("a-2", 40), ("a", 60))
    for n in range(14)
    if first + n != 61
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(held_records, "HELD", 3000)
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    for name in "ab":
        (tmp_path / "logs" / f"{name}.json").write_text("\n".join(documents(name)))
    return tmp_path / "logs"


def found(store: Store) -> list[tuple[str, str, int]]:
    events = [read_delivery(one.line) for one in deliveries(store, Filter(ALL_TIME))]
    for event in events:
        assert bytes(event.original).replace(b" ", b"").startswith(b'{"at":"2026-01-0')
        assert json.loads(bytes(event.payload))["size"] == 12.5
        kept = json.loads(bytes(event.extra))["parents"]
        assert kept == {"scope": {"name": event.entity_id}, "service": event.source, "size": 12.5}
        assert b'"size":12.50' in bytes(event.extra).replace(b" ", b"")  # as it is written
    return [(event.source, event.entity_id, json.loads(bytes(event.payload))["n"]) for event in events]


def rejects(store: Store, batch: Batch) -> list[tuple[int, str, str]]:
    return [(one.seq, one.reason, one.file) for one in list_rejects(store, batch)]


REJECTS = [
    (29, "no list services in this document; it has: other (line 160)"),
    (31, "the record is not JSON: unexpected 'tru' (character 37) (line 161)"),
]


def test_a_file_is_recorded_after_any_crash(store: Store, folder: Path) -> None:
    source = file_source(str(folder / "a.json"))
    for step in (3, 5):
        with crash_at(store, step) as crashing:
            ingest(crashing, source, reading=READING)
    done = ingest(store, source, reading=READING)
    assert done.outcome == Outcome.RESUMED
    assert sorted(found(store)) == sorted(EXPECTED)
    assert dict(done.batch.origin.options)["records"] == "services[].scopes[].logs[]"
    assert [one[:2] for one in rejects(store, done.batch)] == REJECTS
    assert ingest(store, source, reading=READING).outcome == Outcome.ALREADY
    report = checked(None, source, reading=READING, sample=1)
    assert (report.valid, report.rejected) == (len(EXPECTED), 2)
    [(_, preview)] = report.sample
    assert {one.field: one.value for one in preview.fields}["source"] == b'"a-1"'


def test_so_are_the_files_of_one_batch(store: Store, folder: Path) -> None:
    both = one_batch(folder_sources(str(folder), SkippedFiles()), "logs", f"{folder}/", pytest.fail)
    with crash_at(store, 5) as crashing:
        ingest(crashing, both, reading=READING)
    done = ingest(store, both, reading=READING)
    assert done.outcome == Outcome.RESUMED
    named = [(source.replace("a", "b"), entity, n) for source, entity, n in EXPECTED]
    assert sorted(found(store)) == sorted(EXPECTED + named)
    assert [one[2] for one in rejects(store, done.batch)] == ["a.json"] * 2 + ["b.json"] * 2


def test_all_records_before_the_end_of_a_cut_document_are_recorded(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_ingest, "BLOCK", 100)  # so that the file is large enough for several workers
    text = json.dumps({"size": 12.5, "services": [service("a", 20)] * 9}).replace("12.5", "12.50")
    (folder / "cut.json").write_text(text[: text.rindex('"n": 33')])
    with pytest.raises(InputError, match="ends inside of the JSON document that begins on line 1"):
        ingest_source(store, file_source(str(folder / "cut.json")), IngestOptions(READING, workers=3), SILENT)
    [batch] = store.index.batches()
    assert (batch.state, batch.counts.read) == (BatchState.INTERRUPTED, 9 * 14 - 1)


def test_fields_around_records_need_a_path_to_records(folder: Path) -> None:
    for reading, message in (
        (Reading(2000, mapping=MAPPING, layout=Layout()), r"parent\(\) is for records that lie in others"),
        (Reading(2000, mapping={**MAPPING, "source": "parent(n)"}, layout=READING.layout), "is not a constant"),
    ):
        with pytest.raises(UsageError, match=message):
            checked(None, file_source(str(folder / "a.json")), reading=reading)


AT, SECONDS = "2026-03-02T10:15:00.123Z", 1772446500
ENVELOPES: dict[str, tuple[str, dict[str, Any], dict[str, str], str]] = {
    "CloudTrail": (
        "Records[]",
        {"Records": [{"eventTime": AT, "eventName": "PutObject", "eventID": "k1", "userIdentity": {"arn": "e1"}}]},
        {"entity_id": "userIdentity.arn", "event_time": "eventTime", "idempotency_key": "eventID"},
        "rfc3339",
    ),
    "S3": (
        "Records[]",
        {"Records": [{"eventTime": AT, "s3": {"object": {"key": "e1%2B%C3%A9", "sequencer": "k1"}}}]},
        {
            "entity_id": "replace(url_decode(s3.object.key), '+é', '')",
            "event_time": "eventTime",
            "idempotency_key": "s3.object.sequencer",
        },
        "rfc3339",
    ),
    "SNS in SQS": (
        "Records[]",
        {
            "Records": [
                {
                    "messageId": "k1",
                    "attributes": {"SentTimestamp": f"{SECONDS}123"},
                    "body": json.dumps({"Type": "Notification", "Message": json.dumps({"customer": "e1"})}),
                }
            ]
        },
        {
            "entity_id": "parse_json(parse_json(body).Message).customer",
            "event_time": "attributes.SentTimestamp",
            "idempotency_key": "messageId",
        },
        "epoch_ms",
    ),
    "Kinesis": (
        "Records[]",
        {
            "Records": [
                {
                    "eventID": "k1",
                    "kinesis": {
                        "data": b64encode(b'{"customer":"e1"}').decode(),
                        "approximateArrivalTimestamp": SECONDS + 0.123,
                    },
                }
            ]
        },
        {
            "entity_id": "parse_json(base64_decode(kinesis.data)).customer",
            "event_time": "kinesis.approximateArrivalTimestamp",
            "idempotency_key": "eventID",
        },
        "epoch",
    ),
    "CloudWatch Logs": (
        "logEvents[]",
        {"logGroup": "e1", "logEvents": [{"id": "k1", "timestamp": SECONDS * 1000 + 123, "message": "m"}]},
        {"entity_id": "parent('logGroup')", "event_time": "timestamp", "idempotency_key": "id"},
        "epoch_ms",
    ),
    "OTLP": (
        "resourceLogs[].scopeLogs[].logRecords[]",
        {
            "resourceLogs": [
                {
                    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "e1"}}]},
                    "scopeLogs": [{"logRecords": [{"timeUnixNano": f"{SECONDS}123000000", "spanId": "k1"}]}],
                }
            ]
        },
        {
            "entity_id": "parent('resource').attributes[?key=='service.name'].value.stringValue | [0]",
            "event_time": "timeUnixNano",
            "idempotency_key": "spanId",
        },
        "epoch_ns",
    ),
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_the_usual_envelopes_are_read(tmp_path: Path, name: str) -> None:
    path, document, mapping, time_format = ENVELOPES[name]
    constants = {"source": "'s'", "event_type": "'t'", "payload": "@"}
    reading = Reading(
        2000, mapping=constants | mapping, times=Times(time_format), layout=read_layout({"records": path})
    )
    with gzip.open(tmp_path / "envelope.json.gz", "wt") as file:
        file.write(f"{json.dumps(document)}\n" * 2)
    report = checked(None, file_source(str(tmp_path / "envelope.json.gz")), reading=reading, sample=2)
    assert (report.valid, report.rejected) == (2, 0)
    for _, preview in report.sample:
        found = {one.field: json.loads(one.value) for one in preview.fields}
        assert (found["entity_id"], found["idempotency_key"]) == ("e1", "k1")
        assert found["event_time"] == "2026-03-02T10:15:00.123000000Z"
