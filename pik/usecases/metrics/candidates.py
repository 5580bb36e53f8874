"""The scenarios that are tried for an expected number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import combinations, islice

from pik.errors import Damaged, NotHeld
from pik.model.correction import revoked
from pik.model.criteria import Criteria
from pik.model.delivery import Filter
from pik.model.duration import format_duration
from pik.model.instant import DAY, HOUR, MAX_INSTANT, MIN_INSTANT, display_instant, format_instant
from pik.model.metric import ALL_ENTITIES, Metric, entities_of
from pik.model.run import PromotionKind
from pik.model.scenario import (
    Assumption,
    OtherDefinition,
    Scenario,
    Shift,
    WithoutBatch,
    WithoutCorrection,
    WithoutSuspects,
)
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.corrected import concerning
from pik.rawlog.selection import Overrides, Selection
from pik.usecases.availability import expect_held
from pik.usecases.metrics.assumed_suspects import assumed_suspects
from pik.usecases.metrics.chain import EXACT
from pik.usecases.metrics.definitions import pin
from pik.usecases.metrics.tolerance import Tolerance
from pik.usecases.timing.grouping import read_grouping
from pik.usecases.timing.skew import LagShift, find_skew, righting

MOST = 100
"""Batches, corrections, and promotions, that are tried at most."""

AROUND = 7 * DAY
"""How far from the bucket clocks that are off are looked for."""

MOST_SHIFTS = 5
"""Shifts of clocks that are tried at most."""

_BY_SOURCE = read_grouping("source", ("source",))

OFFSETS = range(-24, 29)
"""Offsets of other zones, in half hours: from UTC-12 to UTC+14."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A scenario that may explain a number: what it adds to that of the question, as it is `typed`, `detail` what it
    means, and the value that it gives, once it was computed. `events` counts the deliveries that count otherwise than
    in the question (None: not known). `at` is a time of which what was current is the value, `bucket` the start of
    another bucket, and `entity` another entity whose value is added."""

    kind: str
    typed: tuple[str, ...]
    detail: str
    metric: Metric
    assumed: Scenario
    at: int | None = None
    bucket: int | None = None
    entity: str = ""
    value: Decimal | None = None
    events: int | None = None

    @property
    def scenario(self) -> str:
        """What it adds, in words."""
        return " and ".join(self.typed)

    @property
    def is_correctable(self) -> bool:
        """Whether it says that events arrived wrong, or were corrected wrongly, which can be recorded."""
        return self.kind in _CORRECTABLE


TOGETHER = "together"
_CORRECTABLE = ("conflicts", "suspects", "skew", TOGETHER, "without-batch", "correction")


@dataclass(frozen=True, slots=True)
class Question:
    """A number for a metric, entity and bucket (its start), which is not what was recomputed: which scenario, added to
    this one, gives it, within the tolerances?"""

    number: Decimal
    recomputed: Decimal
    metric: Metric
    entity: str
    bucket: int
    scenario: Scenario
    tolerances: Sequence[Tolerance] = ()

    @property
    def window(self) -> Window:
        """The bucket."""
        return self.metric.buckets.around(self.bucket)

    def meets(self, value: Decimal) -> bool:
        """Return whether a value is the number."""
        delta = EXACT.subtract(value, self.number)
        some = (one for one in self.tolerances if one.metric in (None, self.metric.name))
        return not delta or any(one.covers(self.number, delta) for one in some)


def assuming(asked: Question, kind: str, assumption: Assumption, detail: str) -> Trial:
    """Return the trial that adds this assumption to what the question assumes."""
    scenario = replace(asked.scenario, assumptions=(*asked.scenario.assumptions, assumption))
    return Trial(kind, (str(assumption),), detail, asked.metric, scenario)


def without_suspects(store: Store, engine: Engine, asked: Question) -> Trial:
    """Return the trial without suspects: if those of the value are of one source, without its suspects."""
    assumed = WithoutSuspects(Criteria())
    shown = Overrides(until=asked.scenario.as_of)
    sources = set[str]()
    try:
        found = assumed_suspects(store, engine, assumed, shown, asked.window, entities_of(asked.entity))
        sources = {row.source for row in found}
    except Damaged:
        pass  # the trial says so
    if len(sources) == 1:
        assumed = WithoutSuspects(Criteria(source=sources.pop()))
    return assuming(asked, "suspects", assumed, "retries with a new time or key do not count")


def righted_clocks(store: Store, engine: Engine, asked: Question, not_tried: list[str]) -> Iterator[Trial]:
    """Yield the right times of sources whose clocks are off around the bucket."""
    near = Window(max(asked.window.start - AROUND, MIN_INSTANT), min(asked.window.end + AROUND, MAX_INSTANT + 1))
    try:
        found = _shifts(store, engine, near)
    except (Damaged, NotHeld):
        not_tried.append(f"clocks that are off, since not all raw of {near} can be read")
        return
    if len(found) > MOST_SHIFTS:
        not_tried.append(f"{len(found) - MOST_SHIFTS:,} more shifts of clocks")
    for one, wanted in found[:MOST_SHIFTS]:
        if (shift := righting(one, wanted, _BY_SOURCE)) is not None:
            detail = f"times from {one.group} are off by {format_duration(one.zone or one.shift)}, as lag --skew finds"
            yield assuming(asked, "skew", shift, detail)


def _shifts(store: Store, engine: Engine, near: Window) -> list[tuple[LagShift, Filter]]:
    """Return the shifts of sources in a window, each with where it was looked for: everywhere, if it begins or ends at
    the edge of the window. Raises Damaged and NotHeld."""
    found: list[tuple[LagShift, Filter]] = []
    last = store.index.totals().last_event or 0
    sources = set[str | None]()
    for one in find_skew(store, engine, Filter(near), _BY_SOURCE).shifts:
        is_whole = one.since >= near.start + DAY and (one.until is not None or last < near.end)
        if is_whole:
            found.append((one, Filter()))
        elif one.group not in sources:
            sources.add(one.group)
            wanted = Filter(source=one.group)
            try:
                found += [(each, wanted) for each in find_skew(store, engine, wanted, _BY_SOURCE).shifts]
            except NotHeld:
                found.append((one, Filter(near)))
    return list(dict.fromkeys(found))


def together(asked: Question, wrong: Sequence[Trial]) -> Iterator[Trial]:
    """Yield each combination of several trials."""
    for size in range(2, len(wrong) + 1):
        for some in combinations(wrong, size):
            given = [one.assumed.assumptions[-1] for one in some]
            scenario = replace(asked.scenario, assumptions=(*asked.scenario.assumptions, *given))
            texts = tuple(map(str, given))
            yield Trial(TOGETHER, texts, " and ".join(one.detail for one in some), asked.metric, scenario)


def other_definitions(store: Store, asked: Question, not_tried: list[str]) -> Iterator[Trial]:
    """Yield each other definition that the metric has had."""
    if any(isinstance(one, OtherDefinition) for one in asked.scenario.assumptions):
        not_tried.append("other definitions than the assumed one")
        return
    seen = [asked.metric.definition]
    for metric in reversed(store.metrics.versions(asked.metric.name)):
        if metric.definition in seen:
            continue
        seen.append(metric.definition)
        if metric.buckets != asked.metric.buckets or metric.is_over_all != asked.metric.is_over_all:
            not_tried.append(f"{pin(metric)}, whose buckets are others")
        else:
            yield Trial("definition", (pin(metric),), "another definition", metric, asked.scenario)


def missing_batches(store: Store, asked: Question, not_tried: list[str]) -> Iterator[Trial]:
    """Yield each batch with events in the bucket."""
    needed = Selection(store, asked.window, entities_of(asked.entity)).needed()
    batches = sorted({one.segment.batch_id for one in needed})
    if len(batches) > MOST:
        not_tried.append(f"{len(batches) - MOST:,} more batches missing")
    for batch_id in batches[:MOST]:
        name = next(store.index.batches(batch_id)).origin.name
        yield assuming(asked, "without-batch", WithoutBatch(batch_id), f"{name} had not arrived")


def left_out_corrections(store: Store, asked: Question, not_tried: list[str]) -> Iterator[Trial]:
    """Yield each correction, and each revocation of one, that holds and may change what counts in the bucket."""
    until = asked.scenario.corrections_at
    log = [one for one in store.corrections.recorded() if until is None or one.recorded_at <= until]
    gone = revoked(log)
    found = [one for one in concerning(store, log, asked.window) if one.correction_id not in gone]
    if len(found) > MOST:
        not_tried.append(f"{len(found) - MOST:,} earlier corrections not recorded")
    for one in found[-MOST:]:
        what = f"the revocation of {one.revokes}" if one.revokes else f"the correction {one.statement}"
        assumption = WithoutCorrection(one.correction_id)
        yield assuming(asked, "correction", assumption, f"{what} ({one.reason}) had not been recorded")


def earlier_moments(store: Store, asked: Question, not_tried: list[str]) -> Iterator[Trial]:
    """Yield the moments of each promotion and rollback of the value: what was recorded then, and what was current."""
    if store.copy is not None:
        not_tried.append("promotions, which a copy does not have")
        return
    start = Window(asked.bucket, asked.bucket + 1)
    versions = store.aggregates.versions(asked.metric.name, start, (asked.entity,))
    runs = {version.run_id for version in versions}
    moves = list(islice((one for one in store.promotions.newest_first() if one.run_id in runs), MOST + 1))
    if len(moves) > MOST:
        not_tried.append(f"promotions before {display_instant(moves[-2].at)}")
    for one in moves[:MOST]:
        at = format_instant(one.at)
        what = f"run {one.run_id} was {'promoted' if one.kind == PromotionKind.PROMOTE else 'rolled back'}"
        if asked.scenario.as_of is None or one.at < asked.scenario.as_of:
            scenario = replace(asked.scenario, as_of=one.at)
            yield Trial("as-of", (f"as-of={at}",), f"what had been recorded when {what}", asked.metric, scenario)
        yield Trial(
            "current", (f"current@{at}",), f"what was current after {what}", asked.metric, asked.scenario, one.at
        )


def other_zones(store: Store, asked: Question, not_tried: list[str]) -> Iterator[Trial]:
    """Yield the bucket in the time of each other offset from UTC."""
    window, offset = asked.window, asked.metric.buckets.offset_at(asked.bucket)
    if offset != asked.metric.buckets.offset_at(window.end):
        not_tried.append("days of other zones, since clocks change within the bucket")
        return
    near = Window(window.start - 14 * HOUR + min(offset, 0), window.end + 12 * HOUR + max(offset, 0))
    try:
        expect_held(store, near, entities_of(asked.entity))
    except NotHeld:
        not_tried.append(f"days of other zones, since not all raw of {near} is there")
        return
    criteria = Criteria(window=near) if asked.entity == ALL_ENTITIES else Criteria(entity=asked.entity)
    for half_hours in OFFSETS:
        if by := half_hours * HOUR // 2 - offset:
            hours, half = divmod(abs(half_hours), 2)
            zone = f"UTC{'-' if half_hours < 0 else '+'}{hours:02}:{30 * half:02}"
            shift = Shift(by, criteria)
            yield assuming(asked, "zone", shift, f"buckets in the time of {zone}")


def buckets_beside(store: Store, asked: Question, not_tried: list[str]) -> Iterator[Trial]:
    """Yield the bucket before and the one after: a number may be booked a day late."""
    first, last = asked.window.start - 1, asked.window.end
    for instant, which in ((first, "before"), (last, "after")):
        if not MIN_INSTANT <= instant <= MAX_INSTANT:
            continue
        window = asked.metric.buckets.around(instant)
        try:
            expect_held(store, window, entities_of(asked.entity))
        except NotHeld:
            not_tried.append(f"the bucket {which}, whose raw is not all there")
            continue
        typed = (f"bucket={format_instant(window.start)}",)
        detail = f"what raw gives for the bucket {which}"
        yield Trial("bucket", typed, detail, asked.metric, asked.scenario, bucket=window.start)
