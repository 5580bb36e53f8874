"""Selecting what a window needs of raw: its segments and frames, its deliveries, or files of them for the engine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO

from pik.errors import UsageError
from pik.model.batch import Frame, Segment, Verdict
from pik.model.delivery import Delivery, Filter, entity_mark, event_id_text, event_time_text
from pik.model.instant import MAX_INSTANT, MIN_INSTANT, Window, full_instant
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.objects import damaged, frame_bytes, frame_lines, frame_text, frames_of, parse
from pik.runtime import SILENT, Progress, showing
from pik.runtime.storage import Spool, scratch

if TYPE_CHECKING:
    from pik.ports.engine import DeliveryFiles, Inputs, Rule

REMEMBERED = 1000
"""Segments of a selection up to which the index is asked for them only once."""

_READ_TOGETHER = 4 << 20
"""Bytes of adjacent frames that one read gets, about."""


class TooMuch(UsageError):
    """There are more lines than the caller wanted to read."""


class SegmentFrames(NamedTuple):
    """A segment, and those of its frames that are needed."""

    segment: Segment
    frames: list[Frame]

    @property
    def lines(self) -> int:
        """The number of lines in the frames."""
        return sum(frame.lines for frame in self.frames)


@dataclass(frozen=True, slots=True)
class GatheredRaw:
    """Raw as files for the engine. `known_until` is that of the selection."""

    inputs: Inputs
    known_until: int


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a scenario changes of what counts, for selecting raw.

    Segments recorded after `until`, those of the `withdrawn` batches, and `lost` ones, by key, are left out; so are
    `unreadable` frames, by the key of their segment and their offset.
    `counting`, by batch and seq, has the deliveries of which not the verdict decides whether they count. The `rules`
    are for the engine; deliveries may move to a later time by `later` nanoseconds, to an earlier one by `earlier`.
    `added` are files of so many lines that count as well.
    """

    until: int | None = None
    withdrawn: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    unreadable: Mapping[str, frozenset[int]] = field(default_factory=dict)
    counting: Mapping[str, Mapping[int, bool]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    later: int = 0
    earlier: int = 0
    added: Sequence[tuple[Path, int]] = ()
    duplicates: bool = False

    def knows(self, segment: Segment) -> bool:
        """Return whether the segment is not left out."""
        is_recorded = self.until is None or segment.recorded_at <= self.until
        return is_recorded and segment.batch_id not in self.withdrawn and segment.key not in self.lost

    def sources(self, window: Window) -> Window:
        """Return the window of the raw from which deliveries may count in this one."""
        return Window(max(window.start - self.later, MIN_INSTANT), min(window.end + self.earlier, MAX_INSTANT + 1))


NO_OVERRIDES = Overrides()


@dataclass(slots=True)
class Selection:
    """The raw that a window needs, of some entities (none: of all): the segments of the window's days.

    Make one per plan and one per task, and pass it on: small selections ask the index for their segments only once.
    """

    store: Store
    window: Window
    entities: Sequence[str] = ()
    overrides: Overrides = NO_OVERRIDES
    _listed: list[Segment] | None = field(default=None, repr=False, compare=False)

    def segments(self) -> Iterator[Segment]:
        """Yield all segments of the days that the window needs, by day, as the index lists them."""
        if self._listed is not None:
            yield from self._listed
            return
        listed: list[Segment] = []
        count = 0
        for segment in self.store.index.segments(self.sources, entities=self.entities):
            if not self.overrides.knows(segment):
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
            if frames := self._frames(segment) if whole_days else self.frames_in(segment):
                yield SegmentFrames(segment, frames)

    def frames_in(self, segment: Segment) -> list[Frame]:
        """Return the frames of a segment that may hold the entities; none if it has no events in the window."""
        sources = self.sources
        overlaps = segment.first_event < sources.end and segment.last_event >= sources.start
        return self._frames(segment) if overlaps else []

    def _frames(self, segment: Segment) -> list[Frame]:
        """Return the frames of a segment that may hold the entities, without those that are left out."""
        frames, gone = frames_of(segment, self.entities), self.overrides.unreadable.get(segment.key)
        return [frame for frame in frames if frame.offset not in gone] if gone else frames

    @property
    def sources(self) -> Window:
        """The window that raw is read of: this one, and from where deliveries move into it."""
        return self.overrides.sources(self.window)

    @property
    def known_until(self) -> int:
        """The latest `recorded_at` among all segments of the window's days; 0 if there is none."""
        return max((segment.recorded_at for segment in self.segments()), default=0)

    def within(self, window: Window) -> Selection:
        """Return the selection of a window inside of this one."""
        if window == self.window:
            return self
        first, last = self.overrides.sources(window).days
        listed = self._listed
        if listed is not None:
            listed = [segment for segment in listed if first <= segment.day <= last]
        return Selection(self.store, window, self.entities, self.overrides, listed)

    @contextmanager
    def gather(self, *, at_most: int | None = None) -> Iterator[GatheredRaw]:
        """Provide every delivery of the window (and of the entities) as files for as long as the context lasts.

        The window's days are covered whole; the engine selects. Duplicates are listed to be skipped, unless they count.
        Raises Damaged when an object is missing or does not have its length; TooMuch, before any of it is read, when
        that would be more than `at_most` lines.
        """
        with gather_each([self], self.segments(), at_most=at_most) as [gathered]:
            yield gathered

    @contextmanager
    def gather_deliveries(self) -> Iterator[DeliveryFiles]:
        """Provide every delivery of the window's days (and of the entities) as files, with its verdict, for as long as
        the context lasts. Raises Damaged as `gather` does."""
        from pik.ports.engine import DeliveryFiles

        lines, chosen = 0, Spool(Segment)
        with scratch() as directory:
            verdicts, blocks = directory / "verdicts.csv", directory / "blocks.csv"
            with open(verdicts, "w", encoding="ascii") as of_each, open(blocks, "w", encoding="ascii") as of_block:
                for segment in self.segments():
                    frames = self._frames(segment)
                    if not frames:
                        continue
                    kinds = self.store.index.skipped(segment)
                    of_each.writelines(f"{segment.batch_id},{seq},{kind}\n" for seq, kind in kinds.items())
                    ingested = full_instant(segment.ingest_time)
                    of_block.write(f"{segment.batch_id},{ingested},{segment.recorded_at}\n")
                    lines += sum(frame.lines for frame in frames)
                    chosen.add(segment)
            with self._files(chosen, directory) as (files, whole):
                yield DeliveryFiles(files, lines, verdicts, blocks, whole)

    @contextmanager
    def _files(
        self, segments: Iterable[Segment], directory: Path, number: int = 0
    ) -> Iterator[tuple[list[Path], list[Segment]]]:
        """Provide the segments, or their frames that may hold the entities, as files; and the segments whose whole
        objects the first of the files are. Raises Damaged."""
        cut = directory / f"frames-{number}.ndjson.zst"
        whole: list[Segment] = []
        for segment in segments:
            is_partial = segment.key in self.overrides.unreadable or bool(segment.unknown_frames)
            if self.entities or segment.inline or is_partial:
                _append(cut, self.store.raw, segment, self._frames(segment))
            else:
                whole.append(segment)
        with self.store.raw.files([segment.key for segment in whole]) as paths:
            for segment, path in zip(whole, paths, strict=True):
                # A cut object must not make a smaller number; flipped bits are found by the frames' checksums.
                size = path.stat().st_size
                if size != segment.size:
                    raise damaged(segment.key, f"it has {size} bytes, not {segment.size}")
            yield [*paths, cut] if cut.exists() else paths, whole


@contextmanager
def gather_together(selections: Sequence[Selection]) -> Iterator[list[GatheredRaw]]:
    """Provide what each of several selections gathers, of the same entities under several overrides, which leave out
    the same frames; their windows overlap. Raw that they share is read once. Raises as `Selection.gather` does."""
    first = selections[0]
    window = Window(min(one.window.start for one in selections), max(one.window.end for one in selections))
    later = max(one.overrides.later for one in selections)
    earlier = max(one.overrides.earlier for one in selections)
    whole = replace(first, window=window, overrides=Overrides(later=later, earlier=earlier), _listed=None)
    with gather_each(selections, whole.segments()) as gathered:
        yield gathered


@contextmanager
def gather_each(
    selections: Sequence[Selection], segments: Iterable[Segment], *, at_most: int | None = None
) -> Iterator[list[GatheredRaw]]:
    """Provide what each of the selections gathers of these segments, which are all that any of them needs."""
    with scratch() as directory, ExitStack() as stack:
        skips = [
            stack.enter_context(open(directory / f"skip-{n}.csv", "w", encoding="ascii"))
            for n in range(len(selections))
        ]
        ours = [_Gathering(one, skip) for one, skip in zip(selections, skips, strict=True)]
        chosen: dict[tuple[int, ...], Spool[Segment]] = {}  # by the selections that need them
        index = selections[0].store.index
        for segment in segments:
            those = [one for one in ours if one.meets(segment)]
            frames = selections[0]._frames(segment) if those else []
            if not frames:
                continue
            verdicts = index.skipped(segment)
            needing = tuple(
                number for number, one in enumerate(ours) if one in those and one.takes(segment, verdicts, frames)
            )
            if not needing:
                continue
            if at_most is not None and ours[0].lines > at_most:
                raise TooMuch(f"more than {at_most} lines would have to be read")
            chosen.setdefault(needing, Spool(Segment)).add(segment)
        for number, (needing, spool) in enumerate(chosen.items()):
            files, _ = stack.enter_context(selections[0]._files(spool, directory, number))
            for each in needing:
                ours[each].files += files
        yield [one.gathered() for one in ours]


class _Gathering:
    """What one selection gathers."""

    def __init__(self, selection: Selection, skip: TextIO) -> None:
        self.files: list[Path] = []
        self.lines = 0
        self._overrides, self._days = selection.overrides, selection.sources.days
        self._skip, self._skipped, self._known_until = skip, 0, 0
        self._overridden: set[str] = set()

    def meets(self, segment: Segment) -> bool:
        """Return whether the selection has the segment, if it needs anything of it or not."""
        first, last = self._days
        if not (first <= segment.day <= last and self._overrides.knows(segment)):
            return False
        self._known_until = max(self._known_until, segment.recorded_at)  # must not cover what was recorded since
        return True

    def takes(self, segment: Segment, verdicts: Mapping[int, Verdict], frames: Sequence[Frame]) -> bool:
        """Note which deliveries of the segment do not count. Return whether any does."""
        duplicates, counting = self._overrides.duplicates, self._overrides.counting.get(segment.batch_id, {})
        seqs = [
            seq for seq, it in verdicts.items() if it == _UNRECORDED or not (duplicates or counting.get(seq, False))
        ]
        if len(seqs) == segment.deliveries:  # nothing of it counts
            return False
        if counting and segment.batch_id not in self._overridden:  # in whichever segment of the batch they are
            self._overridden.add(segment.batch_id)
            seqs += [seq for seq, counts in counting.items() if not counts]
        self._skip.writelines(f"{segment.batch_id},{seq}\n" for seq in seqs)
        self._skipped += len(seqs)
        self.lines += sum(frame.lines for frame in frames)
        return True

    def gathered(self) -> GatheredRaw:
        """Return all of it, to be read now."""
        from pik.ports.engine import Inputs  # only what computes needs it

        self._skip.close()
        added = self._overrides.added
        inputs = Inputs(
            [*self.files, *(path for path, _ in added)],
            self.lines + sum(count for _, count in added),
            Path(self._skip.name) if self._skipped else None,
            duplicates=self._overrides.duplicates,
            rules=self._overrides.rules,
        )
        return GatheredRaw(inputs, self._known_until)


_ACCEPTED, _UNRECORDED = Verdict.ACCEPTED, Verdict.UNRECORDED  # members are slow to look up


def _append(target: Path, raw: Raw, segment: Segment, frames: Sequence[Frame]) -> None:
    """Append frames to a file: frames one after the other are a zstd file. Raises Damaged for one that cannot be read:
    the reader of the copy does not know its segment."""
    with open(target, "ab") as file:
        for frame, data in stored_frames(raw, segment, frames):
            frame_text(segment, frame, data)
            file.write(data)


def stored_frames(raw: Raw, segment: Segment, frames: Sequence[Frame]) -> Iterator[tuple[Frame, memoryview]]:
    """Yield frames of a segment as they are stored; adjacent ones are read together. Raises Damaged."""
    for together in _adjacent(frames):
        first, last = together[0], together[-1]
        data = memoryview(frame_bytes(raw, segment, first, last))
        for frame in together:
            yield frame, data[frame.offset - first.offset :][: frame.length]


def _adjacent(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Yield runs of frames without a gap between them, each of at most about _READ_TOGETHER bytes."""
    together: list[Frame] = []
    for frame in frames:
        if together and (
            frame.offset != together[-1].offset + together[-1].length
            or frame.offset - together[0].offset > _READ_TOGETHER
        ):
            yield together
            together = []
        together.append(frame)
    if together:
        yield together


@dataclass(frozen=True, slots=True)
class RecordedDelivery:
    """A delivery read back, its verdict, and where it is."""

    delivery: Delivery
    kind: Verdict
    segment: Segment
    line: bytes


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


def deliveries(
    store: Store,
    wanted: Filter,
    *,
    only: Literal["accepted", "duplicate"] | None = None,
    progress: Progress = SILENT,
    bound: Bound | None = None,
    holds: Callable[[Segment], bool] | None = None,
) -> Generator[RecordedDelivery, None, None]:
    """Yield the deliveries asked for, day by day and within a day in no particular order; with `only`, just the
    accepted ones or just the duplicates. Those after the current `bound` may be left out, and where `holds` chooses
    segments, what is neither in those nor a duplicate of the same day."""
    bound = bound or Bound()
    marks = [entity_mark(entity) for entity in wanted.entities] if len(wanted.entities) <= 8 else []
    with showing(progress, "reading raw", None, "deliveries"):
        selection = Selection(store, wanted.window, wanted.entities)
        days = {segment.day for segment in selection.segments() if holds(segment)} if holds else None
        for segment, frames in selection.needed():
            if bound.excludes(segment) or (days is not None and segment.day not in days):
                continue
            verdicts = store.index.skipped(segment)
            if not verdicts and (only == "duplicate" or (holds is not None and not holds(segment))):
                continue
            for frame in frames:
                for line in frame_lines(store.raw, segment, frame):
                    if marks and not any(mark in line for mark in marks):
                        continue
                    if bound.day == segment.day and (event_time_text(line), event_id_text(line)) > bound.texts:
                        continue
                    delivery = parse(segment.key, line)
                    verdict = verdicts.get(delivery.seq, _ACCEPTED)
                    if verdict == _UNRECORDED or (only and (verdict == _ACCEPTED) != (only == "accepted")):
                        continue
                    if wanted.matches(delivery):
                        yield RecordedDelivery(delivery, verdict, segment, line)
                progress.advance(frame.lines)
