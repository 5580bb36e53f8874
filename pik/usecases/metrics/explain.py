"""Why two sides of a comparison differ in one value: the difference, split by cause.

The causes are applied one after the other, from the left side to the right: lost, duplicates, definition, late,
verdict, corrected, assumed, unexplained. The share of each is by how much the value changes then, so shares add up to
the difference exactly. docs/investigating.md explains the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice

from pik.errors import NothingSelected, UsageError, command, number_of
from pik.inputs.bucket_texts import bucket_named
from pik.model.aggregate import Computed
from pik.model.calendar import covering
from pik.model.correction import Correction
from pik.model.delivery import Delivery, event_id_text
from pik.model.instant import display_instant, format_instant
from pik.model.metric import ALL_ENTITIES, Metric, entities_of, entity_text
from pik.model.scenario import PLAIN, OtherDefinition, Scenario
from pik.model.typed_times import written_out
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.corrected import ever_moved
from pik.rawlog.objects import frame_lines, parse
from pik.rawlog.selection import Overrides, Selection
from pik.runtime.storage import Spool
from pik.usecases.availability import expect_held
from pik.usecases.inspect.near_names import did_you_mean
from pik.usecases.metrics.chain import (
    EXACT,
    Cause,
    Knowledge,
    counts_same,
    inputs_of,
    is_short,
    knowledge_at,
    steps,
    value_of,
)
from pik.usecases.metrics.definitions import pin
from pik.usecases.metrics.file_numbers import FileNumbers
from pik.usecases.metrics.scenario import definitions, resolved
from pik.usecases.metrics.side_values import SideValue, side_value
from pik.usecases.metrics.sides import LEFT, RecordedSide
from pik.usecases.metrics.states import NOTHING, Change, State, States, computed_states, options_of
from pik.usecases.metrics.unread import NO_BOUNDS, NOTHING_UNREAD, Bounds, Unread, bounds
from pik.usecases.metrics.winners import Winners
from pik.usecases.metrics.zones import MovedZones


@dataclass(frozen=True, slots=True)
class Share:
    """A cause, and by how much it changes the value. `events` is how many deliveries count on one side of it only, or
    at another time; None: they cannot be known. `changes` are these, if they were asked for. A share that is not
    `proven` is inferred. `side` is the one whose version the cause says something about, `correction` the correction,
    revocation or rebuild that is the cause."""

    cause: Cause
    share: Decimal
    proven: bool
    detail: str
    events: int | None = 0
    changes: Iterable[Change] = ()
    side: SideValue | None = None
    correction: Correction | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A metric's value of one entity and bucket (its start, nanoseconds) on the left and on the right, with the causes
    of the difference.

    The right value was recomputed under the scenario by the definition `metric`, unless it is that of the side `right`.
    `unreadable` are the frames of raw that values are computed without, by object and offset; `unread` are the
    deliveries in them that may count in the recomputed value, which is within the `bounds` with them. `moves` is by how
    much (in nanoseconds) the scenario moves deliveries to a later and to an earlier time, at most.
    """

    entity_id: str
    bucket: int
    scenario: Scenario
    metric: Metric
    left: SideValue
    right: SideValue | None
    recomputed: Computed | None
    shares: tuple[Share, ...]
    unreadable: Mapping[str, frozenset[int]]
    moves: tuple[int, int] = (0, 0)
    unread: Unread = NOTHING_UNREAD
    bounds: Bounds = NO_BOUNDS

    @property
    def is_complete(self) -> bool:
        """Whether the right value is known: it is recorded, or nothing that may count in it is unreadable."""
        return not self.unread.segments

    @property
    def unread_since(self) -> int | None:
        """How many of the unread deliveries were recorded after the left version was computed, at most: whether it is
        proven says nothing of them. None: not known."""
        version = self.left.version
        return None if version is None or version.is_imported else self.unread.events(version.known_until)

    @property
    def delta(self) -> Decimal:
        """right - left; a missing value counts as 0. The sum of all shares."""
        return EXACT.subtract(value_of(self.recomputed), self.left.value)

    @property
    def lost(self) -> list[str]:
        """The objects of raw that cannot be read, or frames of them."""
        return sorted(self.unreadable)

    @property
    def proven(self) -> bool | None:
        """Whether the recorded versions counted exactly what raw still holds of what they knew; None: there is none."""
        recorded = [side for side in (self.left, self.right) if side is not None and side.version is not None]
        known = [side.proven for side in recorded if side.version is not None and side.version.run_id]
        return all(known) if known else None


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
        chain = _Chain(store, states, winners, before, after, target, with_events=events)
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


