"""Metrics: named, versioned definitions of what is computed from events."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pik.model.calendar import Buckets, buckets_of


class Per(StrEnum):
    """What a metric has one value per bucket of."""

    ENTITY = "entity"
    ALL = "all"
    """All entities together."""


ALL_ENTITIES = ""
"""The entity of the values over all entities; an id is never empty."""


def entities_of(entity_id: str) -> tuple[str, ...]:
    """Return the entities whose deliveries a value is computed from; none named are all."""
    return () if entity_id == ALL_ENTITIES else (entity_id,)


def entity_text(entity_id: str) -> str:
    """Return what a message calls the entity of a value: its id in quotes, or `all entities`."""
    return "all entities" if entity_id == ALL_ENTITIES else repr(entity_id)


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a metric computes, as written in its TOML file. docs/metrics.md is the reference.

    `value` is one SQL aggregate expression, `where` a SQL boolean over the event's columns, `bucket` a duration that
    divides a day or is whole days, aligned to 1970-01-01T00:00:00Z, or a unit of the calendar of `timezone`. There is a
    value for each entity and bucket or, `per` all of them, one for each bucket.
    """

    name: str
    value: str
    bucket: str = "1d"
    timezone: str | None = None
    where: str | None = None
    description: str = ""
    per: Per = Per.ENTITY

    @property
    def buckets(self) -> Buckets:
        """Its buckets."""
        return buckets_of(self.bucket, self.timezone)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A definition with the version (1, 2, …) under which the store keeps it.

    `scale` is how many digits after the point the type of its values has; each value is printed with at least so many.
    `actor` applied it, for this `reason`. A `retired` version has the definition of the one before it: from then on
    nothing computes or compares the metric, until a later version reinstates it.
    """

    definition: Definition
    version: int
    applied_at: int
    scale: int = 0
    actor: str = ""
    reason: str = ""
    retired: bool = False

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.definition.name

    @property
    def buckets(self) -> Buckets:
        """Its buckets."""
        return self.definition.buckets

    @property
    def is_over_all(self) -> bool:
        """Whether its values are over all entities."""
        return self.definition.per == Per.ALL


class Combination(StrEnum):
    """How the values of a metric for parts (entities, buckets) make that for the whole."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"


EVENT_COUNT = Metric(
    definition=Definition(name="event_count", value="count(*)", description="events per entity and UTC day"),
    version=1,
    applied_at=0,
)
"""The built-in metric: every store has it."""
