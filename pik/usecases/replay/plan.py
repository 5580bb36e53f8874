"""Planning a replay: which events, which buckets, and the tasks that compute them."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from math import lcm
from tempfile import TemporaryFile
from typing import IO

import msgspec
from msgspec import structs
from ulid import ULID

from pik.errors import Damaged, NothingSelected, UsageError
from pik.model.metric import Metric
from pik.model.run import Run, RunRequest, RunState, Task
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine, Touched
from pik.ports.store import Store
from pik.rawlog.selection import Selection
from pik.usecases.availability import expect_held
from pik.usecases.inspect.events import nothing_selected
from pik.usecases.metrics.computation import Budget, by_bucket_size, stretches, widest
from pik.usecases.metrics.definitions import chosen, pin

ENTITIES_A_TASK = 500
DAYS_A_TASK = 31
DELIVERIES_A_TASK = 150_000
"""So that a run has some tasks for each worker, and none of them is small enough for its start to matter."""

_NAMED_AT_MOST = 10_000
"""Entities that a stretch of days may name in its tasks; where more are touched its one task looks at all of them."""


class TaskFile:
    """Tasks in a temporary file: a plan may have more of them than memory has room for."""

    def __init__(self) -> None:
        self._file: IO[bytes] = TemporaryFile()  # noqa: SIM115 - it ends with this object
        self.tasks = 0

    def add(self, task: Task) -> None:
        self._file.write(msgspec.json.encode(task) + b"\n")
        self.tasks += 1

    def __iter__(self) -> Iterator[Task]:
        self._file.seek(0)
        return map(msgspec.json.Decoder(Task).decode, self._file)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that is not stored yet, its tasks, and what its request chose (of nothing, where that was not counted).
    `without_value` are those of several named entities that have neither an event nor a current value in the buckets.
    """

    run: Run
    tasks: TaskFile
    counts: Counted
    without_value: tuple[str, ...] = ()


def plan_replay(
    store: Store,
    engine: Engine,
    request: RunRequest,
    created_at: int,
    *,
    run_id: str = "",
    count: bool = True,
    at_most: int | None = None,
) -> Plan:
    """Plan the replay of a request, writing nothing; `run_id` is the run's, where it was given one already. Without
    `count` nobody counts what an unfiltered request chooses, which is what takes long. Where raw is damaged
    that is not known, and every bucket is planned. Raises as `replayable` does, NothingSelected where the store holds
    no events, and TooMuch where more than `at_most` lines would have to be read for counting."""
    metrics = replayable(store, request)
    run_id, tasks, counts = run_id or str(ULID()), TaskFile(), Counted()
    for size, group in by_bucket_size(metrics):
        counts.events = 0  # the same ones for each size
        names = tuple(pin(metric) for metric in group)
        counting = _Counting(len(group), counts, at_most, bool(request.entities)) if count else None
        for window, entities in _rectangles(store, engine, request, size, counting):
            number, between = tasks.tasks, (window.start, window.end)
            tasks.add(_task(run_id, number, names, between, tuple(entities)))
    if not counts.events:
        expect_events(store)
    effective = widest(request.window, metrics)
    run = Run(
        run_id=run_id,
        request=request,
        state=RunState.PLANNED,
        created_at=created_at,
        finished_at=None,
        effective_start=effective.start,
        effective_end=effective.end,
        events_matched=counts.events if count and not counts.damaged else None,
        buckets=counts.buckets if count and not counts.damaged else None,
        tasks=tasks.tasks,
    )
    return Plan(run, tasks, counts, _without_value(store, run, metrics, counts) if count else ())


def _without_value(store: Store, run: Run, metrics: Sequence[Metric], counts: Counted) -> tuple[str, ...]:
    if len(run.request.entities) < 2 or counts.damaged:
        return ()
    absent = set(run.request.entities) - counts.entities
    for metric in metrics if absent else ():
        window = run.request.window.widened(metric.bucket_size)
        for each in store.aggregates.current(metric.name, window, sorted(absent)):
            if each.computed.value is not None:
                absent.discard(each.computed.entity_id)
    return tuple(sorted(absent))


def replayable(store: Store, request: RunRequest) -> list[Metric]:
    """The metrics of the request.

    Raises UsageError, NothingSelected for an unknown metric, and NotHeld where raw of the whole buckets has expired or
    was not pulled.
    """
    if "" in (request.source, request.event_type, *request.entities):
        raise UsageError("an entity, a source or a type is empty", hint="leave the option out to take all of them")
    metrics = chosen(store.metrics, request.metrics)
    expect_held(store, widest(request.window, metrics), request.entities)
    return metrics


def expect_events(store: Store) -> None:
    """Raises NothingSelected if the store holds nothing at all."""
    if store.copy is None and next(store.index.segments(ALL_TIME), None) is None:
        raise NothingSelected("the store holds no events", hint="pik ingest FILE")


def limited(store: Store, engine: Engine, request: RunRequest, limit: int, at_most: int | None = None) -> RunRequest:
    """The request, or as much of its beginning as chooses at most `limit` events, cut where buckets of every chosen
    metric meet; the first of these is always whole. Raises NotHeld and Damaged, TooMuch where that takes more than
    `at_most` lines."""
    metrics = chosen(store.metrics, request.metrics)
    expect_held(store, widest(request.window, metrics), request.entities)
    size = lcm(*(metric.bucket_size for metric in metrics))
    events = 0
    touched = _touched(store, engine, request, request.window, size, at_most)
    for bucket, pairs in groupby(touched, key=lambda pair: pair.bucket):
        before, events = events, events + sum(pair.events for pair in pairs)
        if before and events > limit:
            return structs.replace(request, end=bucket)
    return request


