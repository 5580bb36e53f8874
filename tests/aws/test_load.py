"""Promises 1 and 4 under load: many producers, killed functions, calls that fail, messages delivered again."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.load import run
from pik.model.batch import Verdict
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.care.verify import verify
from tests.support.aws.emulator import make_stack, publish
from tests.support.stores import PlainEngine


@pytest.mark.parametrize(
    ("producers", "seconds", "events", "instances"),
    [(4, 3, 200, 2), pytest.param(100, 180, 20_000, 6, marks=pytest.mark.slow)],
)
def test_promises_1_and_4_what_is_acknowledged_under_load(
    aws: Clients, producers: int, seconds: float, events: int, instances: int
) -> None:
    """Each acknowledged event counts once, and each delivery of an acknowledged request is recorded."""
    stack = make_stack(aws)
    store = open_store(publish(aws, stack))
    load = run(aws, stack, producers=producers, seconds=seconds, events=events, instances=instances)
    assert load.lost == 0
    assert load.acknowledged
    assert load.buffered
    counts = {batch.batch_id: batch.counts for batch in store.index.batches()}
    assert {batch_id: counts[batch_id].read for batch_id in load.acknowledged} == load.acknowledged
    found = list(deliveries(store, Filter(ALL_TIME)))
    recorded = Counter(one.delivery.file for one in found)
    assert len({(one.delivery.batch_id, one.delivery.seq) for one in found}) == len(found)
    accepted = [one for one in found if one.kind == Verdict.ACCEPTED]
    assert {one.delivery.event_id for one in accepted} == {one.delivery.event_id for one in found}
    assert len(accepted) == len(load.events)
    assert {one: recorded[one] for one in load.buffered} == load.buffered
    totals = store.index.totals()
    assert totals.events == len(load.events)
    assert totals.deliveries == sum(one.read for one in counts.values()) == recorded.total()
    problems = verify(store, PlainEngine(), ALL_TIME, SILENT)
    assert list(problems) == []
