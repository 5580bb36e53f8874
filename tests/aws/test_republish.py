"""A republish from a stack into a queue dies behind any call of AWS, and is resumed: nothing is missing."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.model.republish import RepublishRequest, RepublishState
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.targets import target_of
from pik.usecases.republish.send import Pace, begin, plan_republish, resume, unfinished
from tests.aws.test_crash import dying
from tests.support.aws.clock import later
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.receivers import QueueReceiver
from tests.support.aws.unreliable import forgetful
from tests.support.stores import EVENTS, ingest


def send(store: Store, url: str, reason: str) -> None:
    """As the command does: go on, or begin."""
    target = target_of(url)
    request = RepublishRequest(start=ALL_TIME.start, end=ALL_TIME.end, target=target.shown, reason=reason)
    earlier = unfinished(store, request)
    if earlier is not None:
        resume(store, DuckEngine(), earlier.republish_id, target, Pace(), SILENT)
        return
    with plan_republish(store, DuckEngine(), request, SILENT, now=1, actor="ana") as plan:
        begin(store, plan, target, Pace(), SILENT)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 17])
def test_promise_1_a_republish_that_dies_after_every_call(
    aws: Clients, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    url = publish(aws, make_stack(aws))
    ingest(open_store(url), tmp_path)
    receiver = QueueReceiver(aws)
    for number in count(2, step):
        reason = f"call {number}"
        with dying(store := open_store(url), number) as die:
            send(store, receiver.url, reason)
        later(monkeypatch, number)
        store = open_store(url)
        if all(one.request.reason != reason or one.is_active for one in store.republishes.newest_first()):
            send(store, receiver.url, reason)
        republish = next(iter(store.republishes.newest_first()))
        assert (republish.request.reason, republish.state) == (reason, RepublishState.COMPLETED)
        assert (republish.taken, republish.refused) == (len(EVENTS), 0)
        receiver.messages.clear()
        sent = [json.loads(body) for body, _ in receiver.received()]
        of_it = [one for one in sent if one["pikrepublishid"] == republish.republish_id]
        assert {one["data"]["v"] for one in of_it} == {one["payload"]["v"] for one in EVENTS}, reason
        assert list(store.state_audit.problems()) == [], reason
        if die.calls < number:
            return


@pytest.mark.usefixtures("no_delays")
def test_promise_1_a_republish_is_recorded_though_every_answer_is_lost(aws: Clients, tmp_path: Path) -> None:
    store = open_store(publish(aws, make_stack(aws)))
    ingest(store, tmp_path)
    with forgetful(store):
        send(store, str(tmp_path / "sent.ndjson"), "INC-1")
    [republish] = store.republishes.newest_first()
    assert (republish.state, republish.taken, republish.attempts) == (RepublishState.COMPLETED, len(EVENTS), 1)
    assert len((tmp_path / "sent.ndjson").read_text().splitlines()) == len(EVENTS)
    assert list(store.state_audit.problems()) == []
