"""Why a current value differs from what it should be: the difference, split by cause.

The causes are applied one after the other, from the left side to the right: lost, duplicates, definition, late,
assumed, unexplained. The share of each is by how much the value changes then, so shares add up to the difference
exactly. docs/investigating.md explains the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from enum import StrEnum
from itertools import groupby

from pik.errors import NothingSelected, UsageError, command
from pik.model.delivery import Delivery
from pik.model.instant import Window, format_instant
from pik.model.metric import ALL_ENTITIES, Aggregate, Computed, Metric, PromotionKind, entities_of, entity_text
from pik.model.scenario import PLAIN, OtherDefinition, Scenario
from pik.ports.engine import CountedDelivery, Engine
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.rawlog.objects import frame_lines, parse
from pik.rawlog.selection import Overrides, Selection
from pik.usecases.availability import expect_held
from pik.usecases.metrics.computation import sound
from pik.usecases.metrics.definitions import Scales, pin, pinned
from pik.usecases.metrics.scenario import definitions, resolved
from pik.usecases.metrics.states import State, States, value_of

EXACT = Context(prec=200)
"""Sums and differences of values, without rounding."""


class Cause(StrEnum):
    """Why two sides differ."""

    NOT_COMPUTED = "not computed"
    LOST = "lost"
    DEFINITION = "definition"
    LATE = "late"
    ASSUMED = "assumed"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Share:
    """A cause, and by how much it changes the value. `events` are the deliveries that count on one side of it only, or
    at another time; None: they cannot be known. Those in `after` count when it is applied. A share that is not `proven`
    is inferred."""

    cause: Cause
    share: Decimal
    proven: bool
    detail: str
    events: tuple[CountedDelivery, ...] | None = ()
    after: frozenset[CountedDelivery] = frozenset()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A metric's value of one entity and bucket (its start, nanoseconds): the current one, on the left, and what it
    should be, on the right, with the causes of the difference.

    `proven` says whether the deliveries that the current version counted are exactly those that raw still holds of
    what it knew. `promotion` is that of the run that wrote it; `left` and `right` are the definitions of the two sides.
    `lost` are the raw objects that cannot be read: both sides are computed without them. `moves` is by how much (in
    nanoseconds) the scenario moves deliveries to a later and to an earlier time, at most.
    """

    metric: str
    entity_id: str
    bucket: int
    scenario: Scenario
    current: Aggregate | None
    recomputed: Computed | None
    right: Metric
    left: Metric | None
    promotion: Promotion | None
    proven: bool
    shares: tuple[Share, ...]
    lost: tuple[str, ...]
    moves: tuple[int, int] = (0, 0)

    @property
    def delta(self) -> Decimal:
        """recomputed - current; a missing value counts as 0. The sum of all shares."""
        return EXACT.subtract(value_of(self.recomputed), value_of(self.current.computed if self.current else None))


