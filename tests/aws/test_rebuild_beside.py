"""A rebuild beside traffic: no request is refused, and none that was acknowledged is missing at any time."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pik.errors import StoreError
from pik.model.batch import Verdict
from pik.ports.remote import RecordStatus
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.clients import Clients
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request
from tests.aws.test_requests import told
from tests.support.aws.clock import later
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.traffic import Request, Traffic, event
from tests.support.snapshot import assert_sound
from tests.support.stores import ingest


class Pinned(Generation):
    """Readers that do not look at the pointer."""

    def current(self) -> int:
        return self._current


def expect_counted(store: Store, requests: list[Request]) -> None:
    """Each event that was acknowledged has one delivery that counts, and each delivery is there."""
    wanted: dict[str, set[tuple[str, int]]] = {}
    for one in requests:
        for result in one.results:
            wanted.setdefault(result.event_id, set()).add((one.batch_id, result.seq))
    for event_id, places in wanted.items():
        found = store.index.deliveries(event_id)
        assert Counter(each.kind for each in found)[Verdict.ACCEPTED] == 1, (event_id, found)
        assert places <= {(each.batch_id, each.seq) for each in found}, (event_id, found, places)


def expect_as_answered(store: Store, requests: list[Request]) -> None:
    """Each delivery is what its sender was told."""
    for one in requests:
        for result in one.results:
            found = store.index.deliveries(result.event_id)
            (kind,) = (each.kind for each in found if (each.batch_id, each.seq) == (one.batch_id, result.seq))
            conflict = Verdict.CONFLICT if result.conflict else Verdict.EXACT
            assert kind == (Verdict.ACCEPTED if result.status == RecordStatus.ACCEPTED else conflict), (one, result)


SEEDS = [(1, 0, 5), *(pytest.param(seed, 0, 12, marks=pytest.mark.slow) for seed in range(1, 20))]
KILLED = [pytest.param(seed, 40 * (seed - 19), 12, marks=pytest.mark.slow) for seed in range(20, 30)]


@pytest.mark.parametrize(("seed", "calls", "requests"), [*SEEDS, *KILLED])
def test_requests_go_on_beside_a_rebuild_and_are_in_both_indexes(
    aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, calls: int, requests: int
) -> None:
    """Requests stop, die (with odd seeds) and go on before any call; those end that a rebuild waits for, and no
    others. The rebuild is killed after so many calls, unless these are 0, and begun again."""
    random = Random(seed)
    monkeypatch.setattr(generation, "NOTICED", 0.001)
    monkeypatch.setattr(generation, "_REQUEST", 10**6)
    store = open_store(publish(aws, make_stack(aws)))
    ingest(store, tmp_path, [event(random) for _ in range(8)])
    for _ in range(requests):
        record_request(store, json.dumps([event(random) for _ in range(random.randrange(1, 4))]).encode())
    reader = open_store(store.url)
    made = Generation(reader.batches.table)  # type: ignore[attr-defined]

    def look() -> None:
        acknowledged = traffic.acknowledged
        expect_counted(reader, acknowledged)
        if (rebuild := made._read()).replaced:
            before = Pinned(made.table)
            before._current = rebuild.replaced
            index: Any = reader.index
            expect_counted(replace(reader, index=replace(index, generation=before)), acknowledged)

    traffic = Traffic(store.url, random, look, dying=0.3 * (seed % 2))
    monkeypatch.setattr(Generation, "await_requests", lambda _: traffic.finish())
    for _ in range(10):
        traffic.happen()
    if calls:
        killed = open_store(store.url)
        with traffic.beside(killed, calls), suppress(StoreError):
            rebuild_index(killed, SILENT)
        for _ in range(10):
            traffic.happen()
        later(monkeypatch)
    with traffic.beside(store):
        done = rebuild_index(store, SILENT)
    for _ in range(2 * requests):  # those that know the rebuild, and those that do not any more
        traffic.happen()
    traffic.finish()
    errors = [one.error for one in traffic.ended if one.error is not None and not one.is_killed]
    assert errors == []
    assert len(traffic.acknowledged) > requests
    fresh = open_store(store.url)
    expect_counted(fresh, traffic.acknowledged)
    expect_as_answered(fresh, traffic.acknowledged)
    assert (done.lost, done.revised, done.damaged) == (0, 0, ())
    assert (done.superseded, done.unfinished) == (0, 0)  # no recording of a file died, and each segment is in the index
    before = told(fresh)
    again = rebuild_index(fresh, SILENT)
    assert (again.lost, again.revised, again.damaged) == (0, 0, ())
    assert (again.superseded, again.unfinished) == (0, 0)
    expect_as_answered(fresh, traffic.acknowledged)
    if not traffic.dying:  # what did, and had claimed something, is completed
        assert told(fresh) == before
    assert_sound(fresh)
