"""Who did it: recorded with everything that changes numbers or could, and kept by rebuild, backup and pull."""

from __future__ import annotations

import json
from pathlib import Path

from pik.inputs import blocks as blocks_module
from pik.inputs.source import file_source
from pik.model.metric import Definition
from pik.ports.raw import RawKind
from pik.rawlog.corrections import correction_keys, read_correction
from pik.rawlog.reading import Reading
from pik.rawlog.sealed_records import read_opening
from pik.runtime import SILENT
from pik.usecases.care.backup import backup, restore
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest
from pik.usecases.metrics.definitions import add_version
from pik.usecases.replay.execute import process_message
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote, rollback
from tests.support.stores import PlainEngine, event, request

ARN = 'arn:aws:sts::123456789012:assumed-role/producer/"ana"'


def body(*numbers: float) -> bytes:
    return json.dumps([event(number, "a", "01T00:00") for number in numbers]).encode()


def ingested(store, directory: Path, numbers, actor: str):
    path = directory / "events.jsonl"
    path.write_bytes(b"".join(json.dumps(event(n, "a", "01T00:00")).encode() + b"\n" for n in numbers))
    options = IngestOptions(Reading(1 << 20), workers=0, actor=actor)
    return ingest(store, file_source(str(path)), options, SILENT).batch.batch_id


def actors(store) -> dict[str, str]:
    return {batch.batch_id: batch.actor for batch in store.index.batches()}


def computed(store, actor: str) -> str:
    """A run that has ended, by this actor."""
    run = start(store, plan_replay(store, PlainEngine(), request(reason="why"), 1, actor=actor))
    store.queue.send(store.runs.open_tasks(run.run_id))
    while message := store.queue.receive(run.run_id, 30):
        outcome = process_message(store, PlainEngine(), message)
        assert outcome.failure is None
        store.runs.mark(message.task, "DONE")
        store.queue.acknowledge(message.receipt)
    store.runs.set_state(run.run_id, "COMPLETED", 2)
    return run.run_id


def test_a_rebuilt_index_answers_with_the_actor_of_each_batch(store, tmp_path, monkeypatch) -> None:
    file = ingested(store, tmp_path, [1, 2], "ana")
    monkeypatch.setattr(blocks_module, "BLOCK", 400)
    monkeypatch.setattr(blocks_module, "FIRST_READ", 100)
    large = ingested(store, tmp_path, range(10, 20), "bob")
    single = record_request(store, body(30), actor=ARN).batch_id
    several = record_request(store, body(40, 41), actor=ARN).batch_id
    rejected = record_request(store, b'{"nothing": 1}', actor=ARN).batch_id
    unknown = record_request(store, body(50)).batch_id
    before = actors(store)
    assert before == {file: "ana", large: "bob", single: ARN, several: ARN, rejected: ARN, unknown: ""}
    assert read_opening(store.raw, RawKind.OPENING.key(large)).actor == "bob"
    rebuild_index(store, SILENT, "eve")
    assert actors(store) == before


def test_each_rebuild_leaves_a_note_of_who_did_it(store) -> None:
    record_request(store, body(1))
    for actor in ("ana", "bob"):
        rebuild_index(store, SILENT, actor)
    notes = [json.loads(line) for key in correction_keys(store.raw) for line in lines(store, key)]
    assert [(note["actor"], note["kind"], note["events"]) for note in notes] == [
        ("ana", "verdict", 0),
        ("bob", "verdict", 0),
    ]
    assert list(store.corrections.recorded()) == [read_correction(store.raw, key) for key in correction_keys(store.raw)]


def lines(store, key: str) -> list[bytes]:
    from pik.rawlog.objects import record_lines

    return list(record_lines(store.raw, key, bytes))  # type: ignore[type-var]


def test_metrics_runs_versions_and_promotions_record_actor_and_reason_through_a_backup(
    store, new_store, tmp_path
) -> None:
    record_request(store, body(1, 2))
    add_version(store.metrics, Definition(name="total", value="sum(v)"), 1, actor="ana", reason="INC-1")
    run_id = computed(store, "bob")
    promote(store, run_id, 3, "good", "cid")
    rollback(store, run_id, 4, "bad", "dan")
    promote(store, run_id, 5, "good after all", "eve")

    def recorded(one):
        [total] = one.metrics.versions("total")
        window = request().window
        [value] = list(one.aggregates.current("total", window, ["a"]))
        [version] = list(one.aggregates.versions("total", window, ["a"]))
        moves = [(move.kind, move.reason, move.actor) for move in one.promotions.newest_first()]
        return (total.actor, total.reason), one.runs.get(run_id).actor, (value.actor, version.actor), moves

    expected = (
        ("ana", "INC-1"),
        "bob",
        ("bob", "bob"),
        [("promote", "good after all", "eve"), ("rollback", "bad", "dan"), ("promote", "good", "cid")],
    )
    assert recorded(store) == expected
    assert list(store.state_audit.problems()) == []
    backup(store, tmp_path / "state.backup", SILENT)
    other = new_store()
    restore(other, tmp_path / "state.backup", SILENT)
    assert recorded(other) == expected


def test_a_batch_keeps_the_actor_who_began_it(store) -> None:
    from tests.support.contracts.chunks import BATCH, origin

    assert store.batches.open(origin(), BATCH, 1, "ana").actor == "ana"
    assert store.batches.open(origin(), BATCH, 2, "bob").actor == "ana"
    assert actors(store) == {BATCH: "ana"}
