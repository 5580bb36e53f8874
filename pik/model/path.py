"""Paths into an event: JMESPath expressions on the event as a producer would send it, with its event_id."""

from __future__ import annotations

from typing import Any

import msgspec

from pik.model.delivery import Delivery, read_exactly
from pik.model.jmes import Expression


class EventPath:
    """A JMESPath expression on an event. Raises UsageError, which names `option`, for one that is none."""

    def __init__(self, text: str, option: str) -> None:
        self.text = text
        self._expression = Expression(text, f"{option} {text}")

    def __str__(self) -> str:
        return self.text

    def find(self, delivery: Delivery) -> Any:
        """Return what the expression finds, numbers exactly; None where there is nothing. Raises Invalid."""
        payload = delivery.payload_text or delivery.payload
        return self._expression.search({**_fields(delivery), "payload": read_exactly(payload)}, len(payload))


def _fields(delivery: Delivery) -> dict[str, Any]:
    return {
        "event_id": delivery.event_id,
        "source": delivery.source,
        "event_type": delivery.event_type,
        "entity_id": delivery.entity_id,
        "event_time": delivery.event_time,
        "received_time": delivery.received_time,
        "ingest_time": delivery.ingest_time,
        "batch_id": delivery.batch_id,
        "seq": delivery.seq,
        "idempotency_key": delivery.idempotency_key,
        "extra": msgspec.json.decode(delivery.extra) if delivery.extra else None,
    }
