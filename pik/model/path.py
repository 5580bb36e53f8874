"""Paths into an event: JMESPath expressions on the event as a producer would send it, with its event_id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pik.errors import UsageError
from pik.model.delivery import Delivery, read_exactly

_FIELDS = (
    *("event_id", "source", "event_type", "entity_id", "event_time", "received_time", "ingest_time"),
    *("batch_id", "seq", "idempotency_key"),
)
_OBJECTS = ("payload", "extra")


class EventPath:
    """A JMESPath expression on an event. Raises UsageError, which names `option`, for one that is none, and for the
    path to a field that no event has; the hint has the `names` that the option takes beside paths."""

    def __init__(self, text: str, option: str, names: Sequence[str] = ()) -> None:
        from pik.model.jmes import Expression  # imports jmespath

        self.text = text
        self._expression = Expression(text, f"{option} {text}")
        path = self._expression.path
        if path is not None and path[0] not in (*_FIELDS, *_OBJECTS):
            raise UsageError(
                f"{option} {text}: events have no field {path[0]}",
                hint=(f"{', '.join(names)}, or a path: " if names else "")
                + f"payload.{text} if it is in the payload, extra.{text} if it is an unknown field beside it",
            )

    def __str__(self) -> str:
        return self.text

    def find(self, delivery: Delivery) -> Any:
        """Return what the expression finds, numbers exactly; None where there is nothing. Raises Invalid."""
        payload = delivery.payload_text or delivery.payload
        fields: dict[str, Any] = {name: getattr(delivery, name) for name in _FIELDS}
        fields |= {"payload": read_exactly(payload), "extra": read_exactly(delivery.extra) if delivery.extra else None}
        return self._expression.search(fields, len(payload))
