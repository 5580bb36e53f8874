"""Filters: which deliveries are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from pik.model.event import Delivery
from pik.model.window import ALL_TIME, Window


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries are asked for; all, unless something is said. Empty or None: no restriction."""

    window: Window = ALL_TIME
    entities: tuple[str, ...] = ()
    source: str | None = None
    event_type: str | None = None

    def matches(self, delivery: Delivery) -> bool:
        """Whether the delivery is asked for."""
        return (
            (not self.entities or delivery.entity_id in self.entities)
            and (self.source is None or delivery.source == self.source)
            and (self.event_type is None or delivery.event_type == self.event_type)
            and delivery.event_instant in self.window
        )
