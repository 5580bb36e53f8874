"""Planning a replay: which events, which buckets, and the tasks that compute them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from math import ceil

from msgspec import structs

from pik.errors import Damaged, Invalid, NothingSelected, UsageError
from pik.model.calendar import Buckets
from pik.model.entity_range import EVERY_ENTITY, EntityRange
from pik.model.ids import new_id
from pik.model.metric import ALL_ENTITIES, Metric, Per
from pik.model.run import Run, RunRequest, RunState, Task
from pik.model.share import Share
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine, TouchedBucket
from pik.ports.store import Store
from pik.rawlog.corrections import find_correction
from pik.rawlog.selection import Selection
from pik.runtime import exhaust
from pik.runtime.storage import Spool
from pik.usecases.availability import expect_held
from pik.usecases.inspect.events import nothing_selected
from pik.usecases.metrics.computation import (
    by_buckets,
    stretches,
    widest,
)
from pik.usecases.metrics.definitions import chosen, of_entities, pin, some
from pik.usecases.replay.chosen import chosen_buckets, overrides_of
from pik.usecases.replay.cut import entity_ranges


@dataclass(frozen=True, slots=True)
class TaskSize:
    """How much a task may have, so that a run has some tasks for each worker, none of them is small enough for its
    start to matter, and each is done in its time and in the scratch space of the smallest function: `deliveries` and
    `raw` bytes, where entities are not named. Where more than `named` entities are touched in a stretch of days, its
    tasks read all of them. What cannot be cut further and needs more than `together` bytes, which a task could read
    piece by piece, is shared by several tasks."""

    entities: int = 500
    days: int = 31
    deliveries: int = 150_000
    raw: int = 64 << 20
    together: int = 256 << 20
    named: int = 10_000


TASK_SIZE = TaskSize()


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that is not stored yet, and its tasks. `without_value` are those of several named entities that have
    neither an event nor a current value in the buckets."""

    run: Run
    tasks: Spool[Task]
    without_value: tuple[str, ...] = ()


def plan_replay(
    store: Store,
    engine: Engine,
    request: RunRequest,
    created_at: int,
    *,
    actor: str = "",
    run_id: str = "",
    count: bool = True,
    at_most: int | None = None,
    size: TaskSize = TASK_SIZE,
) -> Plan:
    """Plan the replay that `actor` requests, writing nothing; `run_id` is the run's, where it was given one already.

    Without `count` the events that an unfiltered request chooses are not counted, which is what takes long. Where raw
    is damaged their number is not known, and every bucket is planned. Raises as `replayable` does, NothingSelected
    where the store holds no events, and TooMuch where more than `at_most` lines would have to be read for counting.
    """
    metrics = replayable(store, request)
    effective = widest(request.window, metrics)
    corrections = max((one.recorded_at for one in store.corrections.recorded()), default=0)
    selection = Selection(store, effective, request.entities, overrides_of(request, corrections))
    planner = _Planner(selection, engine, request, count, at_most, size)
    run_id, tasks = run_id or new_id(), Spool(Task)
    for buckets, group in by_buckets(metrics):
        planner.events = 0  # the same ones for each of the groups
        names = tuple(pin(metric) for metric in group)
        for one in planner.rectangles(buckets, len(group), group[0].definition.per):
            for number in range(one.shares):
                task = Task(
                    run_id=run_id,
                    number=len(tasks),
                    metrics=names,
                    start=one.window.start,
                    end=one.window.end,
                    entities=tuple(one.entities),
                    entity_range=one.entity_range,
                    share=Share(number, one.shares),
                    known_until=one.known_until,
                )
                tasks.add(task)
    if not planner.events:
        expect_events(store)
    is_counted = count and not planner.damaged
    run = Run(
        run_id=run_id,
        request=request,
        actor=actor,
        state=RunState.PLANNED,
        created_at=created_at,
        finished_at=None,
        effective_start=effective.start,
        effective_end=effective.end,
        events_matched=planner.events if is_counted else None,
        buckets=planner.buckets if is_counted else None,
        tasks=len(tasks),
        corrections_until=corrections,
    )
    without_value: tuple[str, ...] = ()
    if is_counted and len(request.entities) > 1:
        absent = sorted(set(request.entities) - planner.entities)
        with_value = set(_with_value(store, request, metrics if absent else [], absent))
        without_value = tuple(entity for entity in absent if entity not in with_value)
    return Plan(run, tasks, without_value)


