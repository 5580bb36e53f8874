"""No partition key of the state takes more writes than DynamoDB can, whichever way a replay is cut into tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import product
from typing import Any

import pytest

from pik.model.aggregate import Computed
from pik.model.ids import new_id
from pik.model.instant import DAY, HOUR, MINUTE
from pik.model.run import Task
from pik.model.window import ALL_TIME, Window
from pik.ports.backup import VersionRow
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.stores.aws.state import layout
from pik.stores.aws.table import Key, key_of
from pik.stores.state_rows import AggregatePlace
from tests.support.aws.calls import Write, counting
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.heat import PARTITION, Heat, collections

A_SECOND = 2000
"""Versions that a busy replay writes, and pointers that a promotion moves."""

FASTEST = 6500
"""Versions a second that the partitions of a run take together, as docs/scale.md has it."""


@pytest.fixture
def store(aws: Clients) -> Store:
    return open_store(publish(aws, make_stack(aws)))


def hot(writes: list[Write], versions: int) -> dict[str, Heat]:
    """The keys that take more than they may."""
    return {
        pk: heat
        for pk, heat in collections(writes, versions).items()
        if A_SECOND * heat.writes > 500 or A_SECOND * heat.units > PARTITION
    }


@pytest.mark.parametrize(("tasks", "buckets", "entities"), [(1, 240, 1), (3, 4, 20)])
def test_two_thousand_versions_a_second(store: Store, tasks: int, buckets: int, entities: int) -> None:
    """Over all entities, and of ranges of them: written, promoted, written again, promoted, and all taken back."""
    first, second = new_id(), new_id()
    versions = tasks * buckets * entities

    def write(run_id: str) -> None:
        for number in range(tasks):
            task = Task(run_id=run_id, number=number, metrics=("m@1",), start=0, end=buckets * DAY)
            names = [f"customer-{number}-{entity:05}" if tasks > 1 else "" for entity in range(entities)]
            rows = [
                Computed("m", bucket * DAY, name, Decimal(7), 7, "0" * 32, "1" * 32)
                for bucket, name in product(range(buckets), names)
            ]
            store.aggregates.write(task, rows, versions={"m": 1}, known_until=5, reason="a reason of some length")

    for step in (
        lambda: write(first),
        lambda: store.promotions.promote(first, 1, ""),
        lambda: write(second),
        lambda: store.promotions.promote(second, 2, ""),
        lambda: store.promotions.rollback(second, 3, ""),
    ):
        with counting(store) as calls:
            step()
        assert len(calls.writes) >= versions
        assert hot(calls.writes, versions) == {}
    found = [(one.computed.bucket, one.computed.entity_id) for one in store.aggregates.current("m", ALL_TIME)]
    assert len(found) == versions
    assert found == sorted(found)
    bucket, entity = found[-1]
    for read, most in ((store.aggregates.current, 2), (store.aggregates.versions, 3)):
        with counting(store) as calls:  # a question about one value asks no shard but its own
            assert list(read("m", Window(bucket, bucket + DAY), [entity]))
        assert calls.total == most, calls.made
    with counting(store) as calls:
        store.promotions.rollback(first, 4, "")
    assert hot(calls.writes, versions) == {}


def aggregates(entities: int, buckets: int, size: int, start: int, count: int) -> Iterator[AggregatePlace]:
    """Some of all of these, from the one with this number on, in the order in which tasks of a thousand entities write
    them."""
    width = min(entities, 1000)
    for number in range(start, start + count):
        task, rest = divmod(number, width * buckets)
        bucket, entity = divmod(rest, width)
        yield AggregatePlace("m", bucket * size, f"customer-{task * width + entity:09}")


@pytest.mark.parametrize(
    ("entities", "buckets", "size", "at_once"),
    [
        (1_000_000, 10, DAY, 1),
        (1_000_000, 10, DAY, 10),
        (1_000_000, 10, DAY, 64),
        (1_000_000, 10, DAY, 256),
        (1000, 10_000, HOUR, 10),
        (100, 100_000, 5 * MINUTE, 10),
        (1, 10_000_000, 5 * MINUTE, 1),
        (1, 10_000_000, 5 * MINUTE, 64),
    ],
)
def test_ten_million_aggregates(entities: int, buckets: int, size: int, at_once: int) -> None:
    """Computed, not written: single seconds of a replay that takes 5,000, some tasks at once: those of a stack's
    processors, or of a cluster's cores."""
    total = entities * buckets
    for start in range(0, total, total // 8):
        listed: set[tuple[int, Key[Any]]] = set()
        taken: Counter[str] = Counter()
        for task in range(at_once):
            first = (start + task * total // at_once) % total
            for place in aggregates(entities, buckets, size, first, A_SECOND // at_once):
                row = VersionRow(*place, "RUN", "7", 7, "0" * 32, "1" * 32, None, 1, 5, "why", "actor", "new", "")
                version = layout.version_item(row)
                taken.update((version["pk"], f"by_bucket {version['bucket_key']}", layout.current_key(place)[0]))
                listed.add((task, key_of(layout.bucket_item(place))))
        taken.update(pk for _, (pk, _) in listed)
        written = at_once * (A_SECOND // at_once)
        assert max(taken.values()) * FASTEST <= PARTITION * written, taken.most_common(1)
