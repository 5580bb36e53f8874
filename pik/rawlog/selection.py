"""Selecting what a window needs of raw: its segments and frames, and how a delivery of them stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pik.model.batch import Frame, Segment, Verdict
from pik.model.delivery import Delivery
from pik.model.entity_range import EVERY_ENTITY, EntityRange
from pik.model.instant import MAX_INSTANT, MIN_INSTANT, day_of, full_instant
from pik.model.share import WHOLE, Share
from pik.model.window import Window
from pik.ports.store import Store
from pik.rawlog.corrected import Corrected, Days, corrected_until
from pik.rawlog.objects import frames_of

if TYPE_CHECKING:
    from pik.ports.engine import Rule

REMEMBERED = 1000
"""Segments of a selection up to which the index is asked for them only once."""


class SegmentFrames(NamedTuple):
    """A segment, and those of its frames that are needed."""

    segment: Segment
    frames: list[Frame]

    @property
    def lines(self) -> int:
        """The number of lines in the frames."""
        return sum(frame.lines for frame in self.frames)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a scenario changes of what counts, for selecting raw.

    Recorded corrections hold as they did at `corrected_until` (nanoseconds; None: now, 0: none does), unless those that
    hold are given as `corrected`; with `settled` the rest says what their choices and withdrawn batches come to.
    Segments recorded after `until` and those of the `withdrawn` batches are left out; so are `unreadable` frames, by
    the key of their segment and their offset.
    `counting`, by batch and seq, has the deliveries of which not the verdict decides whether they count. The `rules`
    are for the engine; deliveries may move to a later time by `later` nanoseconds, to an earlier one by `earlier`.
    `added` are files of so many lines that count as well.
    """

    until: int | None = None
    withdrawn: frozenset[str] = frozenset()
    unreadable: Mapping[str, frozenset[int]] = field(default_factory=dict)
    counting: Mapping[str, Mapping[int, bool]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    later: int = 0
    earlier: int = 0
    added: Sequence[tuple[Path, int]] = ()
    duplicates: bool = False
    corrected_until: int | None = None
    corrected: Corrected | None = None
    settled: bool = False

    def knows(self, segment: Segment) -> bool:
        """Return whether the segment is not left out."""
        is_recorded = self.until is None or segment.recorded_at <= self.until
        return is_recorded and segment.batch_id not in self.withdrawn

    def sources(self, window: Window) -> Window:
        """Return the window of the raw from which deliveries may count in this one."""
        return Window(max(window.start - self.later, MIN_INSTANT), min(window.end + self.earlier, MAX_INSTANT + 1))


NO_OVERRIDES = Overrides()

AS_RECEIVED = Overrides(corrected_until=0)
"""Whatever came: no correction holds, but what rebuilds changed."""


@dataclass(slots=True)
class Selection:
    """The raw that a window needs, of some entities (none: of all, or of a range): the segments of the window's days,
    or a share of them.

    Make one per plan and one per task, and pass it on: small selections ask the index for their segments only once.
    """

    store: Store
    window: Window
    entities: Sequence[str] = ()
    overrides: Overrides = NO_OVERRIDES
    entity_range: EntityRange = EVERY_ENTITY
    share: Share = WHOLE
    _listed: list[Segment] | None = field(default=None, repr=False, compare=False)
    _corrected: Corrected | None = field(default=None, repr=False, compare=False)
    _days: Days | None = field(default=None, repr=False, compare=False)

    @property
    def corrected(self) -> Corrected:
        """The corrections that hold, the same ones for as long as the selection is used."""
        if self._corrected is None:
            given = self.overrides.corrected
            self._corrected = corrected_until(self.store, self.overrides.corrected_until) if given is None else given
        return self._corrected

    def segments(self) -> Iterator[Segment]:
        """Yield all segments of the days that the window needs, by day, as the index lists them; those of withdrawn
        batches are left out."""
        withdrawn = self.corrected.withdrawn
        return (segment for segment in self.recorded_segments() if segment.batch_id not in withdrawn)

    def recorded_segments(self) -> Iterator[Segment]:
        """Yield the segments as `segments` does, and those of batches that corrections withdraw."""
        if self._listed is not None:
            yield from self._listed
            return
        listed: list[Segment] = []
        count = 0
        for segment in segments_of(self.store, self.days, self.entities):
            if not self.overrides.knows(segment) or not self.share.has(segment.key):
                continue
            count += 1
            if count <= REMEMBERED:
                listed.append(segment)
            yield segment
        if count <= REMEMBERED:
            self._listed = listed

    def needed(self, *, whole_days: bool = False) -> Iterator[SegmentFrames]:
        """Yield the segments with events in the window (or in its days), each with the frames that may hold the
        entities; segments without such frames are left out."""
        for segment in self.segments():
            if frames := self.frames(segment) if whole_days else self.frames_in(segment):
                yield SegmentFrames(segment, frames)

    def frames_in(self, segment: Segment) -> list[Frame]:
        """Return the frames of a segment that may hold the entities; none if it has no events in the window."""
        sources = self.sources
        overlaps = segment.first_event < sources.end and segment.last_event >= sources.start
        return self.frames(segment) if overlaps or segment.day in self.days.others else []

    def frames(self, segment: Segment) -> list[Frame]:
        """Return the frames of a segment that may hold the entities, without those that are left out."""
        frames, gone = frames_of(segment, self.entities), self.overrides.unreadable.get(segment.key)
        if not self.entity_range.is_all:
            frames = [frame for frame in frames if self.entity_range.meets(frame.first, frame.last)]
        return [frame for frame in frames if frame.offset not in gone] if gone else frames

    @property
    def takes_all(self) -> bool:
        """Whether it needs all entities of its segments."""
        return not self.entities and self.entity_range.is_all

    def size_of(self, segment: Segment) -> int:
        """Return about how many bytes of a segment are needed."""
        return segment.size if self.takes_all else sum(frame.length for frame in self.frames(segment))

    @property
    def sources(self) -> Window:
        """The window that raw is read of: this one, and from where deliveries move into it."""
        return self.overrides.sources(self.window)

    @property
    def days(self) -> Days:
        """The days of raw from which deliveries may count in the window."""
        if self._days is None:
            self._days = Days(self.sources, self.corrected.entered(self.sources))
        return self._days

    def counting(self, days: Days | None = None) -> Mapping[str, Mapping[int, bool]]:
        """Return the deliveries of these days (None: of all that the window needs), by batch and seq, of which not the
        verdict decides whether they count. Raises Damaged."""
        overrides, corrected = self.overrides, self.corrected
        if overrides.settled or overrides.duplicates or not corrected.chooses:
            return overrides.counting
        return corrected.counting(
            self.days if days is None else days, self.entities, overrides.until, overrides.counting
        )

    @property
    def known_until(self) -> int:
        """The latest `recorded_at` among all segments of the window's days; 0 if there is none."""
        return max((segment.recorded_at for segment in self.segments()), default=0)

    def fixed(self) -> Selection:
        """Return the selection of what is recorded until now, for the tasks of a fleet: one that is run later, or
        again, must not see more. Segments of withdrawn batches are among it: exports have their deliveries, too."""
        until = self.overrides.until
        if until is None:
            until = max((segment.recorded_at for segment in self.recorded_segments()), default=0)
        return replace(self, overrides=replace(self.overrides, until=until), _listed=None, _corrected=self.corrected)

    def within(self, window: Window) -> Selection:
        """Return the selection of a window inside of this one."""
        if window == self.window:
            return self
        inner = Selection(
            *(self.store, window, self.entities, self.overrides, self.entity_range, self.share),
            _corrected=self.corrected,
        )
        if self._listed is not None:
            days = inner.days
            inner._listed = [segment for segment in self._listed if segment.day in days]
        return inner

    def sharing(self, share: Share) -> Selection:
        """Return the selection of a share of the segments."""
        return replace(self, share=share, _listed=None)

    def of(self, entities: Sequence[str]) -> Selection:
        """Return the selection of these entities (none: as it is)."""
        return replace(self, entities=entities, _listed=None) if entities and entities != self.entities else self


def segments_of(store: Store, days: Days, entities: Sequence[str] = ()) -> Iterator[Segment]:
    """Yield the segments of these days, by day, as the index lists them."""
    for window in days.windows():
        yield from store.index.segments(window, entities=entities)


@dataclass(frozen=True, slots=True)
class RecordedDelivery:
    """A delivery read back, its verdict, and where it is.

    The event_time of the delivery is the one that corrections give it; `received_event_time` is the one that it came
    with, where that is another one (the `line` is as it came). `counts` says whether it counts, `corrections` has the
    ids of those that moved it, chose whether it counts, or took it out.
    """

    delivery: Delivery
    kind: Verdict
    segment: Segment
    line: bytes
    counts: bool
    received_event_time: str | None = None
    corrections: tuple[str, ...] = ()

    @property
    def corrected_line(self) -> bytes:
        """The line with the event_time of the delivery."""
        if self.received_event_time is None:
            return self.line
        times = self.received_event_time, self.delivery.event_time
        old, new = (b',"event_time":"%s"' % text.encode() for text in times)
        return self.line.replace(old, new, 1)

    @property
    def day(self) -> int:
        """The day on which it happened, since 1970-01-01."""
        return self.segment.day if self.received_event_time is None else day_of(self.delivery.event_instant)


@dataclass(slots=True)
class Bound:
    """An event's time and id; the reader that sets it needs no later delivery of that day."""

    day: int | None = None
    instant: int = 0
    texts: tuple[bytes, bytes] = (b"", b"")

    def lower(self, day: int, instant: int, event_id: str) -> None:
        """Set the bound."""
        self.day, self.instant = day, instant
        self.texts = full_instant(instant).encode(), event_id.encode()

    def excludes(self, segment: Segment) -> bool:
        """Return whether no delivery of the segment is needed."""
        return self.day == segment.day and segment.first_event > self.instant

    def excludes_text(self, day: int, time: bytes, event_id: bytes) -> bool:
        """Return whether no delivery of that day at that time, as raw writes it, is needed."""
        return self.day == day and (time, event_id) > self.texts
