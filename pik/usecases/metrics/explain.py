"""Why two sides of a comparison differ in one value: the difference, split by cause.

The causes are applied one after the other, from the left side to the right: lost, duplicates, definition, late,
verdict, corrected, assumed, unexplained. The share of each is by how much the value changes then, so shares add up to
the difference exactly. docs/investigating.md explains the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from pik.errors import NothingSelected, UsageError, command
from pik.inputs.bucket_texts import bucket_named
from pik.model.calendar import covering
from pik.model.instant import display_instant, format_instant
from pik.model.metric import ALL_ENTITIES, Metric, entities_of, entity_text
from pik.model.scenario import PLAIN, OtherDefinition, Scenario
from pik.model.typed_times import written_out
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.usecases.availability import expect_held
from pik.usecases.inspect.near_names import did_you_mean
from pik.usecases.metrics.chain import EXACT, Cause, Knowledge, knowledge_at, steps
from pik.usecases.metrics.definitions import pin
from pik.usecases.metrics.explain_chain import Chain
from pik.usecases.metrics.explanation import Explanation, Share
from pik.usecases.metrics.file_numbers import FileNumbers
from pik.usecases.metrics.scenario import definitions, resolved
from pik.usecases.metrics.side_values import SideValue, side_value
from pik.usecases.metrics.sides import LEFT, RecordedSide
from pik.usecases.metrics.states import computed_states, options_of
from pik.usecases.metrics.unread import bounds
from pik.usecases.metrics.winners import Winners
from pik.usecases.metrics.zones import MovedZones


def explain(
    store: Store,
    engine: Engine,
    name: str,
    entity: str,
    instant: int,
    scenario: Scenario = PLAIN,
    *,
    left: RecordedSide | FileNumbers | None = None,
    right: RecordedSide | None = None,
    events: bool = False,
) -> Explanation:
    """Explain the value of the bucket that holds the instant (nanoseconds): on the left what is current, or the side
    given; on the right what is recomputed under the scenario, or the side given. The entity is ALL_ENTITIES for a
    metric over all. With `events`, keep those behind each cause for `events_behind`.

    Raises UsageError where it is for another one, or is not for such a one, or where another definition than the one
    named made the right value; NotFound for an unknown metric, NothingSelected where neither side has a value, NotHeld,
    Damaged, and EngineError where a value between the two sides cannot be computed.
    """
    scenario = resolved(store, scenario)
    [metric] = definitions(store, engine, replace(scenario, assumptions=()), [name])
    window = metric.buckets.around(instant)
    if instant != window.start and right is None and not scenario:
        gone = side_value(store, Winners(store), left or RecordedSide(store, LEFT), metric, instant, entity)
        if gone.version is not None and (moved := MovedZones(store).of(gone.run_id, metric, instant)):
            return _without_bucket(metric, entity, instant, scenario, gone, moved)
    _expect_entity(metric, entity, window.start)
    expect_held(store, window, entities_of(entity))
    place = metric, window.start, entity
    others = [one.buckets for one in store.metrics.versions(metric.name)]  # what was current may have other buckets
    winners = Winners(store, covering(window, others))
    before = side_value(store, winners, left or RecordedSide(store, LEFT), *place)
    after = None if right is None else side_value(store, winners, right, *place)
    target = knowledge_at(metric, scenario.as_of, winners)
    target = target if after is None or after.knowledge is None else after.knowledge
    if "@" in name and target.metric != metric:
        raise UsageError(f"{right} was computed with {pin(target.metric)}, not {name}", hint=metric.name)
    assumed = list(_assumed(store, engine, scenario, metric, name, window)) if right is None else []
    metric = assumed[-1][0] if assumed else target.metric if after is not None else metric
    wanted = [*_compared(before, after, target, winners), *assumed]
    with computed_states(store, engine, wanted, window.start, entity, winners) as states:
        chain = Chain(store, states, winners, before, after, target, with_events=events)
        chain.compare()
        for assumption, step in zip(scenario.assumptions if assumed else (), assumed, strict=True):
            chain.assume(str(assumption), *step)
        found = chain.explanation(entity, window.start, scenario, metric)
    if not found.is_complete:
        within = bounds(engine, metric.definition, found.recomputed, found.unread.events())
        found = replace(found, bounds=within)
    has_no_value = found.left.version is None and found.recomputed is None
    if has_no_value and found.is_complete and not any(one.share for one in found.shares):
        lacking = "no value on either side" if left or right else "neither a current value nor events"
        values = command("aggregates", "--metric", metric.name, *options_of(entity))
        raise NothingSelected(
            f"nothing to explain: {metric.name} of {entity_text(entity)} has {lacking}"
            f" in the bucket {display_instant(window.start)}",
            hint=did_you_mean(store, entities_of(entity)) or values,
        )
    return found


def _without_bucket(
    metric: Metric, entity: str, bucket: int, scenario: Scenario, left: SideValue, moved: str
) -> Explanation:
    """Return the explanation of a value that was computed by other rules of its metric's timezone, by which a bucket
    began where none does now."""
    shares = (
        Share(Cause.DEFINITION, EXACT.minus(left.value), True, moved, None, side=left),
        Share(Cause.UNEXPLAINED, Decimal(0), True, "what no cause accounts for"),
    )
    return Explanation(entity, bucket, scenario, metric, left, None, None, shares, {})


def named_bucket(store: Store, engine: Engine, name: str, text: str, scenario: Scenario = PLAIN, *, now: int) -> int:
    """Return the instant that a text names for a metric: a time, the first instant of a date of its buckets, which may
    be `yesterday`, or the month or week that a bucket is. Raises Invalid, NothingSelected for an unknown metric and
    UsageError for a wrong scenario."""
    unassumed = replace(resolved(store, scenario), assumptions=())
    [metric] = definitions(store, engine, unassumed, [name])
    return bucket_named(written_out(text, metric.buckets.offset_at(now), now), name, metric.buckets)


def _assumed(
    store: Store, engine: Engine, scenario: Scenario, metric: Metric, name: str, window: Window
) -> Iterator[tuple[Metric, Scenario]]:
    """Yield the definition and the scenario of each assumption, on top of those before it."""
    for number, assumption in enumerate(scenario.assumptions, start=1):
        under = Scenario(scenario.as_of, scenario.assumptions[:number])
        if isinstance(assumption, OtherDefinition):
            [metric] = definitions(store, engine, under, [name])
            if metric.buckets.widened(window) != window:
                raise other_buckets(metric)
        yield metric, under


def _compared(
    left: SideValue, right: SideValue | None, target: Knowledge, winners: Winners
) -> Iterator[tuple[Metric, Scenario]]:
    """Yield what the states between the two sides are computed from, before assumptions."""
    if right is not None and right.knowledge is None:
        if left.knowledge is not None:
            yield left.knowledge.metric, left.knowledge.scenario
        return
    yield target.metric, target.scenario
    if left.knowledge is not None and left.computed is not None:
        for known in (left.knowledge, *(known for _, known in steps(left.knowledge, target, winners))):
            yield known.metric, known.scenario


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
            hint="the entity stands after the metric; totals over all: "
            + command("diff", "aggregates", "--metric", metric.name, "--by", "bucket"),
        )


def other_buckets(metric: Metric) -> UsageError:
    """Return the error for a definition that is assumed, and has buckets of another size."""
    what = f"the assumed definition of {metric.name} has buckets of another size, so values cannot be explained by it"
    return UsageError(what, hint=command("metrics", "show", metric.name))
