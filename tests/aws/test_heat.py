"""No partition key of a stack takes more writes than DynamoDB can, however long the load lasts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

import pytest
from ulid import ULID

from pik.model.batch import Batch, BatchState, request_origin
from pik.model.ids import DIGITS
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from tests.support.aws.calls import Calls, Write, counting
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.heat import PARTITION, Heat, collections
from tests.support.contracts.chunks import Sent, chunk

REQUESTS = len(DIGITS)
"""Their ids, made one after the other, end in each digit once: so often that every shard gets its share."""

DAY = 20_000


@pytest.fixture
def store(aws: Clients) -> Store:
    made = open_store(publish(aws, make_stack(aws)))
    send(made, [Sent("the first one of a process and of a day", DAY)], 0, "0")
    send(made, [Sent("a", DAY), Sent("b", DAY)], 0, "0")
    return made


def send(store: Store, sent: Sequence[Sent], millisecond: int, digit: str) -> None:
    batch_id = f"{ULID.from_timestamp(1_790_000_000 + millisecond / 1000)}"[:-1] + digit
    batch = Batch(batch_id=batch_id, origin=request_origin(batch_id), state=BatchState.COMPLETE, started_at=1)
    store.requests.record_request(batch, chunk(sent, batch_id=batch_id, number=0), {})


def hottest(store: Store, requests: Iterable[Sequence[Sent]], start: int = 1) -> dict[str, Heat]:
    """What collections take for each request, those that take most of each kind."""
    calls = Calls()
    with counting(store, calls):
        for millisecond, digit, sent in zip(count(start), DIGITS, requests, strict=False):
            send(store, sent, millisecond, digit)
    found: dict[str, Heat] = {}
    for pk, heat in collections(calls.writes, REQUESTS).items():
        kind = pk.split("/")[1]
        found[kind] = max(heat, found.get(kind, heat), key=lambda one: one.units)
    return found


def events(several: int = 1, key: str | None = None) -> list[list[Sent]]:
    return [[Sent(f"{number}/{each}", DAY, key) for each in range(several)] for number in range(REQUESTS)]


def test_two_thousand_requests_a_second_with_one_event_each(store: Store) -> None:
    """New ones, the same again, and conflicts."""
    assert hottest(store, events())["batch"] == Heat(1 / 8, 2 / 8)
    for requests in (events(key="x"), events(key="x"), events(key="y")):
        for kind, heat in hottest(store, requests, 1000).items():
            assert 2000 * heat.writes <= 500, (kind, heat)
            assert 2000 * heat.units <= PARTITION, (kind, heat)


def test_two_thousand_requests_a_second_with_several_events_each(store: Store) -> None:
    for kind, heat in hottest(store, events(5)).items():
        assert 2000 * heat.writes <= 500, (kind, heat)
        assert 2000 * heat.units <= PARTITION, (kind, heat)


def test_the_model_tells_a_rising_key_from_a_spread_one_and_one_item_from_many() -> None:
    rising = [Write("rising", f"{number:03}", 1) for number in range(100)]
    spread = [Write("spread", f"{number * 37 % 101:03}", 2) for number in range(1, 101)]
    same = [Write("same", "item", 2) for _ in range(100)]
    found = collections([*rising, *spread, *same], 100)
    assert found == {"rising": Heat(1, 1), "same": Heat(1, 2)}