def expect_work(store: Store, run: Run) -> None:
    """Raises NothingSelected for a planned run that chose no event, if it also finds no current value that would
    become null."""
    if run.events_matched != 0:
        return
    request = run.request
    if run.tasks:
        for metric in chosen(store.metrics, request.metrics):
            window = request.window.widened(metric.bucket_size)
            current = store.aggregates.current(metric.name, window, request.entities)
            if any(each.computed.value is not None for each in current):
                return
    raise nothing_selected(store, "nothing to replay", request.window, request.entities)


def start(store: Store, plan: Plan) -> Run:
    """Store the planned run."""
    store.runs.create(plan.run, plan.tasks)
    return plan.run


def _task(
    run_id: str, number: int, names: tuple[str, ...], between: tuple[int, int], entities: tuple[str, ...]
) -> Task:
    return Task(run_id=run_id, number=number, metrics=names, start=between[0], end=between[1], entities=entities)


@dataclass(slots=True)
class Counted:
    """What a request chooses; `buckets` counts each metric's own. `damaged`: not all of its raw could be read.
    `entities` are those with events among the named ones."""

    events: int = 0
    buckets: int = 0
    damaged: bool = False
    entities: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Counting:
    """How what a request chooses is counted: for so many metrics, reading at most so many lines."""

    metrics: int
    counts: Counted
    at_most: int | None
    named: bool
    """Whether entities were named, and which of these have events is noted."""

    def noted(self, pairs: Iterable[Touched]) -> Iterator[Touched]:
        for pair in pairs:
            self.counts.events += pair.events
            self.counts.buckets += self.metrics
            if self.named:
                self.counts.entities.add(pair.entity_id)
            yield pair


def _rectangles(
    store: Store, engine: Engine, request: RunRequest, size: int, counting: _Counting | None
) -> Iterator[tuple[Window, Sequence[str]]]:
    """What the tasks of metrics with buckets of `size` cover: whole buckets, and entities (none: all)."""
    cut = _stretches(store, request, size)
    pairs: Iterator[Touched] | None = None
    try:
        if request.source is not None or request.event_type is not None:
            pairs = _begun(_touched(store, engine, request, request.window, size))
        elif counting is not None:
            _count(store, engine, request, size, counting)
    except Damaged:  # a task tells what of its raw is damaged, and does what it can
        if counting is not None:
            counting.counts.damaged = True
    if pairs is None:
        for window in cut:
            yield from ((window, chunk) for chunk in _chunks(request.entities))
        return
    ends = [window.end for window in cut]
    pairs = counting.noted(pairs) if counting else pairs
    for number, group in groupby(pairs, key=lambda pair: bisect_right(ends, pair.bucket)):
        entities = _named(group, request.entities)
        yield from ((cut[number], chunk) for chunk in _chunks(entities))


def _begun(pairs: Iterator[Touched]) -> Iterator[Touched]:
    """The same; all of their raw has been read."""
    return chain(list(islice(pairs, 1)), pairs)


def _stretches(store: Store, request: RunRequest, size: int) -> list[Window]:
    effective = request.window.widened(size)
    first, last = effective.days
    if request.entities and last - first < DAYS_A_TASK:
        return [effective]
    # The tasks of some entities are small however many others there are.
    budget = Budget(DAYS_A_TASK, 0 if request.entities else DELIVERIES_A_TASK)
    return stretches(store, effective, size, request.entities, budget)


def _count(store: Store, engine: Engine, request: RunRequest, size: int, counting: _Counting) -> None:
    """Count events of the requested window, and buckets of the whole ones that it touches: all those are computed."""
    whole = request.window.widened(size)
    deque(counting.noted(_touched(store, engine, request, whole, size, counting.at_most)), maxlen=0)
    if whole != request.window:
        within = _touched(store, engine, request, request.window, size, counting.at_most)
        counting.counts.events = sum(pair.events for pair in within)


def _touched(
    store: Store, engine: Engine, request: RunRequest, window: Window, size: int, at_most: int | None = None
) -> Iterator[Touched]:
    entities, duplicates = request.entities, request.include_duplicates
    with Selection(store, window, entities).gather(include_duplicates=duplicates, at_most=at_most) as gathered:
        if not gathered.empty:
            yield from engine.touched(
                gathered.inputs,
                size,
                window,
                entities=entities,
                source=request.source,
                event_type=request.event_type,
            )


def _named(pairs: Iterable[Touched], otherwise: Sequence[str]) -> Sequence[str]:
    """The entities of the pairs, in order, or where there are too many to name `otherwise`."""
    entities: set[str] = set()
    for pair in pairs:
        entities.add(pair.entity_id)
        if len(entities) > _NAMED_AT_MOST:
            return otherwise
    return sorted(entities)


def _chunks(entities: Sequence[str]) -> Iterator[Sequence[str]]:
    """The entities by as many as a task may have; none at all are one chunk, which stands for every entity."""
    for first in range(0, len(entities) or 1, ENTITIES_A_TASK):
        yield entities[first : first + ENTITIES_A_TASK]
