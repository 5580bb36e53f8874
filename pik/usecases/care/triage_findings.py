"""What a triage looks at, and what it finds there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from pik.errors import Damaged, Unreadable
from pik.model.batch import Batch, Location, RejectFile, Segment, Verdict
from pik.model.instant import DAY, MIN_INSTANT
from pik.model.run import PromotionKind
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.index import Index, Totals
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.rawlog.objects import frame_lines, frames_of
from pik.rawlog.selection import Selection
from pik.runtime import Progress


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that may be wrong. `scope` is where: a source, a batch, a run, an object; `since` nanoseconds.

    `delta` is by how much it moves the metric, over all its values in the window; `effect` that, without its sign,
    divided by the metric's recomputed total (None: that is 0, or there is no delta). `command` shows it. `reason` is
    that of a correction, which `what` ends with, in parentheses.
    """

    check: str
    what: str
    command: str
    metric: str = ""
    cause: str = ""
    scope: str = ""
    since: int | None = None
    events: int | None = None
    buckets: int | None = None
    delta: Decimal | None = None
    effect: Decimal | None = None
    reason: str = ""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes it the same finding in two triages: figures, times and counts do not matter."""
        return self.check, self.metric, self.cause, self.scope


@dataclass(slots=True)
class OfSource:
    """Events of a source, and the time of the first."""

    events: int = 0
    since: int | None = None


def by_source(found: Iterable[tuple[str, int]]) -> list[tuple[str, OfSource]]:
    """Return by source what was found, given as sources and times."""
    sources: dict[str, OfSource] = {}
    for source, time in found:
        one = sources.setdefault(source, OfSource())
        one.events += 1
        one.since = time if one.since is None else min(one.since, time)
    return sorted(sources.items())


def only_one(sources: Sequence[tuple[str, OfSource]]) -> list[str]:
    """Return the option that selects the source if there is one: what several have may have one cause, so one command
    shows it."""
    return ["--source", sources[0][0]] if len(sources) == 1 else []


@dataclass(frozen=True, slots=True)
class Moves:
    """What was promoted and rolled back since the window began, by run: the last move, and the last promotion."""

    last: dict[str, Promotion]
    promoted_at: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Readable:
    """An index without the segments that cannot be read: what is left can be looked at."""

    index: Index
    lost: frozenset[str]

    def segments(
        self, window: Window, *, batch_id: str | None = None, entities: Sequence[str] = ()
    ) -> Iterator[Segment]:
        found = self.index.segments(window, batch_id=batch_id, entities=entities)
        return (segment for segment in found if segment.key not in self.lost)

    def skipped(self, segment: Segment) -> dict[int, Verdict]:
        return self.index.skipped(segment)

    def locate(self, event_id_prefix: str, limit: int = 10) -> list[str]:
        return self.index.locate(event_id_prefix, limit)

    def deliveries(self, event_id: str, limit: int | None = None) -> list[Location]:
        return self.index.deliveries(event_id, limit)

    def segments_of(self, deliveries: Collection[Location]) -> dict[str, Segment]:
        found = self.index.segments_of(deliveries)
        return {key: segment for key, segment in found.items() if key not in self.lost}

    def batches(self, prefix: str = "") -> Iterator[Batch]:
        return self.index.batches(prefix)

    def rejects(self, batch_id: str) -> list[RejectFile]:
        return self.index.rejects(batch_id)

    def totals(self) -> Totals:
        return self.index.totals()


@dataclass(slots=True)
class Scope:
    """A window, and entities (none: all). By check, `notes` are what it cannot know, `failures` why it could not go on
    to the end."""

    store: Store
    engine: Engine
    window: Window
    entities: tuple[str, ...]
    progress: Progress
    notes: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, tuple[Segment, str]] = field(default_factory=dict)
    """Segments that cannot be read, as far as computing values has shown that, by key; and why."""
    _moves: Moves | None = None

    @property
    def options(self) -> list[str]:
        """The scope as it is typed."""
        return [word for entity in self.entities for word in ("--entity", entity)] + self.times

    @property
    def options_of_one(self) -> list[str]:
        """The scope for commands that take only one entity: of several they show all."""
        return self.options if len(self.entities) == 1 else self.times

    @property
    def times(self) -> list[str]:
        """The window as it is typed."""
        times = (("--from", self.window.from_text), ("--to", self.window.to_text))
        return [word for name, text in times if text for word in (name, text)]

    @property
    def began(self) -> int:
        """The moment before which nothing was computed of the window; clocks may be off by a day."""
        return max(self.window.start - DAY, MIN_INSTANT)

    @property
    def moves(self) -> Moves:
        """What was promoted and rolled back since the window began."""
        if self._moves is None:
            self._moves = Moves({}, {})
            for one in self.store.promotions.newest_first():
                if one.at < self.began:
                    break
                self._moves.last.setdefault(one.run_id, one)
                if one.kind == PromotionKind.PROMOTE:
                    self._moves.promoted_at.setdefault(one.run_id, one.at)
        return self._moves

    def note_unreadable(self, window: Window) -> None:
        """Note the segments because of which the buckets of the window cannot be computed."""
        selection = Selection(self.store, window, self.entities)
        for segment in selection.segments():
            if segment.key not in self.unreadable and (damage := _damage_of(selection, segment)):
                self.unreadable[segment.key] = segment, damage

    def readable(self, check: str) -> Store:
        """Return the store without the segments that cannot be read; where there are any, the check cannot look at
        everything, and says so."""
        if not self.unreadable:
            return self.store
        number = len(self.unreadable)
        objects = "1 object that cannot be read was" if number == 1 else f"{number:,} objects that cannot be read were"
        self.failures[check] = f"{objects} left out; damage names {'it' if number == 1 else 'them'}"
        return replace(self.store, index=_Readable(self.store.index, frozenset(self.unreadable)))

    def meets(self, entities: Sequence[str], window: Window) -> bool:
        """Return whether what concerns these entities (none: all) in this window is of the scope."""
        is_of_entities = not self.entities or not entities or not set(entities).isdisjoint(self.entities)
        return is_of_entities and window.start < self.window.end and window.end > self.window.start


def _damage_of(selection: Selection, segment: Segment) -> str:
    """Return what is wrong with the frames of a segment that the selection needs; the empty text if nothing is."""
    try:
        for frame in frames_of(segment, selection.entities):
            frame_lines(selection.store.raw, segment, frame)
    except Unreadable as error:
        return f"it cannot be read: {error.reason}"
    except Damaged:
        return "its bytes are not as they were written"
    return ""
