"""The diff of the whole store, the diffs of its entities, and a plain model agree, whatever has happened before.

Definitions change their expression and the size of their buckets, runs are promoted in any order and rolled back, and
events keep coming. (Promises 6 and 7.)
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pik.engine import DuckEngine
from pik.errors import NothingSelected
from pik.model.instant import HOUR, format_instant
from pik.model.metric import EVENT_COUNT, Definition
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.metrics.comparison import Stats
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import Diff, diff_aggregates
from pik.usecases.replay.promote import promote, rollback
from tests.support.diffs import diff_run
from tests.support.stores import FIRST, PlainEngine, event, ingest, replay

ENTITIES = ("a", "b", "é")
BUCKETS = ("1h", "6h", "1d", "7d", "30d", "1mo", "1h Asia/Kolkata", "1d Europe/Berlin", "1w America/New_York")
"""The bucket of a definition, and its timezone."""

HOURS = st.integers(0, 24 * 10)
WINDOWS = st.one_of(
    st.just(ALL_TIME),
    st.tuples(HOURS, st.integers(1, 24 * 9)).map(
        lambda pair: Window(FIRST + pair[0] * HOUR, FIRST + (pair[0] + pair[1]) * HOUR)
    ),
)
SOME_ENTITIES = st.one_of(st.just(()), st.sampled_from(ENTITIES).map(lambda entity: (entity,)))
EVENTS = st.lists(st.tuples(st.sampled_from(ENTITIES), HOURS, st.booleans()), min_size=1, max_size=6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ingest"), EVENTS),
        st.tuples(st.just("define"), st.sampled_from(["m", "n"]), st.sampled_from(BUCKETS), st.booleans()),
        st.tuples(st.just("replay"), WINDOWS, SOME_ENTITIES, st.booleans()),
        st.tuples(st.just("promote"), st.integers(0, 9)),
        st.tuples(st.just("rollback"), st.integers(0, 9)),
        st.tuples(st.just("diff"), WINDOWS),
    ),
    max_size=8,
)
Step = tuple[Any, ...]
"""A method of History, and its arguments."""

Key = tuple[str, int, str]
"""metric, bucket, entity"""
Row = tuple[str, str, int, str, Decimal | None, Decimal | None]
"""op, metric, bucket, entity, current, recomputed"""


@dataclass
class Version:
    """What a run wrote of an aggregate, and which run's version was current then."""

    value: Decimal | None
    base: str | None


@dataclass
class Model:
    """The truth in dictionaries."""

    events: list[tuple[str, int, bool, int]] = field(default_factory=list)
    """entity, time, paid, value"""
    definitions: dict[str, Definition] = field(default_factory=lambda: {"event_count": EVENT_COUNT.definition})
    versions: dict[str, dict[Key, Version]] = field(default_factory=dict)
    windows: dict[str, tuple[Window, tuple[str, ...]]] = field(default_factory=dict)
    current: dict[Key, str] = field(default_factory=dict)

    def whole(self, metric: str, window: Window) -> Window:
        return self.definitions[metric].buckets.widened(window)

    def truth(self, window: Window, entities: tuple[str, ...] = ()) -> dict[Key, Decimal]:
        """Every value of the buckets that the window touches."""
        values: dict[Key, Decimal] = defaultdict(Decimal)
        for name, definition in self.definitions.items():
            for entity, at, paid, value in self.events:
                if at in self.whole(name, window) and (not entities or entity in entities):
                    key = name, definition.buckets.start_of(at), entity
                    if definition.where is None:
                        values[key] += 1
                    elif paid:
                        values[key] += value
        return dict(values)

    def value(self, key: Key) -> Decimal | None:
        return self.versions[self.current[key]][key].value if key in self.current else None

    def stands(self, window: Window, entities: tuple[str, ...] = ()) -> dict[Key, Decimal]:
        """Every current value in the buckets that the window touches."""
        found = {
            key: self.value(key)
            for key in self.current
            if key[1] in self.whole(key[0], window) and (not entities or key[2] in entities)
        }
        return {key: value for key, value in found.items() if value is not None}

    def replay(self, run: str, window: Window, entities: tuple[str, ...]) -> None:
        computed: dict[Key, Decimal | None] = dict.fromkeys(self.stands(window, entities))
        computed.update(self.truth(window, entities))
        self.versions[run] = {key: Version(value, self.current.get(key)) for key, value in computed.items()}
        whole = [self.whole(name, window) for name in self.definitions]
        self.windows[run] = Window(min(one.start for one in whole), max(one.end for one in whole)), entities

    def promote(self, run: str) -> None:
        for key, version in self.versions[run].items():
            if self.current.get(key) == version.base:
                self.current[key] = run

    def rollback(self, run: str) -> None:
        for key, version in self.versions[run].items():
            if self.current.get(key) == run:
                if version.base is None:
                    del self.current[key]
                else:
                    self.current[key] = version.base

    def diff(self, window: Window, entities: tuple[str, ...] = ()) -> tuple[list[Row], Stats]:
        return compared(self.stands(window, entities), self.truth(window, entities))

    def diff_run(self, run: str) -> tuple[list[Row], Stats]:
        written = {key: version.value for key, version in self.versions[run].items()}
        stands = {key: value for key in written if (value := self.value(key)) is not None}
        return compared(stands, {key: value for key, value in written.items() if value is not None})