class _Chain:
    """The states of a value from the left side to the right, and the shares between them."""

    def __init__(
        self,
        store: Store,
        states: States,
        winners: Winners,
        left: SideValue,
        right: SideValue | None,
        target: Knowledge,
        *,
        with_events: bool,
    ) -> None:
        """`target` is what the right value is computed from."""
        self.store, self.states, self.winners = store, states, winners
        self.left, self.right, self.target = left, right, target
        self.shares: list[Share] = []
        self._moved = MovedZones(store)
        self._with_events = with_events
        self._last: State | None = None

    def compare(self) -> None:
        """Add the shares between the two sides, before assumptions."""
        left, right = self.left, self.right
        if right is not None and right.knowledge is None:
            self._without_inputs(right)
            return
        last = self._last = self.states.at(self.target.metric, self.target.scenario)
        if right is not None and right.computed is not None:
            self.right = right = replace(right, proven=counts_same(last.computed, right.computed))
        is_right = right is None or right.proven
        if left.knowledge is not None and left.computed is not None:
            self._computed(left, left.knowledge, is_right=is_right)
        elif left.is_outside:
            delta = EXACT.subtract(last.value, left.value)
            self.shares.append(Share(Cause.IMPORTED, delta, False, left.origin, None, side=left))
        elif last.computed is not None:
            share = self._share(Cause.NOT_COMPUTED, NOTHING, last, is_right, left.origin)
            self.shares.append(replace(share, side=left))
        if right is not None and right.computed is not None and is_short(last.computed, right.computed):
            self._lose(right, EXACT.subtract(right.value, last.value), _lost(last, right, "the right side"))

    def _without_inputs(self, right: SideValue) -> None:
        """Add the one share of a right side that has no version, or one that was imported."""
        left, share = self.left, EXACT.subtract(right.value, self.left.value)
        if left.knowledge is not None and left.computed is not None:
            found = self.states.at(left.knowledge.metric, left.knowledge.scenario).computed
            self.left = left = replace(left, proven=counts_same(found, left.computed))
        if left.version is None and right.version is None:
            return
        if right.version is not None and (left.version is not None or left.is_file):
            self.shares.append(Share(Cause.IMPORTED, share, False, right.origin, None, side=right))
            return
        missing = right if right.version is None else left
        detail = f"{missing.name}: {missing.origin}"
        self.shares.append(Share(Cause.NOT_COMPUTED, share, True, detail, None, side=missing))

    def _computed(self, left: SideValue, knowledge: Knowledge, *, is_right: bool) -> None:
        """Add the shares between a computed left version and what the right side is computed from."""
        at, version = self.states.at(knowledge.metric, knowledge.scenario), left.computed
        assert version is not None
        is_left = counts_same(at.computed, version)
        self.left = left = replace(left, proven=is_left)
        moved = None if is_left else self._moved.of(left.run_id, knowledge.metric, version.bucket)
        if moved is not None:
            delta = EXACT.subtract(at.value, left.value)
            self.shares.append(Share(Cause.DEFINITION, delta, False, moved, None, side=left))
        elif not is_left and is_short(at.computed, version):
            self._lose(left, EXACT.subtract(at.value, left.value), _lost(at, left, "it"))
        before = knowledge
        for cause, known in steps(knowledge, self.target, self.winners):
            after, correction = self.states.at(known.metric, known.scenario), None
            if cause == Cause.DUPLICATES:
                detail = _duplicates(self.states, at, after, left, self.right)
            elif cause == Cause.DEFINITION:
                detail = f"computed with {pin(knowledge.metric)}; {self._defined(known.metric)}"
                if at.value != after.value and not self.states.changed(at, after):
                    detail += f", from the same {number_of(inputs_of(after.computed), 'event')}"
            elif at.value == after.value and not self.states.changed(at, after):
                detail = ""
            elif cause == Cause.VERDICT:
                correction = self.winners.change(max(before.corrected, known.corrected))
                detail = _verdict(correction, self.states.changed_events(at, after))
            elif cause == Cause.CORRECTED:
                correction = self.winners.correction(max(before.corrections, known.corrections))
                detail = _corrected(correction)
            else:
                detail = _late(self.store, self.states, at, after, knowledge, known)
            if detail:
                is_proven = is_left and (is_right or known != self.target)
                share = self._share(cause, at, after, is_proven, detail)
                self.shares.append(replace(share, side=left, correction=correction))
            at, before = after, known

    def _defined(self, metric: Metric) -> str:
        return f"recomputed with {pin(metric)}" if self.right is None else f"{self.right.name} with {pin(metric)}"

    def _lose(self, side: SideValue, share: Decimal, detail: str) -> None:
        """Add what a side counted and raw does not hold any more. Its events are not known."""
        if self.shares and self.shares[0].cause == Cause.LOST:
            first = self.shares.pop(0)
            share, detail = EXACT.add(first.share, share), f"{first.detail}; {detail}"
        self.shares.insert(0, Share(Cause.LOST, share, False, detail, None, side=side))

    def assume(self, text: str, metric: Metric, scenario: Scenario) -> None:
        """Add the share of an assumption, the last one of the scenario."""
        before = self._last
        assert before is not None
        self._last = self.states.at(metric, scenario)
        self.shares.append(self._share(Cause.ASSUMED, before, self._last, True, text))

    def explanation(self, entity: str, bucket: int, scenario: Scenario, metric: Metric) -> Explanation:
        """Return the explanation: what is left is unexplained."""
        last = NOTHING if self._last is None else self._last
        recomputed = last.computed if self.right is None else self.right.computed
        rest = EXACT.subtract(value_of(recomputed), self.left.value)
        for one in self.shares:
            rest = EXACT.subtract(rest, one.share)
        is_proven = self.left.proven and (self.right is None or self.right.proven)
        unread = self.states.unread if self.right is None else NOTHING_UNREAD
        if unread.segments:  # what would count of them may belong to any cause
            self.shares = [replace(one, proven=False) for one in self.shares]
        certain = (is_proven or not rest) and not unread.segments and all(one.proven for one in self.shares)
        unexplained = Share(Cause.UNEXPLAINED, rest, certain, "what no cause accounts for")
        return Explanation(
            *(entity, bucket, scenario, metric, self.left, self.right, recomputed),
            (*self.shares, unexplained),
            self.states.unreadable,
            last.moves,
            unread,
        )

    def _share(self, cause: Cause, before: State, after: State, proven: bool, detail: str) -> Share:
        changed = self.states.changed(before, after)
        changes = Spool(Change, self.states.changes(before, after)) if self._with_events and changed else ()
        return Share(cause, EXACT.subtract(after.value, before.value), proven, detail, changed, changes)


