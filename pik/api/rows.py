"""What the results' rows are. Fields have the names that the command line's JSON has for them, if not noted."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from pik.api.times import Instant


@dataclass(frozen=True, slots=True)
class Event:
    """An event, by its delivery that counts, recorded corrections applied.

    `lag_ns` is received_time (or ingest_time without one) minus event_time in nanoseconds, negative for clock skew;
    `deliveries` counts all of the event. `payload` is JSON text as it came: `json.loads(event.payload,
    parse_float=Decimal)` keeps its numbers exact. `received_event_time` is the time that a correction replaced;
    `not_counted` is why a metric's current value does not count it, if that was asked for.
    """

    event_id: str
    event_time: Instant
    source: str
    event_type: str
    entity_id: str
    lag_ns: int
    deliveries: int
    batch_id: str
    seq: int
    recorded_at: Instant
    payload: str
    received_event_time: Instant | None
    corrections: tuple[str, ...]
    not_counted: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One arrival of an event: the pair (`batch_id`, `seq`). `verdict` is what the index said of it (`accepted`,
    `exact`, `conflict`); `counts` says whether it counts today, corrections applied. The other fields are those of an
    Event."""

    event_id: str
    event_time: Instant
    source: str
    event_type: str
    entity_id: str
    verdict: str
    counts: bool
    lag_ns: int
    batch_id: str
    seq: int
    recorded_at: Instant
    content_hash: str
    idempotency_key: str | None
    payload: str
    received_event_time: Instant | None
    corrections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One version of a metric's value for an entity (None: over all) in the bucket that starts then.

    `inputs` is how many events were counted, `known_until` the last recording that its run knew; both are None for an
    imported one. `bucket_local` is the bucket's start in the metric's timezone, None where it has none.
    """

    metric: str
    bucket: Instant
    entity_id: str | None
    value: Decimal | None
    inputs: int | None
    current: bool
    run_id: str
    actor: str | None
    reason: str | None
    metric_version: int
    known_until: Instant | None
    retired_at: Instant | None
    bucket_local: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that differs. `op`: `~` changed, `+` not current yet, `-` current without events, `!` cannot be computed,
    for the `reason`.

    `current` is the left side, `recomputed` the right one, `delta` = recomputed - current, None where one is missing.
    `inputs_before` and `inputs_after` are how many events each counts (None: not known). `causes` are texts such as
    `late +12.50`, whose shares add up to the delta, and `proven` says whether they are; with `explain=True`.
    """

    op: str
    metric: str
    bucket: Instant
    entity_id: str | None
    current: Decimal | None
    recomputed: Decimal | None
    delta: Decimal | None
    inputs_before: int | None
    inputs_after: int | None
    reason: str | None
    event_ids: tuple[str, ...]
    causes: tuple[str, ...]
    proven: bool | None
    bucket_local: str | None


@dataclass(frozen=True, slots=True)
class LagGroup:
    """The lags of a group of events, in nanoseconds: percentiles by nearest rank. `group` is None where the payload has
    no such field; `negative` counts lags below 0, `at_ingest` events without a received_time, whose lag lasts until
    they were ingested here."""

    group: str | None
    events: int
    min_ns: int
    p50_ns: int
    p90_ns: int
    p95_ns: int
    p99_ns: int
    max_ns: int
    negative: int
    at_ingest: int


@dataclass(frozen=True, slots=True)
class LagBar:
    """Events with a lag from `from_ns` (included) to `to_ns` (excluded), in nanoseconds; None: no bound."""

    from_ns: int | None
    to_ns: int | None
    events: int


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of a difference, and its `share`, by how much it changes the value. `events` is how many events count on
    one side of it only (None: not known); a share that is not `proven` is inferred."""

    cause: str
    share: Decimal
    events: int | None
    proven: bool
    detail: str
    run_id: str | None
    correction_id: str | None


@dataclass(frozen=True, slots=True)
class CauseEvent:
    """An event behind a cause. `change`: `+` it counts then, `-` it does not any more, `~` at another time.
    `event_time` and `payload` are None for one that is only assumed."""

    cause: str
    event_id: str
    event_time: Instant | None
    change: str
    batch_id: str
    seq: int
    payload: str | None


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of an input: `outcome` is `ingested`, `resumed` or `already ingested`; the counts are of the whole
    batch: read = accepted + exact + conflict + rejected."""

    batch_id: str
    source: str
    outcome: str
    read: int
    accepted: int
    exact: int
    conflict: int
    rejected: int
    first_event: Instant | None
    last_event: Instant | None
