"""Corrections on a stack: recorded and revoked there, honoured by the processor, at a cost that does not grow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from pik import lambdas
from pik.engine import DuckEngine
from pik.errors import UsageError
from pik.lambdas import processor
from pik.model.assumption_text import read_scenario
from pik.model.correction import Correction
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Selection
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.correct.plan import plan_correction, record_correction, refuse_repeated
from pik.usecases.correct.revoke import plan_revocation, record_revocation
from pik.usecases.correct.standing import show_correction
from pik.usecases.replay.execute import enqueue_tasks
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from tests.aws.test_crash import dying
from tests.support.aws.calls import counting_reads
from tests.support.aws.clock import later
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.processor import CONTEXT
from tests.support.aws.unreliable import forgetful
from tests.support.stores import event, ingest, request, window

ENGINE = DuckEngine(threads=1)
ARN = "arn:aws:sts::123456789012:assumed-role/correcting/ana"


@pytest.fixture
def store(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    monkeypatch.setattr(lambdas, "engine", lambda: ENGINE)
    made = open_store(publish(aws, make_stack(aws)))
    monkeypatch.setattr(lambdas, "store", lambda: made)
    return made


Record = Callable[[], Any]


def correcting(store: Store, text: str, reason: str) -> Record:
    """As the command does: plan it, and return what records it."""
    assumptions = read_scenario(None, [text], lambda path: ()).assumptions
    refuse_repeated(store, assumptions, reason)
    plan = plan_correction(store, ENGINE, assumptions)
    return lambda: record_correction(plan, [text], reason, ARN)


def revoking(store: Store, correction_id: str, reason: str) -> Record:
    """Likewise."""
    plan = plan_revocation(store, ENGINE, correction_id)
    return lambda: record_revocation(plan, reason, ARN)


def correct(store: Store, text: str) -> Correction:
    [made] = correcting(store, text, "INC-1")()
    return cast(Correction, made)


def revoke(store: Store, correction: Correction) -> Correction:
    return cast(Correction, revoking(store, correction.correction_id, "it was right")())


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
    revocation = revoke(store, moved)
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
        with counting_reads(reader) as calls, gather(Selection(reader, window("01", "02"), ["e3"])) as raw:
            [lists] = raw.inputs.corrections
        costs.append((calls.made, len(calls.keys), lists.lines))
        revoke(store, made)
    assert costs[0] == costs[1]
    assert sum(costs[0][0].values()) > 0
    assert lists.lines < 10


CORRECTIONS = ["shift=1d,entity=a", "without=selected,to=2026-01-02T00:00:00Z", "conflicts=last", "without-batch=BATCH"]
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("kinds", "step"), [(CORRECTIONS, 12), *(pytest.param([one], 1, marks=SLOW) for one in CORRECTIONS)]
)
def test_promise_1_recording_and_revoking_a_correction_die_after_every_call(
    store: Store, tmp_path: Path, kinds: list[str], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the command is given again, all of it holds, or nothing; then the store is as one where nothing died."""
    monkeypatch.setattr("pik.usecases.care.verify_corrections.RECENT", 0)
    home = open_store(str(tmp_path / "home"), create=True)
    for one in (home, store):
        for value in (1, 2):
            keyed = event(value, "b", "03T10:00") | {"idempotency_key": "k"}
            ingest(one, tmp_path, [event(1, "a", "01T10:00"), event(2, "a", "02T10:00"), keyed], again=True)
    ends = {}
    for kind in kinds:
        came = counted(home)
        made = correct(home, of_first_batch(home, kind))
        ends[kind] = counted(home), made.deliveries, made.events
        revoke(home, made)
        assert counted(home) == came != ends[kind][0]
    log: list[tuple[str, str]] = []
    mortal = open_store(store.url)

    def again(record: Callable[[Store], Record], number: int, before: Any, after: Any) -> bool:
        """Give a command that dies, and again; return whether it died."""
        begun = record(mortal)
        with dying(mortal, number) as die:
            begun()
        later(monkeypatch, 2 * number + (before is not came))
        assert counted(store) in (before, after), f"call {number}"
        with suppress(UsageError):  # it is recorded, or revoked, already
            record(store)()
        assert counted(store) == after, f"call {number}"
        return die.calls >= number

    for number, kind in zip(count(2, step), cycle(kinds), strict=False):
        text, reason = of_first_batch(store, kind), f"call {number}"
        there, *listed = ends[kind]
        died = again(partial(correcting, text=text, reason=reason), number, came, there)
        made = store.corrections.recorded()[-1]
        assert [made.deliveries, made.events] == listed
        died |= again(partial(revoking, correction_id=made.correction_id, reason=reason), number, there, came)
        log += [(text, reason), (f"revoke {made.correction_id}", reason)]
        assert [(one.statement, one.reason) for one in store.corrections.recorded()] == log
        if not died:
            break
    assert number > 15
    assert list(verify(store, ENGINE, ALL_TIME, SILENT)) == []
    recorded = list(store.corrections.recorded())
    rebuild_index(store, SILENT)
    assert list(store.corrections.recorded())[: len(recorded)] == recorded
    assert counted(store) == came


@pytest.mark.usefixtures("no_delays")
def test_promise_1_a_correction_and_a_revocation_are_recorded_though_every_answer_is_lost(
    store: Store, tmp_path: Path
) -> None:
    """And neither takes what it recorded itself for another's."""
    ingest(store, tmp_path, [event(1, "a", "01T10:00")])
    came = counted(store)
    with forgetful(store):
        made = correct(store, "shift=1d,entity=a")
        assert counted(store) != came
        revocation = revoke(store, made)
    assert counted(store) == came
    assert [one.correction_id for one in store.corrections.recorded()] == [
        made.correction_id,
        revocation.correction_id,
    ]


def of_first_batch(store: Store, text: str) -> str:
    return text.replace("BATCH", min(one.batch_id for one in store.index.batches()))


def counted(store: Store) -> list[tuple[str, str, bytes]]:
    """The events that count, with their times and payloads."""
    found = (one.delivery for one in deliveries(store, Filter(ALL_TIME), only="accepted"))
    return sorted((one.event_id, one.event_time, bytes(one.payload)) for one in found)