@dataclass(frozen=True, slots=True)
class CauseEvent:
    """A delivery behind a cause, as it is in raw; `delivery` is None for one that is only assumed."""

    cause: Cause
    detail: str
    change: Change
    delivery: Delivery | None


AT_ONCE = 20_000
"""Events behind a cause that are held in memory."""


def events_behind(store: Store, explanation: Explanation) -> Iterator[CauseEvent]:
    """Yield the deliveries behind each cause, in the order of the causes and then of event_id. Raises Damaged."""
    for share in explanation.shares:
        changes = iter(share.changes)
        while some := list(islice(changes, AT_ONCE)):
            found = _deliveries(store, explanation, some)
            for one in some:
                yield CauseEvent(share.cause, share.detail, one, found.get((one.batch_id, one.seq)))


def _deliveries(store: Store, explanation: Explanation, changes: Sequence[Change]) -> dict[tuple[str, int], Delivery]:
    """Return these deliveries, by batch and seq."""
    wanted = {(one.batch_id, one.seq) for one in changes}
    event_ids = {one.event_id.encode() for one in changes}
    found: dict[tuple[str, int], Delivery] = {}
    times = [one.event_time * 1000 for one in changes]
    window, moves = Window(min(times), max(times) + 1000), explanation.moves
    # Those that are only counted at another time than their own are where that moved them from.
    corrected = ever_moved(store)
    overrides = Overrides(unreadable=explanation.unreadable, later=moves[0], earlier=moves[1], corrected=corrected)
    for segment, frames in Selection(store, window, entities_of(explanation.entity_id), overrides).needed():
        for frame in frames:
            for line in frame_lines(store.raw, segment, frame):
                if event_id_text(line) in event_ids:
                    delivery = parse(segment.key, line)
                    place = delivery.batch_id, delivery.seq
                    if place in wanted:
                        found[place] = delivery
    return found


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


