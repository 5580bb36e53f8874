"""A verification under way, and the parts of it: what its checks look at, and what they have counted so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from pik.errors import NotFound
from pik.model.batch import Batch, Frame, Segment
from pik.model.correction import Correction
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.ports.fleet import Fleet, Item, Result
from pik.ports.index import Audit
from pik.ports.store import Store
from pik.runtime import SILENT, Progress
from pik.usecases.care.verify_continue import Earlier
from pik.usecases.care.verify_findings import Depth, NotProvable, Problem, VerifyReport
from pik.usecases.care.verify_ledger import Entries, Ledger


@dataclass(frozen=True, slots=True)
class LostFrames:
    """A segment, and the numbers of its frames that cannot be read as they were written."""

    segment: Segment
    frames: frozenset[int]


@dataclass(frozen=True, slots=True)
class UnreadableCorrection:
    """A correction that cannot be read, or a list of it: the days that its deliveries were received on or happened on
    according to it, and the frames that name their entities; none: they may be of any."""

    correction: Correction
    days: Set[int]
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True)
class Findings:
    """What the checks of a part have found and counted; see `PartCheck`."""

    problems: Sequence[Problem]
    counts: Counter[str]
    entries: Entries
    expired_days: Set[int]
    incomplete: Set[str]
    lost: Mapping[str, LostFrames]
    unknown_losses: Set[int]


@dataclass(slots=True)
class PartCheck:
    """A part of a verification: some segments of a day."""

    store: Store
    depth: Depth
    earlier: Earlier | None = None
    """What keeps which segments were found to be sound, and knows those of an earlier verification."""
    counts: Counter[str] = field(default_factory=Counter, init=False)
    """By the names of the report's fields."""
    entries: Entries = field(default_factory=Entries, init=False)
    """Segments that the index lists, for the ledger."""
    expired_days: set[int] = field(default_factory=set, init=False)
    incomplete: set[str] = field(default_factory=set, init=False)
    """Batches of which the index is known to lack something: their counts would be a second problem of it."""
    lost: dict[str, LostFrames] = field(default_factory=dict, init=False)
    """Of damaged and missing segments, by key."""
    unknown_losses: set[int] = field(default_factory=set, init=False)
    """Days of lost segments of which the index does not know what they held."""

    @property
    def audit(self) -> Audit:
        """What compares the index with raw."""
        return self.store.audit

    @property
    def quick(self) -> bool:
        """Whether only presence and sizes are looked at."""
        return self.depth is Depth.QUICK

    def note_lost(self, segment: Segment, frames: Iterable[Frame]) -> LostFrames:
        """Note and return frames of a segment that cannot be read as they were written."""
        offsets = {frame.offset for frame in frames}
        numbers = frozenset(number for number, frame in enumerate(segment.frames) if frame.offset in offsets)
        lost = self.lost[segment.key] = LostFrames(segment, numbers)
        return lost

    def count_expired(self, segment: Segment) -> None:
        """Count a segment whose object is gone as it should be."""
        self.counts["expired"] += 1
        self.expired_days.add(segment.day)

    def find_batch(self, batch_id: str) -> Batch | None:
        """Return the batch of exactly this id."""
        return next(self.store.index.batches(batch_id), None)

    def findings(self, problems: Sequence[Problem]) -> Findings:
        """Return what was found and counted, with these problems."""
        return Findings(
            problems, self.counts, self.entries, self.expired_days, self.incomplete, self.lost, self.unknown_losses
        )


Check = Callable[[Store, Item], Iterable[Result]]
"""What is done with an item: the Body of a fleet, without an engine."""


@dataclass(slots=True)
class Verification(PartCheck):
    """A verification under way. If there is a `fleet`, it does the work that grows with raw."""

    window: Window = ALL_TIME
    progress: Progress = SILENT
    fleet: Fleet | None = None
    ledger: Ledger = field(default_factory=Ledger, init=False)
    kinds: set[str] = field(default_factory=set, init=False)
    replaced: set[str] = field(default_factory=set, init=False)
    unsettled: bool = field(default=False, init=False)
    """Whether a writer of a deployed store died while it recorded a block: a batch's counts may then lack segments that
    the index lists."""
    state_is_sound: bool = field(default=True, init=False)
    """Whether current values can be relied on, so that recomputing them proves something. Damage of a version that is
    not current does not matter for that."""
    aggregates: int | None = field(default=None, init=False)
    retired: tuple[str, ...] = field(default=(), init=False)
    not_provable: dict[tuple[str, str], NotProvable] = field(default_factory=dict, init=False)
    """By run and metric."""
    unreadable: list[UnreadableCorrection] = field(default_factory=list, init=False)
    knows_corrections: bool = field(default=True, init=False)
    """Whether the index could say which corrections it follows."""

    def __post_init__(self) -> None:
        self.store = replace(self.store, audit=self.store.audit.anew())

    def each(self, check: Check[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield what the check of each item comes to, in the order of the items."""
        if self.fleet is not None:
            yield from self.fleet.map(partial(_without_engine, check), items)
            return
        for item in items:
            yield from check(self.store, item)

    def add(self, part: Findings) -> None:
        """Add what was found and counted in a part, but for its problems."""
        self.ledger.take(part.entries)
        self.counts.update(part.counts)
        self.expired_days |= part.expired_days
        self.incomplete |= part.incomplete
        self.lost.update(part.lost)
        self.unknown_losses |= part.unknown_losses
        self.progress.advance(part.counts["segments"])

    def note_imported(self, found: Iterable[NotProvable]) -> None:
        """Count values that were imported."""
        for one in found:
            key = one.run_id, one.metric
            before = self.not_provable.get(key)
            self.not_provable[key] = before.plus(one) if before else replace(one, name=self._file_name(one.run_id))

    def _file_name(self, run_id: str) -> str:
        with suppress(NotFound):  # a copy has no runs
            file = self.store.runs.get(run_id).request.file
            return file.name if file else ""
        return ""

    def segments(self, batch_id: str) -> Iterator[Segment]:
        """Yield all segments of a batch that the index lists."""
        return self.store.index.segments(ALL_TIME, batch_id=batch_id)

    def includes(self, day: int) -> bool:
        """Return whether the window touches this day."""
        first, last = self.window.days
        return first <= day <= last

    def report(self) -> VerifyReport:
        """Return the report so far."""
        names = ("segments", "read", "vouched", "valid", "missing", "expired", "modified", "unreadable", "not_indexed")
        others = ("superseded", "unacknowledged", "in_progress", "deliveries", "damage")
        return VerifyReport(
            window=self.window,
            depth=Depth.FULL if self.depth is Depth.STORED and not self.counts["vouched"] else self.depth,
            replaced=tuple(sorted(self.replaced)),
            aggregates=self.aggregates,
            proven=None if self.aggregates is None else self.aggregates - self.counts["not_proven"],
            unproven=self.counts["unproven"],
            uncertain=self.counts["uncertain"],
            incomplete=self.counts["incomplete"],
            kinds=frozenset(self.kinds),
            expired_days=len(self.expired_days),
            retired=self.retired,
            taken_over=self.earlier.taken_over if self.earlier else None,
            not_provable=tuple(one for _, one in sorted(self.not_provable.items())),
            **{name: self.counts[name] for name in (*names, *others)},
        )


def _without_engine(check: Check[Item, Result], store: Store, _: Engine, item: Item) -> Iterable[Result]:
    return check(store, item)
