"""Promise: in a compacted store calls follow what is asked for, not what is stored."""

from __future__ import annotations

import json

import pytest

from pik.engine import DuckEngine
from pik.model.delivery import Filter
from pik.model.instant import DAY, parse_instant
from pik.model.window import Window
from pik.runtime.parallel import map_in_threads
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.ingest.api_request import record_request
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.inspect.events import list_events
from tests.support.aws.calls import Calls, counting_reads
from tests.support.aws.compacted import compact
from tests.support.aws.emulator import make_stack, publish

START = parse_instant("2026-01-31T00:00:00Z")
ENTITY = "customer-17"


def event(number: int, entity: str) -> dict[str, object]:
    time = f"2026-01-31T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    payload = {"number": number, "note": "a small payload"}
    return {"source": "shop", "event_type": "order", "entity_id": entity, "event_time": time, "payload": payload}


def fill(url: str, first: int, last: int, *, wanted: int, arrays: bool) -> None:
    """Requests from the first to the last; the wanted ones are about ENTITY."""
    store = open_store(url)

    def body(number: int) -> bytes:
        others = f"customer-{number % 997 + 100}"
        one = event(number, ENTITY if number < wanted else others)
        return json.dumps([one, event(number + 50_000, others)] if arrays else one).encode()

    bodies = map(body, range(first, last))
    for _ in map_in_threads(lambda data: record_request(store, data), bodies, 16):
        pass


def events_of_the_day(url: str) -> tuple[list[str], Calls]:
    fresh = open_store(url)
    with counting_reads(fresh) as calls:
        rows = list(list_events(fresh, Filter(Window(START, START + DAY), (ENTITY,))))
    return [row.event_id for row in rows], calls


SLOW = pytest.mark.slow


SIZES = [(stored, arrays) for stored in (100, 1000, 10_000) for arrays in (False, True)]


@pytest.mark.parametrize(("stored", "arrays"), [SIZES[0], *(pytest.param(*size, marks=SLOW) for size in SIZES[1:])])
def test_an_entitys_day_and_an_event(aws: Clients, stored: int, arrays: bool) -> None:
    """The last requests, at most a thousand, are not compacted."""
    url, late, wanted = publish(aws, make_stack(aws)), min(1000, stored // 10), min(640, stored // 2)
    fill(url, 0, stored - late, wanted=wanted, arrays=arrays)
    compact(open_store(url))
    fill(url, stored - late, stored, wanted=wanted, arrays=arrays)
    found, calls = events_of_the_day(url)
    assert len(found) == wanted
    assert calls.total <= 30, calls.made
    fresh = open_store(url)
    with counting_reads(fresh) as calls:
        assert show_event(fresh, DuckEngine(), found[0], 100).event.event_id == found[0]
    assert calls.total <= 12, calls.made