def replayable(store: Store, request: RunRequest) -> list[Metric]:
    """Return the metrics of the request, without those over all entities if it names some.

    Raises UsageError, Invalid for NAME@VERSION, NothingSelected for an unknown metric, NotFound for an unknown
    correction, and NotHeld where raw of the whole buckets has expired or was not pulled.
    """
    metrics, _ = _metrics(store, request)
    if request.correction is not None:
        find_correction(store, request.correction)
    expect_held(store, widest(request.window, metrics), request.entities)
    return metrics


def left_out_of(store: Store, request: RunRequest) -> tuple[str, ...]:
    """Return the metrics over all entities that the request leaves out, since it names some. Raises as `replayable`."""
    return _metrics(store, request)[1] if request.entities else ()


def _metrics(store: Store, request: RunRequest) -> tuple[list[Metric], tuple[str, ...]]:
    if "" in (request.source, request.event_type, *request.entities):
        raise UsageError("an entity, a source or a type is empty", hint="leave the option out to select all of them")
    if versioned := next((name for name in request.metrics if "@" in name), None):
        raise Invalid(
            f"metric {versioned!r}: a replay computes the latest definition",
            field="metrics",
            hint="leave @VERSION out; to compute an earlier definition without writing: pik diff aggregates",
        )
    return of_entities(some(chosen(store.metrics, request.metrics)), request.entities)


def expect_events(store: Store) -> None:
    """Raise NothingSelected if the store holds nothing at all."""
    if store.copy is None and next(store.index.segments(ALL_TIME), None) is None:
        raise NothingSelected("the store holds no events", hint="pik ingest FILE")


def limited(store: Store, engine: Engine, request: RunRequest, limit: int, at_most: int | None = None) -> RunRequest:
    """Return the request, or as much of its beginning as chooses at most `limit` events, cut where buckets of every
    chosen metric meet; the first of these is always whole. Raises NotHeld and Damaged, TooMuch where that takes more
    than `at_most` lines."""
    each = {metric.buckets for metric in replayable(store, request)}
    largest = max(each, key=lambda buckets: buckets.order)
    selection = Selection(store, request.window, request.entities, overrides_of(request))
    touched = chosen_buckets(selection, engine, request, largest, at_most)
    events, before, cut = 0, None, None
    for bucket, pairs in groupby(touched, key=lambda pair: pair.bucket):
        if before is not None:
            cut = _common_start(each, largest, before, bucket) or cut
        events += sum(pair.events for pair in pairs)
        if cut is not None and events > limit:
            return structs.replace(request, end=cut)
        before = bucket
    return request


def _common_start(each: Collection[Buckets], largest: Buckets, after: int, until: int) -> int | None:
    """Return the last instant in (after, until] at which buckets of all of these begin; None: there is none."""
    while until > after:
        if all(buckets.start_of(until) == until for buckets in each):
            return until
        until = largest.start_of(until - 1)
    return None


def expect_work(store: Store, run: Run) -> None:
    """Raise NothingSelected for a planned run that chose no event, if it also finds no current value that would become
    null."""
    request = run.request
    if run.events_matched == 0:
        metrics = replayable(store, request) if run.tasks else []
        if next(_with_value(store, request, metrics, request.entities), None) is None:
            raise nothing_selected(store, "nothing to replay", request.window, request.entities)


def expect_possible_work(store: Store, request: RunRequest) -> None:
    """Raise NothingSelected where the index alone shows that the request chooses nothing: there is no part of raw that
    may hold its entities, and no current value. Raw is not read. Raises as `replayable` does."""
    metrics = replayable(store, request)
    expect_events(store)
    selection = Selection(store, widest(request.window, metrics), request.entities, overrides_of(request))
    if next(selection.needed(), None) is None and not any(_with_value(store, request, metrics, request.entities)):
        raise nothing_selected(store, "nothing to replay", request.window, request.entities)


def _with_value(store: Store, request: RunRequest, metrics: Iterable[Metric], entities: Sequence[str]) -> Iterator[str]:
    """Yield the entities that have a current value in the request's buckets, once per value."""
    for metric in metrics:
        window = metric.buckets.widened(request.window)
        for each in store.aggregates.current(metric.name, window, entities):
            if each.computed.value is not None:
                yield each.computed.entity_id


def start(store: Store, plan: Plan) -> Run:
    """Store the planned run."""
    store.runs.create(plan.run, plan.tasks)
    return plan.run


@dataclass(frozen=True, slots=True)
class _Rectangle:
    """What one task covers, or a group of tasks with so many shares of what was recorded until then: whole buckets, and
    the named entities or, where none is named, a range of them."""

    window: Window
    entities: Sequence[str] = ()
    entity_range: EntityRange = EVERY_ENTITY
    shares: int = 1
    known_until: int = 0


