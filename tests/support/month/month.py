"""A store with the generated month, and the truth about it: what is done to one is done to the other."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from time import time_ns
from typing import Any

from pik.engine import DuckEngine
from pik.model.instant import parse_instant
from pik.model.metric import Definition, Per
from pik.model.run import RunRequest
from pik.model.window import Window
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.metrics.definitions import add_version
from pik.usecases.replay.execute import run_locally
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote, rollback
from tests.support.month.events import ENTITIES, FIRST, Event, Producer, day_of, in_zone, moved, thinned, without_hours
from tests.support.month.truth import DAY, Rule, Truth
from tests.support.stores import HERE, ingest

WINDOW = Window(parse_instant("2026-01-01T00:00:00Z"), parse_instant("2026-02-01T00:00:00Z"))
ENGINE = DuckEngine()


def _amount(event: Event) -> Decimal:
    return Decimal(event["payload"]["amount"])


def _is_paid(event: Event) -> bool:
    return bool(event["event_type"] == "paid")


_PAID = "event_type = 'paid'"
_SUM = "sum((payload->>'amount')::DECIMAL(18, 2))"
DEFINITIONS: dict[str, dict[int, tuple[Definition, Any]]] = {
    "revenue": {
        1: (Definition(name="revenue", value=_SUM, where=_PAID), lambda paid: sum(map(_amount, paid))),
        2: (
            Definition(
                name="revenue",
                value=f"{_SUM} - sum((payload->>'fee')::DECIMAL(18, 2))",
                where=_PAID,
            ),
            lambda paid: sum(_amount(one) - Decimal(one["payload"]["fee"]) for one in paid),
        ),
    },
    "largest": {
        1: (
            Definition(
                name="largest",
                value="max((payload->>'amount')::DECIMAL(18, 2))",
                where=_PAID,
                bucket="12h",
            ),
            lambda paid: max(map(_amount, paid)),
        )
    },
    "payers": {
        1: (
            Definition(name="payers", value="count(DISTINCT payload->>'payer')", per=Per.ALL, where=_PAID),
            lambda paid: Decimal(len({one["payload"]["payer"] for one in paid})),
        )
    },
}


@dataclass
class Month:
    """What is planted of a fault is named in `planted`: check, metric, cause, scope; the statistical ones in
    `statistical`: check, cause, scope."""

    directory: Path
    producer: Producer
    store: Store = field(init=False)
    truth: Truth = field(default_factory=Truth)
    planted: set[tuple[str, str, str, str]] = field(default_factory=set)
    statistical: set[tuple[str, str, str]] = field(default_factory=set)
    runs: int = 0
    quiet: set[int] = field(default_factory=set)
    """Days on which events are counted on: no raw of them is lost."""

    def __post_init__(self) -> None:
        self.store = open_store(str(self.directory / "store"), create=True)
        if not self.truth.rules:
            self.truth.rules["event_count"] = {1: Rule(DAY, lambda _: True, lambda events: Decimal(len(events)))}
            self.define("revenue", 1)
            self.define("largest", 1)
            self.define("payers", 1)

    def copied(self, directory: Path) -> Month:
        """The same month elsewhere."""
        shutil.copytree(self.directory / "store", directory / "store")
        state = {name: copy.deepcopy(getattr(self, name)) for name in ("producer", "planted", "statistical", "quiet")}
        return Month(directory, truth=copy.deepcopy(self.truth), runs=self.runs, **state)

    def define(self, metric: str, version: int) -> None:
        definition, value = DEFINITIONS[metric][version]
        add_version(self.store.metrics, definition, time_ns(), ENGINE.check(definition))
        rules = self.truth.rules.setdefault(metric, {})
        rules[version] = Rule(definition.buckets.size, _is_paid, value, definition.per == Per.ALL)

    def ingest(self, events: Iterable[Event], *, again: bool = False) -> str:
        some = list(events)
        ingest(self.store, self.directory, some, again=again)
        self.truth.ingest(some)
        return next(self.store.index.batches()).batch_id

    def computed(self, days: tuple[int, int] | None = None, entity: str | None = None) -> str:
        """A run, not promoted."""
        self.runs += 1
        first, last = days or (1, 31)
        begin = WINDOW.start + (first - 1) * DAY
        request = RunRequest(
            start=begin,
            end=begin + (last - first + 1) * DAY,
            entities=(entity,) if entity else (),
            reason=f"run {self.runs}",
        )
        run = start(self.store, plan_replay(self.store, ENGINE, request, time_ns())).run_id
        run_locally(self.store, ENGINE, run, HERE, SILENT)
        self.truth.replay(run, days, entity)
        return run

    def promote(self, run: str) -> None:
        promote(self.store, run, time_ns(), "because")
        self.truth.promote(run)

    def rollback(self, run: str) -> None:
        rollback(self.store, run, time_ns(), "because not")
        self.truth.rollback(run)

    def replayed(self, days: tuple[int, int] | None = None, entity: str | None = None) -> str:
        run = self.computed(days, entity)
        self.promote(run)
        return run

    def object_of(self, batch: int, day: int) -> tuple[str, Path]:
        """The raw object of a batch (from 1) and a day of the month."""
        batch_id = sorted(one.batch_id for one in self.store.index.batches())[batch - 1]
        start_of_day = WINDOW.start + (day - 1) * DAY
        segments = self.store.index.segments(Window(start_of_day, start_of_day + DAY), batch_id=batch_id)
        [key] = [segment.key for segment in segments]
        return key, self.directory / "store" / key


def clean(directory: Path, seed: int) -> Month:
    """A month without a fault, its numbers current: it came in five files, the second of which delivers some events
    again."""
    month = Month(directory, Producer(seed))
    fill(month, month.producer.month())
    return month


def fill(month: Month, events: list[Event]) -> None:
    size = len(events) // 4 + 1
    for place in range(0, len(events), size):
        again = month.producer.chance.sample(events[:place], 20) if place else []
        month.ingest([*again, *events[place : place + size]])
    month.replayed()


def faulty(directory: Path, seed: int) -> Month:
    """Every kind of fault that leaves raw whole, on days of its own or of others, as chance has it."""
    month = Month(directory, Producer(seed))
    chance = month.producer.chance
    fill(month, statistical_faults(month, month.producer.month()))
    late(month, (3, 28), 25)
    doubled(month)
    conflicting(month)
    rejected(month)
    late(month, (1, 31), 10)
    old_definition(month, days(chance, 9))
    wrong_rollback(month, days(chance, 7))
    partial_promotion(month, days(chance, 6))
    late(month, (1, 31), 10)
    return month


def days(chance: Any, count: int) -> tuple[int, int]:
    first = chance.randrange(1, 32 - count)
    return first, first + count - 1


def statistical_faults(month: Month, events: list[Event]) -> list[Event]:
    """A silence, a drop, a spike, a skewed clock and restamped retries: they come with the first delivery, and count as
    they come."""
    chance = month.producer.chance
    silent, thin, much, skewed = chance.sample(range(12, 30), 4)
    month.quiet |= {silent, thin, much, skewed, skewed + 1}
    events = without_hours(events, "web", silent, range(3, 15))
    events = thinned(events, "till", thin)
    hour = chance.randrange(24)
    extra = month.producer.some((much, much), 60, ("till",))
    extra = [{**one, "event_time": f"{one['event_time'][:11]}{hour:02}{one['event_time'][13:]}"} for one in extra]
    events += [{**one, "received_time": moved(one, timedelta(seconds=3))["event_time"]} for one in extra]
    events = in_zone(events, "app", range(skewed, skewed + 2), timedelta(hours=2))
    retried = chance.sample([one for one in events if day_of(one) in month.quiet], 15)
    events += [moved(one, timedelta(seconds=2)) for one in retried]
    month.statistical |= {("gaps", "silence", "web"), ("gaps", "drop", "till"), ("gaps", "spike", "till")}
    month.statistical |= {("skew", "", "app")} | {("suspects", "", one["source"]) for one in retried}
    return sorted(events, key=lambda one: str(one["received_time"]))


def late(month: Month, within: tuple[int, int], count: int) -> None:
    """Events that come after the numbers were computed; some of them are of no amount."""
    events = month.producer.some(within, count)
    for one in events[::5]:
        one["payload"] = {**one["payload"], "amount": "0.00", "fee": "0.00"}
    month.ingest(events)


def doubled(month: Month) -> None:
    """Exact duplicates, and a whole batch again: they change no number."""
    chance = month.producer.chance
    month.ingest(chance.sample([one.event for one in month.truth.deliveries], 40), again=True)
    month.ingest([one.event for one in month.truth.deliveries if one.batch == 2], again=True)


def conflicting(month: Month) -> None:
    """Keys that come again with another amount; some of them on another day."""
    first = [{**one, "idempotency_key": f"key {number}"} for number, one in enumerate(month.producer.some((2, 30), 12))]
    month.ingest(first)
    month.replayed()
    again = [{**one, "payload": {**one["payload"], "amount": "9999.99"}} for one in first]
    month.ingest([*again[:6], *(moved(one, timedelta(days=1)) for one in again[6:])])


def rejected(month: Month) -> None:
    """A batch with a record that is no event, beside one event of each entity."""
    some = [{**one, "entity_id": entity} for one, entity in zip(month.producer.some((5, 6), 4), ENTITIES, strict=True)]
    batch = month.ingest([*some, {**month.producer.event("", day_start(5)), "source": ""}])
    month.planted.add(("rejects", "", "", batch))


def day_start(day: int) -> Any:
    return FIRST + timedelta(days=day - 1)


def old_definition(month: Month, within: tuple[int, int]) -> None:
    """Revenue is defined anew, and computed anew of some days only."""
    month.define("revenue", 2)
    month.replayed(within)


def wrong_rollback(month: Month, within: tuple[int, int]) -> None:
    """What late events made right is rolled back."""
    late(month, within, 8)
    month.rollback(month.replayed(within))


def partial_promotion(month: Month, within: tuple[int, int]) -> None:
    """A run of one entity is promoted between another run and its promotion."""
    entity = month.producer.chance.choice(ENTITIES)
    part = month.computed(within, entity)
    late(month, within, 30)
    whole = month.computed(within)
    month.promote(part)
    month.promote(whole)


def lost(month: Month) -> None:
    """A raw object is deleted whose events came only once."""
    batch, day = _an_object(month)
    key, path = month.object_of(batch, day)
    path.unlink()
    _unreadable(month, batch, day, key, "missing")


def damaged(month: Month, batch: int | None = None) -> None:
    """A bit of a raw object (of a batch) is another one."""
    batch, day = _an_object(month, batch)
    key, path = month.object_of(batch, day)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    _unreadable(month, batch, day, key, "")


def late_and_damaged(month: Month) -> None:
    """Of what came after the numbers were computed, an object cannot be read: no number has counted its events."""
    late(month, (1, 31), 60)
    damaged(month, month.truth.batches)


def _an_object(month: Month, batch: int | None = None) -> tuple[int, int]:
    counts = Counter(one.identity for one in month.truth.deliveries)
    again = {(one.batch, one.day) for one in month.truth.deliveries if counts[one.identity] > 1}
    every = {(one.batch, one.day) for one in month.truth.deliveries if one.day not in month.quiet}
    every = {one for one in every if batch in (None, one[0])}
    return month.producer.chance.choice(sorted(every - again - month.truth.lost))


def _unreadable(month: Month, batch: int, day: int, key: str, kind: str) -> None:
    month.truth.lost.add((batch, day))
    month.planted.add(("damage", "", kind, key))
    month.planted |= {("differences", metric, "unreadable", "") for metric in month.truth.rules}


def planted(month: Month, entity: str | None = None) -> set[tuple[str, str, str, str]]:
    """What is planted: as it was noted, and what values and conflicts (of an entity) come to by now."""
    truth, found = month.truth, set(month.planted)
    found |= {("conflicts", "", "", source) for source in truth.conflicts(entity)}
    found |= {("promotions", metric, what, run) for metric, what, run in truth.left_behind(entity)}
    for key, shares in truth.shares().items():
        metric = key[0]
        if truth.unreadable(key) or entity not in (None, key[2]):
            continue
        found |= {("differences", metric, cause, "") for cause in shares.causes.keys() - {"late", "definition"}}
        if shares.late:
            found.add(("late events", metric, "late", ""))
    for key, run in truth.current.items():
        metric, version = key[0], truth.versions[key][run].definition
        if version != max(truth.rules[metric]) and entity in (None, key[2]):
            found.add(("old definitions", metric, "definition", f"{metric}@{version}"))
    return found