def explain(
    store: Store, engine: Engine, name: str, entity: str, instant: int, scenario: Scenario = PLAIN
) -> Explanation:
    """Explain the value of the bucket that holds the instant (nanoseconds), under the scenario. The entity is
    ALL_ENTITIES for a metric over all.

    Raises UsageError where it is for another one, or is not for such a one, NotFound for an unknown metric,
    NothingSelected where neither side has a value, NotHeld, Damaged, and EngineError where a value between the two
    sides cannot be computed.
    """
    scenario = resolved(store, scenario)
    [right] = definitions(store, engine, replace(scenario, assumptions=()), [name])
    window = Window(instant, instant + 1).widened(right.bucket_size)
    _expect_entity(right, entity, window.start)
    expect_held(store, window, entities_of(entity))
    current = next(sound(store.aggregates.current(right.name, Window(window.start, window.start + 1), (entity,))), None)
    states = States(store, engine, right.name, entity, window.start)
    last = states.at(right, Scenario(scenario.as_of))
    shares: list[Share] = []
    left, proven = None, False
    if current is None:
        if last.computed is not None:
            detail = _not_computed(store, right, window, entity)
            shares.append(
                Share(Cause.NOT_COMPUTED, last.value, True, detail, tuple(sorted(last.counted)), last.counted)
            )
    else:
        left = pinned(store.metrics, f"{right.name}@{current.metric_version}")
        first = states.at(left, Scenario(current.known_until))
        proven = counts_same(first.computed, current.computed)
        shares += _before(current, first, proven)
        redefined = states.at(right, Scenario(current.known_until)) if left.definition != right.definition else first
        if redefined is not first:
            detail = f"computed with {pin(left)}; the definition is {pin(right)} now"
            shares.append(_share(Cause.DEFINITION, first, redefined, proven, detail))
        if redefined.counted != last.counted or redefined.value != last.value:
            shares.append(_share(Cause.LATE, redefined, last, proven, _late(store, redefined, last, current)))
    for number, assumption in enumerate(scenario.assumptions, start=1):
        under = Scenario(scenario.as_of, scenario.assumptions[:number])
        if isinstance(assumption, OtherDefinition):
            [right] = definitions(store, engine, under, [name])
            if window.widened(right.bucket_size) != window:
                raise other_buckets(right)
        after = states.at(right, under)
        shares.append(_share(Cause.ASSUMED, last, after, True, str(assumption)))
        last = after
    if current is None and last.computed is None and not any(one.share for one in shares):
        raise NothingSelected(
            f"nothing to explain: {right.name} of {entity_text(entity)} has neither a current value nor events"
            f" in the bucket {format_instant(window.start)}",
            hint=command("aggregates", "--metric", right.name, *options_of(entity)),
        )
    shown = None if current is None else Scales(store.metrics).shown(current)
    rest = EXACT.subtract(last.value, value_of(current.computed if current else None))
    for one in shares:
        rest = EXACT.subtract(rest, one.share)
    shares.append(Share(Cause.UNEXPLAINED, rest, proven or not rest, "what no cause accounts for"))
    promotion = None if current is None else _promotion(store, current.run_id)
    return Explanation(
        *(right.name, entity, window.start, scenario, shown, last.computed, right, left, promotion, proven),
        tuple(shares),
        tuple(sorted(states.lost)),
        last.moves,
    )


@dataclass(frozen=True, slots=True)
class CauseEvent:
    """A delivery behind a cause: it counts `before` the cause is applied, `after` it, or both, at another time each.
    `delivery` is None for one that is only assumed."""

    cause: Cause
    detail: str
    counted: CountedDelivery
    before: bool
    after: bool
    delivery: Delivery | None


def events_behind(store: Store, explanation: Explanation) -> Iterator[CauseEvent]:
    """Yield the deliveries behind each cause, in the order of the causes and then of event_id. Raises Damaged."""
    found = _deliveries(store, explanation)
    for share in explanation.shares:
        places = sorted(share.events or ())
        for _, moved in groupby(places, key=lambda one: (one.event_id, one.batch_id, one.seq)):
            both = list(moved)
            is_after = both[-1] in share.after
            yield CauseEvent(
                share.cause,
                share.detail,
                both[0],
                before=len(both) > 1 or not is_after,
                after=len(both) > 1 or is_after,
                delivery=found.get((both[0].batch_id, both[0].seq)),
            )


def _deliveries(store: Store, explanation: Explanation) -> dict[tuple[str, int], Delivery]:
    """Return the deliveries behind the causes, by batch and seq, as they are in raw."""
    counted = [one for share in explanation.shares for one in share.events or ()]
    wanted = {(one.batch_id, one.seq) for one in counted}
    found: dict[tuple[str, int], Delivery] = {}
    if not wanted:
        return found
    times = [one.event_time * 1000 for one in counted]
    window, moves = Window(min(times), max(times) + 1000), explanation.moves
    # Those that are only counted at another time than their own are where that moved them from.
    overrides = Overrides(lost=frozenset(explanation.lost), later=moves[0], earlier=moves[1])
    for segment, frames in Selection(store, window, entities_of(explanation.entity_id), overrides).needed():
        for frame in frames:
            for line in frame_lines(store.raw, segment, frame):
                delivery = parse(segment.key, line)
                place = delivery.batch_id, delivery.seq
                if place in wanted:
                    found[place] = delivery
    return found


