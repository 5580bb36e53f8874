"""The demo's data: one Monday of a shop, and what its producers sent on Tuesday morning. Always the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

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


@dataclass(frozen=True, slots=True)
class _Sent:
    """An event on its way: when it happened and when the pipeline got it, in nanoseconds."""

    source: str
    event_type: str
    entity_id: str
    event_time: int
    received_time: int
    payload: dict[str, Any]
    key: str | None = None

    @property
    def line(self) -> str:
        fields: dict[str, object] = {
            "source": self.source,
            "event_type": self.event_type,
            "entity_id": self.entity_id,
            "event_time": format_instant(self.event_time),
            "received_time": format_instant(self.received_time),
        }
        if self.key is not None:
            fields["idempotency_key"] = self.key
        return json.dumps(fields | {"payload": self.payload})


def write(directory: Path) -> None:
    """Create monday.jsonl, tuesday-morning.jsonl and metrics.toml in the directory."""
    chance = Random(20260302)
    monday = list(_monday(chance))
    late = [one for one in monday if one.source == "app" and _offline(one)]
    arrived = [one for one in monday if one not in late]
    synced = TUESDAY + 6 * HOUR + 12 * MINUTE
    morning = [
        *_retries(chance, [one for one in arrived if one.event_type == "payment_captured"]),
        *(replace(one, received_time=synced + number * SECOND) for number, one in enumerate(late)),
    ]
    _write_lines(directory / "monday.jsonl", arrived)
    _write_lines(directory / "tuesday-morning.jsonl", morning)
    (directory / "metrics.toml").write_text(METRICS, encoding="utf-8")


def _write_lines(path: Path, events: Iterable[_Sent]) -> None:
    lines = (one.line + "\n" for one in sorted(events, key=lambda one: one.received_time))
    path.write_text("".join(lines), encoding="utf-8")


def _offline(one: _Sent) -> bool:
    return one.entity_id in OFFLINE and MONDAY + 19 * HOUR <= one.event_time < MONDAY + 22 * HOUR


def _monday(chance: Random) -> Iterator[_Sent]:
    """Orders with their payment, and most of them with a shipment: some 1,500 events of 40 customers."""
    for number in range(ORDERS):
        # Some orders are the evening's, by those whose app is offline then.
        evening = number % 25 == 0
        customer = OFFLINE[number // 25 % len(OFFLINE)] if evening else f"customer-{chance.randrange(40):02d}"
        at = MONDAY + (
            19 * HOUR + chance.randrange(150 * 60) * SECOND if evening else chance.randrange(82_000) * SECOND
        )
        source = "app" if evening or chance.random() < 0.4 else "web"
        order, cents = f"order-{number:04d}", chance.randrange(450, 25_000)
        yield _sent(chance, source, "order_placed", customer, at, {"order": order, "items": chance.randrange(1, 6)})
        paid = at + chance.randrange(5, 90) * SECOND
        payment = _sent(chance, source, "payment_captured", customer, paid, {"order": order, "amount": cents / 100})
        yield replace(payment, key=f"pay-{number:04d}")
        if chance.random() < 0.9:
            packed = min(paid + chance.randrange(600, 5400) * SECOND, TUESDAY - SECOND)
            yield _sent(chance, "warehouse", "order_shipped", customer, packed, {"order": order})


def _sent(chance: Random, source: str, kind: str, customer: str, at: int, payload: dict[str, Any]) -> _Sent:
    return _Sent(source, kind, customer, at, at + chance.randrange(200, 4000) * 1_000_000, payload)


def _retries(chance: Random, payments: list[_Sent]) -> Iterator[_Sent]:
    """A producer that lost its acknowledgements sends Monday's payments again and again; three with another amount."""
    again = TUESDAY + 6 * HOUR
    for number, one in enumerate(payments[:240]):
        for attempt in range(chance.randrange(2, 5)):
            received = again + attempt * 4 * MINUTE + number * SECOND
            yield replace(one, received_time=received)
        if number in (40, 90, 140):
            in_cents = {name: round(value * 100) if name == "amount" else value for name, value in one.payload.items()}
            yield replace(one, received_time=again + 20 * MINUTE, payload=in_cents)
