"""Corrections on a stack: recorded and revoked there, honoured by the processor, at a cost that does not grow."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from pik import lambdas
from pik.engine import DuckEngine
from pik.errors import UsageError
from pik.lambdas import processor
from pik.model.correction import Correction
from pik.model.scenario import read_scenario
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Selection
from pik.stores import open_store
from pik.stores.aws import lease
from pik.stores.aws.clients import Clients
from pik.usecases.correct.plan import plan_correction, record_correction
from pik.usecases.correct.revoke import plan_revocation, record_revocation
from pik.usecases.correct.standing import show_correction
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.runs import enqueue_tasks, promote
from tests.support.aws.calls import counting
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.processor import CONTEXT
from tests.support.stores import event, ingest, request, window

ENGINE = DuckEngine(threads=1)
ARN = "arn:aws:sts::123456789012:assumed-role/correcting/ana"


@pytest.fixture
def store(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(lease, "NOTICED", 0.01)
    monkeypatch.setattr(lambdas, "engine", lambda: ENGINE)
    made = open_store(publish(aws, make_stack(aws)))
    monkeypatch.setattr(lambdas, "store", lambda: made)
    return made


def correct(store: Store, text: str) -> Correction:
    plan = plan_correction(store, ENGINE, read_scenario(None, [text], lambda path: ()).assumptions)
    [made] = record_correction(plan, [text], "INC-1", ARN)
    return made


def processed(store: Store, correction: str | None = None) -> dict[tuple[str, str], Decimal | None]:
    """Let the processor compute a run; what is current once it is promoted: by entity and day."""
    run_id = start(store, plan_replay(store, ENGINE, request(correction=correction), 1)).run_id
    enqueue_tasks(store, run_id)
    while message := store.queue.receive(run_id, 300):
        record = {
            "messageId": "m",
            "receiptHandle": message.receipt,
            "body": msgspec.json.encode(message.task).decode(),
            "attributes": {"ApproximateReceiveCount": str(message.receives)},
        }
        assert processor.handler({"Records": [record]}, CONTEXT)["batchItemFailures"] == []
    promote(store, run_id, 2, "")
    return {
        (one.computed.entity_id, str(one.computed.bucket // 86_400_000_000_000 - 20_454)): one.computed.value
        for one in store.aggregates.current("event_count", window())
    }


def test_the_processor_computes_with_what_is_corrected_and_revoked(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(1, "a", "01T10:00"), event(2, "a", "02T10:00"), event(3, "b", "01T10:00")])
    before = {("a", "0"): 1, ("a", "1"): 1, ("b", "0"): 1}
    assert processed(store) == before
    moved = correct(store, "shift=1d,entity=a,to=2026-01-02")
    assert (moved.actor, moved.deliveries) == (ARN, 1)
    _, [standing] = show_correction(open_store(store.url), ENGINE, moved.correction_id)
    assert (standing.computed, standing.outdated) == (0, 2)
    corrected = {("a", "0"): None, ("a", "1"): 2, ("b", "0"): 1}
    assert processed(store, correction=moved.correction_id) == corrected
    _, [standing] = show_correction(open_store(store.url), ENGINE, moved.correction_id)
    assert (standing.computed, standing.outdated) == (2, 0)
    revocation = record_revocation(plan_revocation(store, ENGINE, moved.correction_id), "it was right", ARN)
    assert revocation.actor == ARN
    with pytest.raises(UsageError, match="revoked already"):
        plan_revocation(open_store(store.url), ENGINE, moved.correction_id)
    assert processed(store, correction=revocation.correction_id) == before


def test_an_entity_reads_as_much_of_corrections_however_many_days_they_are_about(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pik.rawlog.correction_lists.FRAME", 400)
    monkeypatch.setattr("pik.rawlog.segment_writer.FRAME", 400)
    numbers = range(10, 100)  # ten entities on each of nine days
    ingest(store, tmp_path, [event(number, f"e{number % 10}", f"{number // 10:02}T10:00") for number in numbers])
    costs = []
    for end in ("02", "10"):
        made = correct(store, f"shift=1s,from=2026-01-01,to=2026-01-{end}")
        reader = open_store(store.url)
        with counting(reader) as calls, gather(Selection(reader, window("01", "02"), ["e3"])) as raw:
            [lists] = raw.inputs.corrections
        costs.append((calls.made, len(calls.keys), lists.lines))
        record_revocation(plan_revocation(store, ENGINE, made.correction_id), "no", ARN)
    assert costs[0] == costs[1]
    assert sum(costs[0][0].values()) > 0
    assert lists.lines < 10