@dataclass(slots=True)
class _Planner:
    """Cuts a request into the rectangles that its tasks cover, counting what it chooses:
    `buckets` of each metric, `entities` with events among the named ones. `damaged`: not all of its raw could be read.
    """

    selection: Selection
    engine: Engine
    request: RunRequest
    count: bool
    at_most: int | None
    size: TaskSize
    events: int = 0
    buckets: int = 0
    damaged: bool = False
    entities: set[str] = field(default_factory=set)

    def rectangles(self, buckets: Buckets, metrics: int, per: Per) -> Iterator[_Rectangle]:
        """Yield what the tasks of so many metrics with these buckets cover."""
        request = self.request
        windows = self._windows(buckets)
        pairs: Iterator[TouchedBucket] | None = None
        try:
            if request.chooses_buckets:
                touched = self._touched(request.window, buckets, None, per)
                pairs = chain(list(islice(touched, 1)), touched)  # by the first one all of their raw has been read
            elif self.count:
                self._count(buckets, metrics, per)
        except Damaged:  # a task finds what of its raw is damaged, and does what it can
            self.damaged |= self.count
        if pairs is None:
            for window in windows:
                yield from self._cut(window, request.entities, per)
            return
        ends = [window.end for window in windows]
        pairs = self._counted(pairs, metrics) if self.count else pairs
        for number, group in groupby(pairs, key=lambda pair: bisect_right(ends, pair.bucket)):
            yield from self._cut(windows[number], self._named(group), per)

    def _windows(self, buckets: Buckets) -> list[Window]:
        effective, entities = buckets.widened(self.request.window), self.request.entities
        first, last = effective.days
        if entities and last - first < self.size.days:
            return [effective]
        # The tasks of some entities are small however many others there are.
        deliveries = 0 if entities else self.size.deliveries
        within, size = self.selection.within(effective), self.size
        return stretches(within, buckets, days=size.days, deliveries=deliveries, size=size.raw)

    def _touched(self, window: Window, buckets: Buckets, at_most: int | None, per: Per) -> Iterator[TouchedBucket]:
        return chosen_buckets(self.selection.within(window), self.engine, self.request, buckets, at_most, per)

    def _count(self, buckets: Buckets, metrics: int, per: Per) -> None:
        """Count events of the requested window, and buckets of the whole ones that it touches: all those are
        computed."""
        window, whole = self.request.window, buckets.widened(self.request.window)
        exhaust(self._counted(self._touched(whole, buckets, self.at_most, per), metrics))
        if whole != window:
            self.events = sum(pair.events for pair in self._touched(window, buckets, self.at_most, per))

    def _counted(self, pairs: Iterable[TouchedBucket], metrics: int) -> Iterator[TouchedBucket]:
        for pair in pairs:
            self.events += pair.events
            self.buckets += metrics
            if self.request.entities:
                self.entities.add(pair.entity_id)
            yield pair

    def _named(self, pairs: Iterable[TouchedBucket]) -> Sequence[str]:
        """Return the entities of the pairs, in order, or those of the request where there are too many to name, or the
        pairs are of all together."""
        entities: set[str] = set()
        for pair in pairs:
            entities.add(pair.entity_id)
            if len(entities) > self.size.named:
                return self.request.entities
        return [] if entities == {ALL_ENTITIES} else sorted(entities)

    def _cut(self, window: Window, entities: Sequence[str], per: Per) -> Iterator[_Rectangle]:
        """Yield a stretch with as many of the named entities as a task may have, or where none is named with ranges of
        all of them."""
        selection, most = self.selection.within(window), self.size.entities
        if len(entities) > most:
            chunks = (entities[first : first + most] for first in range(0, len(entities), most))
            yield from (_Rectangle(window, chunk) for chunk in chunks)
        elif entities or per == Per.ALL:
            selection = selection.of(entities)
            size = sum(map(selection.size_of, selection.segments()))
            yield self._shared(selection, _Rectangle(window, entities), size)
        else:
            for one in entity_ranges(selection, self.size.deliveries, self.size.raw):
                yield self._shared(selection, _Rectangle(window, (), one.entities), one.size)

    def _shared(self, selection: Selection, rectangle: _Rectangle, size: int) -> _Rectangle:
        """Return the rectangle, shared by several tasks if it needs too many bytes of raw for one."""
        if size <= self.size.together:
            return rectangle
        return replace(rectangle, shares=ceil(size / self.size.raw), known_until=selection.known_until)