def compared(left: dict[Key, Decimal], right: dict[Key, Decimal]) -> tuple[list[Row], Stats]:
    rows, counts = list[Row](), Counter[str]()
    for key in sorted(left.keys() | right.keys(), key=lambda key: (*key[:2], key[2].encode())):
        before, after = left.get(key), right.get(key)
        counts["compared"] += 1
        if before == after:
            counts["equal"] += 1
            continue
        op = "+" if before is None else "-" if after is None else "~"
        counts[{"+": "added", "-": "removed", "~": "changed"}[op]] += 1
        rows.append((op, *key, before, after))
    return rows, Stats(**counts)


def rows_of(diff: Diff) -> list[Row]:
    return [(row.op, row.metric, row.bucket, row.entity_id, row.current, row.recomputed) for row in diff.rows]


def expect(diff: Diff, rows: list[Row], stats: Stats) -> None:
    """The diff has these rows and counts; where the model compared nothing, reading it must say so instead."""
    if not stats.compared:
        with pytest.raises(NothingSelected):
            list(diff.rows)
        return
    assert rows_of(diff) == rows
    assert without_other_inputs(diff.stats) == stats


def without_other_inputs(stats: Stats) -> Stats:
    """Whether equal values came of other events is not the model's business."""
    return Stats(stats.compared, stats.equal, stats.tolerated, stats.changed, stats.added, stats.removed)


