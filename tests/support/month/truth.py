"""What the numbers are, what they should be, and why they differ: computed from the events in plain Python."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property

from tests.support.month.events import Event, day_of

Key = tuple[str, int, str]
"""A metric, the start of a bucket (nanoseconds) and an entity (empty: all)."""

ZERO = Decimal(0)
DAY = 86_400 * 10**9


@dataclass(eq=False)
class Delivery:
    """One arrival of an event."""

    batch: int
    seq: int
    event: Event

    @cached_property
    def day(self) -> int:
        return day_of(self.event)

    @cached_property
    def identity(self) -> str:
        return identity(self.event)

    @cached_property
    def at(self) -> int:
        return instant(self.event["event_time"])


@dataclass(frozen=True)
class Version:
    """A value that a run wrote: under which definition, knowing so many batches, beside which other one."""

    run: str
    value: Decimal | None
    definition: int
    known: int
    base: str | None


@dataclass(frozen=True)
class Rule:
    """A definition: the size of its buckets, which events count, and what they come to."""

    size: int
    counts: Callable[[Event], bool]
    value: Callable[[list[Event]], Decimal]
    over_all: bool = False
    """One value for all entities."""


@dataclass
class Shares:
    """Why a current value (None: there is none) is not the right one."""

    current: Decimal | None
    right: Decimal | None
    causes: dict[str, Decimal]
    late: int


@dataclass
class Truth:
    """Follows what is done to a store."""

    deliveries: list[Delivery] = field(default_factory=list)
    lost: set[tuple[int, int]] = field(default_factory=set)
    """Raw objects that cannot be read: a batch and a day each."""
    rules: dict[str, dict[int, Rule]] = field(default_factory=dict)
    versions: dict[Key, dict[str, Version]] = field(default_factory=lambda: defaultdict(dict))
    current: dict[Key, str] = field(default_factory=dict)
    batches: int = 0
    moves: list[tuple[str, str, int]] = field(default_factory=list)
    """Promotions and rollbacks: kind, run, how many values another run had moved."""
    _otherwise: dict[tuple[str, int], list[Delivery]] = field(default_factory=dict)
    """What would count, by kind and how many deliveries there are."""

    def ingest(self, events: Iterable[Event]) -> None:
        self.batches += 1
        self.deliveries += [Delivery(self.batches, seq, one) for seq, one in enumerate(events, 1) if one["source"]]

    def accepted(self, known: int | None = None) -> list[Delivery]:
        """The first delivery of each event, of the first batches."""
        found: dict[str, Delivery] = {}
        for one in self.deliveries:
            if known is None or one.batch <= known:
                found.setdefault(one.identity, one)
        return list(found.values())

    def conflicts(self, entity: str | None = None) -> dict[str, int]:
        """By source, the deliveries (of an entity) that repeat a key with other content."""
        first = {one.identity: one for one in reversed(self.deliveries)}
        counts: dict[str, int] = defaultdict(int)
        for one in self.deliveries:
            if entity not in (None, one.event["entity_id"]):
                continue
            counts[one.event["source"]] += content(one.event) != content(first[one.identity].event)
        return {source: count for source, count in counts.items() if count}

    def grouped(self, metric: str, version: int, known: int | None = None) -> dict[Key, list[Event]]:
        """What counts in each bucket, of what can be read."""
        rule = self.rules[metric][version]
        groups: dict[Key, list[Event]] = defaultdict(list)
        for one in self.accepted(known):
            if rule.counts(one.event) and (one.batch, one.day) not in self.lost:
                entity = "" if rule.over_all else one.event["entity_id"]
                groups[metric, one.at - one.at % rule.size, entity].append(one.event)
        return groups

    def replay(self, run: str, days: tuple[int, int] | None, entity: str | None) -> None:
        """Write a version of each bucket of these days that has a value; with an entity only its own."""
        for metric, rules in self.rules.items():
            version = max(rules)
            for key, events in self.grouped(metric, version).items():
                day = 1 + (key[1] - instant("2026-01-01T00:00:00Z")) // DAY
                if (days is None or days[0] <= day <= days[1]) and entity in (None, key[2]):
                    value = rules[version].value(events)
                    base = self.current.get(key)
                    self.versions[key][run] = Version(run, value, version, self.batches, base)

    def promote(self, run: str) -> None:
        conflicts = 0
        for key, versions in self.versions.items():
            if run in versions and self.current.get(key) != run:
                if self.current.get(key) == versions[run].base:
                    self.current[key] = run
                else:
                    conflicts += 1
        self.moves.append(("promote", run, conflicts))

    def rollback(self, run: str) -> None:
        for key, versions in self.versions.items():
            if self.current.get(key) == run:
                del self.current[key]
                if (base := versions[run].base) is not None:
                    self.current[key] = base
        self.moves.append(("rollback", run, 0))

    def unreadable(self, key: Key) -> bool:
        """Whether raw of the days of the bucket cannot all be read."""
        size = self.rules[key[0]][1].size
        first = 1 + (key[1] - instant("2026-01-01T00:00:00Z")) // DAY
        return any(first <= day < first + max(1, size // DAY) for _, day in self.lost)

    def whole(self) -> Truth:
        """The truth if all of raw could be read."""
        return replace(self, lost=set())

    def otherwise(self, key: Key, kind: str) -> Decimal | None:
        """What the value would be with the last of conflicting deliveries, or without events that repeat an earlier
        one's payload."""
        rule = self.rules[key[0]][max(self.rules[key[0]])]
        events = [
            one.event
            for one in self._counted_otherwise(kind)
            if rule.counts(one.event)
            and (rule.over_all or one.event["entity_id"] == key[2])
            and key[1] <= one.at < key[1] + rule.size
        ]
        return rule.value(events) if events else None

    def _counted_otherwise(self, kind: str) -> list[Delivery]:
        known = kind, len(self.deliveries)
        if known in self._otherwise:
            return self._otherwise[known]
        first: dict[str, Delivery] = {}
        if kind == "conflicts":
            first = {one.identity: one for one in self.deliveries}
        for one in sorted(self.accepted() if kind == "suspects" else (), key=lambda one: one.at):
            same = json.dumps([{**one.event, "event_time": "", "received_time": ""}], sort_keys=True)
            first.setdefault(same, one)
        return self._otherwise.setdefault(known, list(first.values()))

    def known(self, key: Key) -> int:
        """How many batches the current value knew; 0 where there is none."""
        return self.versions[key][self.current[key]].known if key in self.current else 0

    def unread(self, key: Key, after: int = 0) -> int:
        """How many events that count in a value cannot be read, of batches after one."""
        rule, window = self.rules[key[0]][max(self.rules[key[0]])], key[1]
        return sum(
            (one.batch, one.day) in self.lost
            and one.batch > after
            and rule.counts(one.event)
            and (rule.over_all or one.event["entity_id"] == key[2])
            and window <= one.at < window + rule.size
            for one in self.accepted()
        )

    def shares(self) -> dict[Key, Shares]:
        """Every value, current or right, with its causes."""
        found: dict[Key, Shares] = {}
        for metric, rules in self.rules.items():
            latest = max(rules)
            now = self.grouped(metric, latest)
            then: dict[tuple[int, int], Mapping[Key, list[Event]]] = {}

            def of(
                key: Key,
                version: int,
                known: int,
                then: dict[tuple[int, int], Mapping[Key, list[Event]]] = then,
                rules: Mapping[int, Rule] = rules,
            ) -> tuple[Decimal, int]:
                if (version, known) not in then:
                    then[version, known] = self.grouped(key[0], version, known)
                events = then[version, known].get(key, [])
                return (rules[version].value(events) if events else ZERO), len(events)

            for key in {key for key in self.current if key[0] == metric} | now.keys():
                events = now.get(key, [])
                right = rules[latest].value(events) if events else None
                if key not in self.current:
                    found[key] = Shares(None, right, {"not computed": right or ZERO}, 0)
                    continue
                version = self.versions[key][self.current[key]]
                first, _ = of(key, version.definition, version.known)
                redefined, knew = of(key, latest, version.known)
                steps = {
                    "lost": first - (version.value or ZERO),
                    "definition": redefined - first,
                    "late": (right or ZERO) - redefined,
                }
                causes = {cause: share for cause, share in steps.items() if share}
                found[key] = Shares(version.value, right, causes, len(events) - knew)
        return found

    def left_behind(self, entity: str | None = None) -> dict[tuple[str, str, str], tuple[int, Decimal]]:
        """By metric, what was done and the run: how many values (of an entity) would be nearer to the right ones if the
        run's were current, and by how much that would move them."""
        found: dict[tuple[str, str, str], tuple[int, Decimal]] = {}
        for key, shares in self.shares().items():
            if (
                entity not in (None, key[2])
                or self.unreadable(key)
                or (shares.current or ZERO) == (shares.right or ZERO)
            ):
                continue
            if (nearer := self.nearer(key, shares)) is not None:
                what, run = nearer
                count, moved = found.get((key[0], what, run), (0, ZERO))
                value = self.versions[key][run].value or ZERO
                found[key[0], what, run] = count + 1, moved + value - (shares.current or ZERO)
        return found

    def nearer(self, key: Key, shares: Shares) -> tuple[str, str] | None:
        """What was done to the run whose value of this is nearer to the right one than the current, and the run."""
        last = {run: (place, kind, conflicts) for place, (kind, run, conflicts) in enumerate(self.moves)}
        promoted = {run: place for place, (kind, run, _) in enumerate(self.moves) if kind == "promote"}
        right, current = shares.right or ZERO, shares.current or ZERO
        better = [
            (abs((version.value or ZERO) - right), -last[run][0], run)
            for run, version in self.versions[key].items()
            if run in last
            and (last[run][1] == "rollback" or last[run][2])
            and last[run][0] > promoted.get(self.current.get(key, ""), -1)
            and run != self.current.get(key)
        ]
        if not better or min(better)[0] >= abs(current - right):
            return None
        run = min(better)[2]
        return ("rolled back" if last[run][1] == "rollback" else "promoted in part"), run


def identity(event: Event) -> str:
    """What makes two deliveries the same event."""
    who = [event["source"], event["event_type"], event["entity_id"]]
    key = event.get("idempotency_key")
    return json.dumps([*who, "key", key] if key else [*who, event["event_time"], event["payload"]], sort_keys=True)


def content(event: Event) -> str:
    return json.dumps([event["event_time"], event["payload"]], sort_keys=True)


def instant(time: str) -> int:
    """Nanoseconds since 1970."""
    since = datetime.fromisoformat(time.removesuffix("Z")).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1) * 1000
