"""The shop of the demo and of its incidents: what its producers sent, the same each time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from pik.model.instant import DAY, HOUR, MINUTE, SECOND, format_instant, parse_instant

MONDAY = parse_instant("2026-03-02T00:00:00Z")
TUESDAY = MONDAY + DAY
ORDERS = 520
OFFLINE = ("customer-04", "customer-11", "customer-17", "customer-23", "customer-31")
"""Their app was offline on Monday evening; it sent what it had kept on Tuesday at 06:12."""

METRICS = """\
[[metric]]
name = "revenue"
description = "captured payments per customer and UTC day"
where = "event_type = 'payment_captured'"
value = "sum(CAST(payload->>'$.amount' AS DECIMAL(18, 2)))"
bucket = "1d"
"""


class Sent(NamedTuple):
    """An event on its way: when it happened and when the pipeline got it, in nanoseconds."""

    source: str
    event_type: str
    entity_id: str
    event_time: int
    received_time: int
    idempotency_key: str | None
    payload: dict[str, Any]


class Monday(NamedTuple):
    """What was sent of Monday: what arrived at once, what the app kept until Tuesday, and what was sent again then."""

    arrived: list[Sent]
    late: list[Sent]
    retried: list[Sent]


def monday() -> Monday:
    """Return the events of Monday, 2 March."""
    chance = Random(20260302)
    placed = list(orders(chance))
    late = [one for one in placed if one.source == "app" and _offline(one)]
    arrived = [one for one in placed if one not in late]
    synced = TUESDAY + 6 * HOUR + 12 * MINUTE
    retried = list(retries(chance, [one for one in arrived if one.event_type == "payment_captured"]))
    late = [one._replace(received_time=synced + number * SECOND) for number, one in enumerate(late)]
    return Monday(arrived, late, retried)


def write_data(directory: Path) -> None:
    """Create monday.jsonl, tuesday-morning.jsonl and metrics.toml in the directory."""
    sent = monday()
    write_lines(directory / "monday.jsonl", sent.arrived)
    write_lines(directory / "tuesday-morning.jsonl", [*sent.retried, *sent.late])
    write_metrics(directory)


def write_metrics(directory: Path) -> None:
    """Create metrics.toml in the directory."""
    (directory / "metrics.toml").write_text(METRICS, encoding="utf-8")


def write_lines(path: Path, events: Iterable[Sent]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for one in sorted(events, key=lambda one: one.received_time):
            times = {name: format_instant(getattr(one, name)) for name in ("event_time", "received_time")}
            fields = {name: value for name, value in (one._asdict() | times).items() if value is not None}
            file.write(json.dumps(fields) + "\n")


def _offline(one: Sent) -> bool:
    return one.entity_id in OFFLINE and MONDAY + 19 * HOUR <= one.event_time < MONDAY + 22 * HOUR


def orders(chance: Random, day: int = MONDAY, count: int = ORDERS) -> Iterator[Sent]:
    """Yield the orders of a day with their payment, and most of them with a shipment, of 40 customers."""
    prefix = "" if day == MONDAY else f"{format_instant(day)[:10]}-"
    for number in range(count):
        # Some orders are the evening's, by those whose app is offline then.
        evening = number % 25 == 0
        customer = OFFLINE[number // 25 % len(OFFLINE)] if evening else f"customer-{chance.randrange(40):02d}"
        at = day + (19 * HOUR + chance.randrange(150 * 60) * SECOND if evening else chance.randrange(82_000) * SECOND)
        source = "app" if evening or chance.random() < 0.4 else "web"
        order, cents = f"{prefix}order-{number:04d}", chance.randrange(450, 25_000)
        yield sent(chance, source, "order_placed", customer, at, {"order": order, "items": chance.randrange(1, 6)})
        paid = at + chance.randrange(5, 90) * SECOND
        payment = sent(chance, source, "payment_captured", customer, paid, {"order": order, "amount": cents / 100})
        yield payment._replace(idempotency_key=f"{prefix}pay-{number:04d}")
        if chance.random() < 0.9:
            packed = min(paid + chance.randrange(600, 5400) * SECOND, day + DAY - SECOND)
            yield sent(chance, "warehouse", "order_shipped", customer, packed, {"order": order})


def sent(chance: Random, source: str, kind: str, customer: str, at: int, payload: dict[str, Any]) -> Sent:
    return Sent(source, kind, customer, at, at + chance.randrange(200, 4000) * 1_000_000, None, payload)


def retries(chance: Random, payments: list[Sent]) -> Iterator[Sent]:
    """A producer that lost its acknowledgements sends Monday's payments again and again; three with another amount."""
    again = TUESDAY + 6 * HOUR
    for number, one in enumerate(payments[:240]):
        for attempt in range(chance.randrange(2, 5)):
            yield one._replace(received_time=again + attempt * 4 * MINUTE + number * SECOND)
        if number in (40, 90, 140):
            in_cents = {name: round(value * 100) if name == "amount" else value for name, value in one.payload.items()}
            yield one._replace(received_time=again + 20 * MINUTE, payload=in_cents)
