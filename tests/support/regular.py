"""Events as a healthy pipeline gets them, from a seed: sources with their own rhythm and lag, and nothing wrong."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pik.model.instant import DAY, HOUR, SECOND, format_instant, parse_instant

START = parse_instant("2026-01-01T00:00:00Z")

LAGS: Mapping[str, Callable[[random.Random], float]] = {
    "web": lambda chance: chance.expovariate(1 / 5),
    "app": lambda chance: chance.lognormvariate(3, 1),
    "nightly": lambda chance: chance.uniform(0, 86400),
}
"""Seconds until an event of the source is received."""


def healthy(
    seed: int, days: int, *, per_hour: float = 12, sources: Iterable[str] = LAGS, late: float = 0.004
) -> list[dict[str, Any]]:
    """Return events of so many days: fewer at night and on weekends, a few of them late."""
    chance = random.Random(seed)
    events: list[dict[str, Any]] = []
    for source in sources:
        number = 0
        for hour in range(24 * days):
            of_day = 1 if 8 <= hour % 24 < 20 else 0.4
            of_week = 0.6 if (hour // 24) % 7 in (2, 3) else 1
            for second in sorted(chance.uniform(0, 3600) for _ in range(poisson(chance, per_hour * of_day * of_week))):
                at = START + hour * HOUR + round(second * SECOND)
                lag = LAGS[source](chance) + (chance.uniform(0, 100_000) if chance.random() < late else 0)
                number += 1
                events.append(made(source, at, at + round(lag * SECOND), number, f"e{chance.randrange(3)}"))
    return events


def made(source: str, at: int, received: int, number: int, entity: str = "e0") -> dict[str, Any]:
    """Return an event."""
    return {
        "source": source,
        "event_type": "paid",
        "entity_id": entity,
        "event_time": format_instant(at),
        "received_time": format_instant(received),
        "payload": {"n": number},
    }


def irregular() -> list[dict[str, Any]]:
    """Return events of a source with a shift for a day, another negative lag, and in the last two days a silence, a
    drop, a spike and missing numbers."""
    events = healthy(1, 10, per_hour=50, sources=["web"])
    changed = [shifted(one, HOUR) if START + DAY <= received(one) < START + 2 * DAY else one for one in events]
    changed[5] = shifted(changed[5], HOUR)
    quiet, low, busy = START + 9 * DAY + 16 * HOUR, START + 8 * DAY + 10 * HOUR, START + 8 * DAY + 14 * HOUR
    kept = [
        one
        for one in changed
        if not quiet <= at(one) < quiet + 4 * HOUR and not (low <= at(one) < low + 2 * HOUR and one["payload"]["n"] % 8)
    ]
    return kept + [made("web", busy + number * SECOND, busy + number * SECOND, number) for number in range(1, 400)]


def poisson(chance: random.Random, mean: float) -> int:
    """Return a random count with this mean."""
    count, product = 0, chance.random()
    while product > math.exp(-mean):
        count, product = count + 1, product * chance.random()
    return count


def at(event: dict[str, Any]) -> int:
    """Return the event's time."""
    return parse_instant(event["event_time"])


def received(event: dict[str, Any]) -> int:
    """Return when the event was received."""
    return parse_instant(event["received_time"])


def shifted(event: dict[str, Any], by: int) -> dict[str, Any]:
    """Return the event with a later time."""
    return {**event, "event_time": format_instant(at(event) + by)}


def lines(events: Iterable[dict[str, Any]]) -> str:
    """Return the events as JSON lines."""
    return "".join(json.dumps(one) + "\n" for one in events)
