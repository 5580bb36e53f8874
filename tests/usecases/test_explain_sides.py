"""Any two sides explained: every share is what a plain computation of each state in between gives."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import NothingSelected
from pik.inputs.source import file_source
from pik.model.instant import DAY, format_instant
from pik.model.metric import Definition
from pik.model.scenario import COUNTED_DUPLICATES, PLAIN, CountedDuplicates, Scenario
from pik.model.window import Window
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.metrics.causes import with_causes
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.diff_recorded import diff_recorded
from pik.usecases.metrics.explain import explain
from pik.usecases.metrics.explain_events import events_behind
from pik.usecases.metrics.file_numbers import FileRequest, file_numbers
from pik.usecases.metrics.imports import import_numbers, planned_import
from pik.usecases.metrics.sides import RecordedSide, Side, SideKind
from pik.usecases.replay.promote import promote, rollback
from tests.support.stores import FIRST, event, ingest, replay

ENGINE = DuckEngine(threads=1)
DAYS, ENTITIES = 2, "ab"
KEYS = [(FIRST + day * DAY, entity) for day in range(DAYS) for entity in ENTITIES]
Key = tuple[int, str]


def metric(factor: int) -> Definition:
    return Definition(name="total", value=f"{factor} * sum((payload->>'v')::BIGINT)")


@dataclass(frozen=True)
class Known:
    """What a value is computed from: so many batches, a factor, and whether duplicates count."""

    batches: int
    factor: int
    duplicates: bool = False


@dataclass
class History:
    """A store, and beside it what it was given and what a plain computation makes of that."""

    store: Store
    directory: Path
    batches: list[list[tuple[int, str, int]]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    factor: int = 1
    runs: dict[str, dict[Key, tuple[Known | None, Decimal | None]]] = field(default_factory=dict)
    moments: list[tuple[int, dict[Key, str]]] = field(default_factory=list)
    bases: dict[str, dict[Key, str]] = field(default_factory=dict)

    def value(self, known: Known, key: Key, *, lost: Sequence[int] = ()) -> tuple[Decimal | None, int]:
        """The value, and from how many deliveries."""
        seen: set[Any] = set()
        values = []
        for number, batch in enumerate(self.batches[: known.batches]):
            for day, entity, v in batch:
                if number in lost or (FIRST + day * DAY, entity) != key:
                    continue
                if known.duplicates or (day, entity, v) not in seen:
                    values.append(v)
                seen.add((day, entity, v))
        return (Decimal(known.factor * sum(values)) if values else None), len(values)

    def ingest(self, chance: random.Random) -> None:
        values = [chance.randrange(1, 9) for _ in range(4)] if self.batches else [10, 11, 12, 13]  # those come once
        made = [(chance.randrange(DAYS), chance.choice(ENTITIES), v) for v in values]
        made = [one for one in made if not self.holds_lost(one)]
        if made:
            events = [event(v, entity, f"0{1 + day}T{v:02}:00") for day, entity, v in made]
            ingest(self.store, self.directory, events, again=True)
            self.batches.append(made)

    def holds_lost(self, one: tuple[int, str, int]) -> bool:
        return any(one in self.batches[number] for number in self.lost)

    def run(self, chance: random.Random) -> None:
        duplicates = chance.random() < 0.4
        known = Known(len(self.batches), self.factor, duplicates)
        base = self.current
        run = replay(self.store, ENGINE, metrics=("total",), assumed=(COUNTED_DUPLICATES,) if duplicates else ())
        computed = {key: self.value(known, key, lost=sorted(self.lost))[0] for key in KEYS}
        self.runs[run.run_id] = {
            key: (known, value)
            for key, value in computed.items()
            if value is not None or (key in base and self.runs[base[key]][key][1] is not None)
        }
        if not duplicates and chance.random() < 0.8:
            at = 1000 * (1 + len(self.moments))
            promote(self.store, run.run_id, at, "", "ana")
            moved = dict.fromkeys(self.runs[run.run_id], run.run_id)
            self.moments.append((at, {**base, **moved}))
            self.bases[run.run_id] = base

    @property
    def current(self) -> dict[Key, str]:
        return self.moments[-1][1] if self.moments else {}

    def back(self) -> None:
        """Roll the last promotion back."""
        if not self.moments or not self.current:
            return
        last = next(reversed([run_id for run_id in self.runs if run_id in self.current.values()]))
        at = 1000 * (1 + len(self.moments))
        rollback(self.store, last, at, "", "ben")
        before = self.bases[last]
        now = {key: run_id for key, run_id in self.current.items() if run_id != last}
        now |= {key: before[key] for key, run_id in self.current.items() if run_id == last and key in before}
        self.moments.append((at, now))

    def take(self, chance: random.Random) -> None:
        """Import numbers of some keys."""
        numbers = {key: Decimal(chance.randrange(100, 200)) for key in chance.sample(KEYS, 3)}
        base, at = self.current, 1000 * (1 + len(self.moments))
        path = ledger(self.directory / "imported.csv", numbers)
        with planned_import(
            self.store, ENGINE, FileRequest(file_source(str(path))), "total", Window(), created_at=1
        ) as plan:
            run_id = import_numbers(self.store, plan, at).run.run_id
        self.runs[run_id] = {key: (None, value) for key, value in numbers.items()}
        self.moments.append((at, {**base, **dict.fromkeys(numbers, run_id)}))
        self.bases[run_id] = base

    def lose(self, chance: random.Random) -> None:
        """Lose a batch whose events came only once, and rebuild the index from what is left."""
        counts: dict[Any, int] = {}
        for batch in self.batches:
            for one in batch:
                counts[one] = counts.get(one, 0) + 1
        alone = [number for number, batch in enumerate(self.batches) if all(counts[one] == 1 for one in batch)]
        if alone and not self.lost:
            number = chance.choice(alone)
            batch_id = sorted(self.store.index.batches(), key=lambda one: one.recorded_at)[number].batch_id
            for path in (self.directory / "store" / "raw").rglob(f"{batch_id}-*.zst"):
                path.unlink()
            rebuild_index(self.store, SILENT)
            self.lost = {number}


def built(directory: Path, seed: int) -> History:
    chance = random.Random(seed)
    made = History(open_store(str(directory / "store"), create=True), directory)
    add_version(made.store.metrics, metric(1), 1)
    made.ingest(chance)
    for step in range(9):
        what = chance.random()
        if what < 0.35:
            made.ingest(chance)
        elif what < 0.75 or step == 2:
            made.run(chance)
        elif what < 0.85:
            made.back()
        elif what < 0.93:
            made.take(chance)
        else:
            made.factor = chance.choice([2, 3])
            add_version(made.store.metrics, metric(made.factor), step)
    made.run(chance)
    made.take(chance)
    made.ingest(chance)
    if seed % 2:
        made.lose(chance)
        assert made.lost
    return made


@dataclass(frozen=True)
class Versions:
    """What a side has: by key what it knew and its value, or of a file the value alone. `side` is None where it is
    recomputed."""

    side: Side | None
    values: dict[Key, tuple[Known | None, Decimal | None]]


def sides(made: History) -> Iterator[Versions]:
    yield Versions(Side(SideKind.CURRENT), {key: made.runs[run][key] for key, run in made.current.items()})
    for at, current in made.moments:
        yield Versions(Side(SideKind.CURRENT, at=at), {key: made.runs[run][key] for key, run in current.items()})
    for run, values in made.runs.items():
        yield Versions(Side(SideKind.RUN, run), dict(values))


def expected(made: History, left: Versions, right: Versions, key: Key, *, assumed: bool) -> dict[str, Decimal]:
    """The shares, from the rules of DESIGN alone."""
    zero = Decimal(0)

    def state(known: Known) -> tuple[Decimal, int]:
        value, inputs = made.value(known, key, lost=sorted(made.lost))
        return value or zero, inputs

    shares: dict[str, Decimal] = {}
    plain = Known(len(made.batches), made.factor)
    target, value = (plain, state(plain)[0]) if right.side is None else right.values.get(key, (None, None))
    value = value or zero
    version = left.values.get(key)
    before = zero if version is None else version[1] or zero
    is_file = left.side is not None and left.side.kind == SideKind.FILE
    if target is None:
        is_imported = key in right.values and (is_file or version is not None)
        return {"imported" if is_imported else "not computed": value - before} if value != before else {}
    at = state(target)[0]
    if is_file or (version is not None and version[0] is None):
        shares["imported"] = at - before
    elif version is None or version[0] is None:
        shares["not computed"] = at
    else:
        known = version[0]
        shares["lost"] = state(known)[0] - before
        steps = [("duplicates", Known(known.batches, known.factor, target.duplicates))]
        steps.append(("definition", Known(known.batches, target.factor, target.duplicates)))
        steps.append(("late", target))
        for cause, after in steps:
            shares[cause] = state(after)[0] - state(known)[0]
            known = after
    if right.side is not None:
        shares["lost"] = shares.get("lost", zero) + value - at
    elif assumed:
        twice = Known(target.batches, target.factor, True)
        shares["assumed"] = state(twice)[0] - at
    return {cause: share for cause, share in shares.items() if share}


def opened(made: History, stack: ExitStack, side: Side | None) -> Any:
    if side is None:
        return None
    if side.kind == SideKind.FILE:
        request = FileRequest(file_source(side.name))
        return stack.enter_context(file_numbers(made.store, ENGINE, request, Window(), metrics=["total"]))
    return RecordedSide(made.store, side)


def ledger(path: Path, numbers: Mapping[Key, Decimal]) -> Path:
    rows = [f"{format_instant(bucket)},{entity},{value}" for (bucket, entity), value in numbers.items()]
    path.write_text("\n".join(["day,entity,total", *rows]) + "\n")
    return path


def file_of(made: History, chance: random.Random) -> Versions:
    path = made.directory / "ledger.csv"
    values = {key: (None, Decimal(chance.randrange(40))) for key in KEYS[:-1]}
    ledger(path, {key: value for key, (_, value) in values.items()})
    return Versions(Side(SideKind.FILE, str(path)), dict(values))


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_every_share_is_what_a_plain_computation_of_each_state_gives(tmp_path: Path, seed: int) -> None:
    made, chance = built(tmp_path, seed), random.Random(seed)
    recorded = list(sides(made))
    recomputed = Versions(None, {})
    pairs = [(left, right) for left in [*recorded, file_of(made, chance)] for right in [recomputed, *recorded]]
    pairs = [(left, right) for left, right in pairs if left is not right]
    seen = 0
    file_and_import = pairs[-1]
    for left, right in [file_and_import, *chance.sample(pairs, min(len(pairs), 12))]:
        assumed = right.side is None and chance.random() < 0.5
        scenario = Scenario(None, (CountedDuplicates(),)) if assumed else PLAIN
        with ExitStack() as stack:
            one, two = opened(made, stack, left.side), opened(made, stack, right.side)
            if two is None:
                kind = {"file" if left.side and left.side.kind == SideKind.FILE else "left": one}
                diff: Any = diff_aggregates(made.store, ENGINE, Window(), metrics=["total"], scenario=scenario, **kind)
            else:
                diff = diff_recorded(made.store, one, two, metrics=["total"])
            try:
                rows = {(row.bucket, row.entity_id): row for row in with_causes(made.store, ENGINE, diff).rows}
            except NothingSelected:
                rows = {}
            for key, row in rows.items():
                wanted = expected(made, left, right, key, assumed=assumed)
                assert dict(row.causes) == wanted, (left.side, right.side, key)
                assert sum(wanted.values()) == (row.recomputed or 0) - (row.current or 0)
            key = KEYS[-1] if (left, right) == file_and_import else chance.choice(KEYS)  # the file lacks that one
            try:
                found = explain(made.store, ENGINE, "total", key[1], key[0], scenario, left=one, right=two, events=True)
            except NothingSelected:
                continue
            seen += 1
            shares = {f"{share.cause}": share.share for share in found.shares if share.share}
            assert shares == expected(made, left, right, key, assumed=assumed), (left.side, right.side, key)
            assert sum(shares.values()) == found.delta
            assert (found.shares[-1].cause, found.shares[-1].share) == (Cause.UNEXPLAINED, Decimal(0))
            assert len(list(events_behind(made.store, found))) >= sum(bool(one.events) for one in found.shares)
    assert seen > 5