def options_of(entity: str) -> list[str]:
    """Return the options of a command that select the values of an entity, or of all."""
    return [word for one in entities_of(entity) for word in ("--entity", one)]


def _expect_entity(metric: Metric, entity: str, bucket: int) -> None:
    day = format_instant(bucket)
    if metric.is_over_all and entity != ALL_ENTITIES:
        raise UsageError(
            f"{metric.name} is over all entities, so there is no value of {entity!r}",
            hint=f"leave ENTITY out: {command('explain', metric.name, day)}",
        )
    if entity == ALL_ENTITIES and not metric.is_over_all:
        raise UsageError(
            f"{metric.name} has a value for each entity, and none is named",
            hint=f"pik explain {metric.name} ENTITY {day}; totals over all: "
            + command("diff", "aggregates", "--metric", metric.name, "--by", "bucket"),
        )


def other_buckets(metric: Metric) -> UsageError:
    """Return the error for a definition that is assumed, and has buckets of another size."""
    what = f"the assumed definition of {metric.name} has buckets of another size, so values cannot be explained by it"
    return UsageError(what, hint=command("metrics", "show", metric.name))


def counts_same(found: Computed | None, version: Computed) -> bool:
    """Return whether what was found counts exactly the deliveries that the version counted."""
    return version.inputs == 0 if found is None else found.counted == version.counted


def _share(cause: Cause, before: State, after: State, proven: bool, detail: str) -> Share:
    changed = before.counted ^ after.counted
    return Share(
        cause, EXACT.subtract(after.value, before.value), proven, detail, tuple(sorted(changed)), after.counted
    )


def _before(current: Aggregate, first: State, proven: bool) -> list[Share]:
    """Return the share of what the current version counted and raw does not hold any more. Its events are not known."""
    if proven:
        return []
    now, then = first.computed.inputs if first.computed else 0, current.computed.inputs
    share = EXACT.subtract(first.value, value_of(current.computed))
    if now < then:
        detail = f"{then - now:,} of the {then:,} deliveries that it counted are not in raw any more"
        return [Share(Cause.LOST, share, False, detail, None)]
    return []


_NAMED = 3
"""Batches of late deliveries that are named, at most."""


def _late(store: Store, before: State, after: State, current: Aggregate) -> str:
    new = after.counted - before.counted
    batches = sorted({one.batch_id for one in new})
    sources = (next(store.index.batches(batch_id)).origin.name for batch_id in batches[:_NAMED])
    named = ", ".join(f"{batch_id} ({source})" for batch_id, source in zip(batches, sources, strict=False))
    if len(batches) > _NAMED:
        named += f" and {len(batches) - _NAMED:,} more batches"
    since = format_instant(current.known_until)
    if not new:
        return f"recorded by {since}, but not by the time that the right side knows"
    return f"{len(new):,} recorded after {since}, in {named}"


def _not_computed(store: Store, metric: Metric, window: Window, entity: str) -> str:
    """Return why there is no current version."""
    versions = store.aggregates.versions(metric.name, Window(window.start, window.start + 1), (entity,))
    runs = [version.run_id for version in versions]
    if not runs:
        return "no run has computed it"
    return f"run {runs[-1]} computed it, and was not promoted or was rolled back"


def _promotion(store: Store, run_id: str) -> Promotion | None:
    """Return the latest promotion of the run."""
    return next(
        (one for one in store.promotions.newest_first() if one.run_id == run_id and one.kind == PromotionKind.PROMOTE),
        None,
    )
