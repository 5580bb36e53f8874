"""pik history on every store: the same entries in the same order, with the same figures."""

from __future__ import annotations

import json

from msgspec import structs

from pik.model.correction import Correction, CorrectionKind
from pik.model.instant import DAY
from pik.model.metric import Definition
from pik.model.window import ALL_TIME, Window
from pik.rawlog.corrections import record
from pik.runtime import SILENT
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.history import Scope, What, history, scope_of
from pik.usecases.replay.execute import process_message
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote, rollback
from tests.contracts.test_republishes import republish_of
from tests.support.stores import PlainEngine, event, request


def sent(store, number: int, entity: str, at: str, actor: str = "ana") -> str:
    return record_request(store, json.dumps(event(number, entity, at)).encode(), actor=actor).batch_id


def computed(store, created_at: int, actor: str, **fields) -> str:
    """A run that has ended, by this actor."""
    run = start(store, plan_replay(store, PlainEngine(), request(**fields), created_at, actor=actor))
    store.queue.send(store.runs.open_tasks(run.run_id))
    while message := store.queue.receive(run.run_id, 30):
        assert process_message(store, PlainEngine(), message).failure is None
        store.runs.mark(message.task, "DONE")
        store.queue.acknowledge(message.receipt)
    store.runs.set_state(run.run_id, "COMPLETED", created_at + 1)
    return run.run_id


def test_the_timeline_of_a_store(store) -> None:
    requests = [sent(store, 1, "a", "01T01:00"), sent(store, 2, "b", "01T02:00"), sent(store, 3, "a", "02T01:00")]
    now = next(store.index.batches()).started_at
    add_version(store.metrics, Definition(name="total", value="sum(v)"), now + 1, actor="bob", reason="INC-1")
    run = computed(store, now + 2, "cid", entities=("a",), metrics=("total",), reason="again")
    promote(store, run, now + 3, "good", "dan")
    late = sent(store, 4, "a", "01T03:00", actor="eve")
    rollback(store, run, now + 4, "bad", "fay")
    rebuild_index(store, SILENT, "gus")
    again = republish_of(1, created_at=now + 6, actor="jim")
    store.republishes.create(again)

    entries = list(history(store, Scope()))
    rebuilt = next(entry for entry in entries if entry.what is What.REBUILD)
    assert rebuilt.actor == "gus"
    shown = [
        (
            one.what,
            one.actor,
            one.reason,
            one.requests,
            one.lacked,
            one.moved,
            one.standing,
            one.counts and one.counts.read,
        )
        for one in entries
        if one is not rebuilt
    ]
    order = {
        ("republish", "jim", "why", None, None, None, None, None),
        ("rollback", "fay", "bad", None, 1, 2, 2, None),
        ("promote", "dan", "good", None, 1, 2, 0, None),
        ("run", "cid", "again", None, 1, None, 0, None),
        ("metric", "bob", "INC-1", None, None, None, None, None),
        ("requests", "ana", "", 3, None, None, None, 3),
        ("requests", "eve", "", 1, None, None, None, 1),
    }
    assert set(shown) == order
    times = [one.at for one in entries]
    assert times == sorted(times, reverse=True)
    assert {one.id for one in entries if one.what is What.REQUESTS} == {requests[-1], late}
    draft = Correction(
        format=0,
        correction_id="",
        kind=CorrectionKind.WITHOUT,
        recorded_at=0,
        actor="hal",
        reason="INC-2",
        statement="without 3 events",
        events=3,
    )
    (corrected,) = record(store, [draft])
    revoke = {"kind": CorrectionKind.REVOCATION, "revokes": corrected.correction_id, "reason": "no", "actor": "ida"}
    record(store, [structs.replace(draft, **revoke)])
    newest = [(one.what, one.actor, one.reason) for one in history(store, Scope())][:3]
    assert [one.subject for one in entries if one.what is What.REPUBLISH] == [again]
    assert newest == [("revocation", "ida", "no"), ("correction", "hal", "INC-2"), ("rebuild", "gus", rebuilt.reason)]

    # Only what happened in a window, what concerns an entity, what concerns a metric.
    within = list(history(store, Scope(Window(now + 2, now + 4))))
    assert [one.what for one in within if one.what is not What.REQUESTS] == [What.PROMOTE, What.RUN]
    of_b = list(history(store, scope_of(store, ALL_TIME, entity="b")))
    assert {(one.what, one.deliveries) for one in of_b} == {
        *(("revocation", None), ("correction", None), ("rebuild", None), ("metric", None), ("requests", 1)),
        ("republish", None),
    }
    assert What.REPUBLISH not in {one.what for one in history(store, scope_of(store, ALL_TIME, entity="a"))}
    of_count = list(history(store, Scope(metric="event_count")))
    assert {one.what for one in of_count} == {"revocation", "correction", "rebuild", "requests"}
    assert list(history(store, Scope(Window(now - DAY, now - DAY + 1)))) == []

    # Checked: the promotion of a run that lacked a batch moved two values, of which one is right.
    promote(store, run, now + 5, "good after all", "dan")
    checked = {one.id: one.right for one in history(store, Scope(), PlainEngine()) if one.what is What.RUN}
    assert checked == {run: 1}