class History:
    """The same steps, done in a store and in the model."""

    def __init__(self, directory: Path, engine: Engine) -> None:
        self.directory, self.engine, self.model, self.runs = directory, engine, Model(), list[str]()
        self.store: Store = open_store(str(directory / "store"), create=True)

    def ingest(self, events: Iterable[tuple[str, int, bool]]) -> None:
        lines = []
        for entity, hour, paid in events:
            number, at = len(self.model.events), FIRST + hour * HOUR
            self.model.events.append((entity, at, paid, number))
            line = event(number, entity, "01T00:00", kind="paid" if paid else "seen")
            lines.append({**line, "event_time": format_instant(at)})
        ingest(self.store, self.directory, lines)

    def define(self, name: str, bucket: str, counts: bool) -> None:
        value, where = (
            ("count(*)", None) if counts else ("sum((payload->>'$.v')::DECIMAL(18,0))", "event_type = 'paid'")
        )
        bucket, _, zone = bucket.partition(" ")
        definition = Definition(name=name, value=value, where=where, bucket=bucket, timezone=zone or None)
        add_version(self.store.metrics, definition, 1)
        self.model.definitions[name] = definition

    def replay(self, window: Window, entities: tuple[str, ...], promoted: bool) -> None:
        run = replay(self.store, self.engine, window, entities=entities).run_id
        self.model.replay(run, window, entities)
        self.runs.append(run)
        if promoted:
            self.promote(-1)

    def promote(self, number: int) -> None:
        if self.runs:
            run = self.runs[number % len(self.runs)]
            promote(self.store, run, 1, "")
            self.model.promote(run)

    def rollback(self, number: int) -> None:
        if self.runs:
            run = self.runs[number % len(self.runs)]
            rollback(self.store, run, 1, "")
            self.model.rollback(run)

    def diff(self, window: Window) -> None:
        expected, stats = self.model.diff(window)
        whole = diff_aggregates(self.store, self.engine, window)
        expect(whole, expected, stats)
        named = diff_aggregates(self.store, self.engine, window, entities=ENTITIES)
        expect(named, expected, stats)
        if stats.compared:
            assert named.stats == whole.stats
        for entity in ENTITIES:
            alone = diff_aggregates(self.store, self.engine, window, entities=[entity])
            expect(alone, *self.model.diff(window, (entity,)))

    def diff_runs(self) -> None:
        for run in self.runs:
            expected, stats = self.model.diff_run(run)
            window = self.model.windows[run][0]
            expect(diff_run(self.store, run), [row for row in expected if row[2] in window], stats)


def play(directory: Path, engine: Engine, steps: list[Step], before: str, after: str) -> None:
    """A metric's bucket changes, and then whatever `steps` say."""
    history = History(directory, engine)
    history.ingest([(entity, hour, True) for hour in (0, 5, 23, 24, 24 * 7) for entity in "ab"])
    history.define("m", before, counts=False)
    history.replay(ALL_TIME, (), promoted=True)
    history.define("m", after, counts=False)
    for name, *arguments in steps:
        getattr(history, name)(*arguments)
    history.diff(ALL_TIME)
    history.diff_runs()


def check_history(steps, before, after):
    with tempfile.TemporaryDirectory() as directory:
        play(Path(directory), PlainEngine(), steps, before, after)


ANY = given(STEPS, st.sampled_from(BUCKETS), st.sampled_from(BUCKETS))
test_whole_store_entities_and_model_differ_alike_after_any_history = settings(
    max_examples=15, suppress_health_check=[HealthCheck.too_slow]
)(ANY(check_history))
test_whole_store_entities_and_model_differ_alike_after_any_history_for_long = pytest.mark.slow(
    settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])(ANY(check_history))
)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from(BUCKETS), st.sampled_from(BUCKETS))
def test_duckdb_too_differs_as_the_model_does_after_any_history(steps, before, after):
    with tempfile.TemporaryDirectory() as directory:
        play(Path(directory), DuckEngine(threads=1), steps, before, after)


OTHER_BUCKETS = [("1h", "1d"), ("1d", "7d"), ("6h", "30d"), ("1d", "1h"), ("7d", "1d"), ("1d", "1d Europe/Berlin")]


@pytest.mark.parametrize(
    ("engine", "before", "after"),
    [
        *((PlainEngine(), *buckets) for buckets in OTHER_BUCKETS),
        (DuckEngine(threads=1), *OTHER_BUCKETS[-1]),
        *(pytest.param(DuckEngine(threads=1), *buckets, marks=pytest.mark.slow) for buckets in OTHER_BUCKETS[:-1]),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_buckets_that_grow_or_shrink_leave_each_stale_value_once(tmp_path, engine, before, after):
    steps = [
        ("diff", ALL_TIME),
        ("diff", Window(FIRST + 23 * HOUR, FIRST + 25 * HOUR)),
        ("replay", ALL_TIME, (), True),
        ("diff", ALL_TIME),
        ("rollback", 0),
        ("rollback", 1),
    ]
    play(tmp_path, engine, steps, before, after)
