"""The events of January 2026, as their producers sent them, and what can go wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 31
ENTITIES = ("anna", "--bo", "carl o'x", "dé")
SOURCES = ("web", "app", "till")

Event = dict[str, Any]


def text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Producer:
    """Makes events whose content is never the same twice."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self._number = 0

    def event(self, source: str, at: datetime, **fields: Any) -> Event:
        self._number += 1
        chance = self.chance
        return {
            "source": source,
            "event_type": "paid" if chance.random() < 0.8 else "seen",
            "entity_id": chance.choice(ENTITIES),
            "event_time": text(at),
            "received_time": text(at + timedelta(seconds=2 + chance.random())),
            "payload": {
                "amount": f"{chance.randrange(1, 20_000) / 100:.2f}",
                "fee": f"{chance.randrange(1, 100) / 100:.2f}",
                "payer": chance.randrange(60),
                "number": self._number,
            },
            **fields,
        }

    def regular(self, source: str) -> Iterator[Event]:
        """One event in each twenty minutes of the month."""
        for slot in range(DAYS * 72):
            yield self.event(source, FIRST + timedelta(minutes=20 * slot, seconds=self.chance.randrange(1200)))

    def month(self) -> list[Event]:
        """A month without any fault, in the order in which it was received. Events of the till come as chance has it,
        four in an hour on average."""
        events = [one for source in SOURCES[:2] for one in self.regular(source)]
        at = FIRST
        while (at := at + timedelta(minutes=self.chance.expovariate(1 / 15))) < FIRST + timedelta(days=DAYS):
            events.append(self.event("till", at))
        return sorted(events, key=lambda one: str(one["received_time"]))

    def some(self, days: tuple[int, int], count: int, sources: tuple[str, ...] = SOURCES) -> list[Event]:
        """Events at random times of these days (from 1), received at once."""
        first, last = days
        seconds = (last - first + 1) * 86_400
        return [
            self.event(
                self.chance.choice(sources),
                FIRST + timedelta(days=first - 1, seconds=self.chance.randrange(seconds)),
            )
            for _ in range(count)
        ]


def day_of(event: Event) -> int:
    """The day of the month."""
    return int(event["event_time"][8:10])


def hour_of(event: Event) -> int:
    return int(event["event_time"][11:13])


def moved(event: Event, by: timedelta) -> Event:
    """The event at another time."""
    at = datetime.fromisoformat(event["event_time"].replace("Z", "+00:00")) + by
    return {**event, "event_time": text(at)}


def without_hours(events: list[Event], source: str, day: int, hours: range) -> list[Event]:
    """A silence."""
    return [one for one in events if (one["source"], day_of(one)) != (source, day) or hour_of(one) not in hours]


def thinned(events: list[Event], source: str, day: int) -> list[Event]:
    """A drop: of a day's events one in four is left."""
    place = 0
    kept = []
    for one in events:
        if (one["source"], day_of(one)) == (source, day):
            place += 1
            if place % 4:
                continue
        kept.append(one)
    return kept


def in_zone(events: list[Event], source: str, days: range, by: timedelta) -> list[Event]:
    """A clock that shows another zone's time on these days."""
    return [moved(one, by) if one["source"] == source and day_of(one) in days else one for one in events]