def _verdict(change: Correction, count: int) -> str:
    by = f" by {change.actor}" if change.actor else ""
    return (
        f"the rebuild of the index {change.correction_id}, {display_instant(change.recorded_at)}{by},"
        f" changed which delivery of {number_of(count, 'event')} counts"
    )


def _corrected(correction: Correction) -> str:
    by = f" by {correction.actor}" if correction.actor else ""
    what = f"revokes {correction.revokes}" if correction.revokes else correction.statement
    at = display_instant(correction.recorded_at)
    return f"correction {correction.correction_id}, {at}{by}: {what} ({correction.reason})"


def _lost(found: State, side: SideValue, counted: str) -> str:
    now, then = inputs_of(found.computed), inputs_of(side.computed)
    return f"{then - now:,} of the {then:,} deliveries that {counted} counted are not in raw any more"


def _duplicates(states: States, before: State, after: State, left: SideValue, right: SideValue | None) -> str:
    """Return which side counted duplicates, and how many."""
    more, side = (before, left) if left.knowledge and left.knowledge.duplicates else (after, right)
    less = after if more is before else before
    assert side is not None
    only_there = sum(count for _, count in states.batches_of_new(less, more))
    return f"{side.name} counted {only_there:,} duplicates"


_NAMED = 3
"""Batches of late deliveries that are named, at most."""


def _late(store: Store, states: States, before: State, after: State, left: Knowledge, right: Knowledge) -> str:
    """Return when the deliveries were recorded that one side knew and the other did not, and in which batches."""
    if right.until is None or (left.until is not None and left.until < right.until):
        since, batches = left.until, states.batches_of_new(before, after)
        not_known = ""
    else:
        since, batches = right.until, states.batches_of_new(after, before)
        not_known = ", which the right side does not know"
    assert since is not None
    named = ", ".join(
        f"{batch_id} ({next(store.index.batches(batch_id)).origin.name})" for batch_id, _ in batches[:_NAMED]
    )
    if len(batches) > _NAMED:
        named += f" and {len(batches) - _NAMED:,} more batches"
    among = f" in {named}" if batches else " among them"
    when = f"after {display_instant(since)}" if since else "where nothing had been recorded before"
    return f"{sum(count for _, count in batches):,} recorded {when},{among}{not_known}"
