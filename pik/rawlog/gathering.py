"""Gathering the raw that selections need as files for the engine: what counts, or every delivery with its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir
from typing import TYPE_CHECKING, TextIO

from pik.errors import Damaged, Unreadable, UsageError
from pik.model.batch import Frame, Segment, Verdict
from pik.model.correction import Correction, CorrectionList
from pik.model.instant import full_instant
from pik.model.window import Window
from pik.ports.raw import Raw
from pik.rawlog.corrected import Days
from pik.rawlog.corrections import listed_frames
from pik.rawlog.objects import damaged, frame_lines, frame_text, stored_frames
from pik.rawlog.selection import Selection, segments_of
from pik.runtime.storage import Spool, scratch, temporary_files

if TYPE_CHECKING:
    from pik.ports.engine import CorrectionFiles, DeliveryFiles, Inputs

_UNRECORDED = Verdict.UNRECORDED  # a member is slow to look up


class TooMuch(UsageError):
    """There are more lines than the caller wanted to read."""


@dataclass(frozen=True, slots=True)
class GatheredRaw:
    """Raw as files for the engine. `known_until` is that of the selection."""

    inputs: Inputs
    known_until: int


@dataclass(slots=True)
class Pieces:
    """The segments of a selection, and how many of them each piece has."""

    segments: Spool[Segment]
    counts: list[int]

    def __iter__(self) -> Iterator[Iterator[Segment]]:
        """Yield the segments of each piece, to be read before the next one."""
        each = iter(self.segments)
        return (islice(each, count) for count in self.counts)


PIECE_BYTES = 256 << 20
"""Raw that is read together, at most, where it can be read piece by piece."""

_SHARE = 4
"""The part of the scratch space that raw may take: the rest is for what the pieces come to, and for the engine."""


def piece_bytes() -> int:
    """Return how many bytes of raw may be read together here: raw of a deployed store is in temporary files meanwhile,
    for which a function has half a gigabyte."""
    with temporary_files():
        return max(1, min(PIECE_BYTES, disk_usage(gettempdir()).free // _SHARE))


def cut_by_size(selection: Selection, size: int | None = None) -> Pieces:
    """Cut the selection's segments into pieces, at least one, of each of which about so many bytes are needed (None: as
    many as may be read together)."""
    pieces, held = Pieces(Spool(Segment), [0]), 0
    size = piece_bytes() if size is None else size
    for segment in selection.segments():
        if held >= size:
            pieces.counts.append(0)
            held = 0
        pieces.segments.add(segment)
        pieces.counts[-1] += 1
        held += selection.size_of(segment)
    return pieces


@contextmanager
def gather(
    selection: Selection, segments: Iterable[Segment] | None = None, *, at_most: int | None = None
) -> Iterator[GatheredRaw]:
    """Provide every delivery of the window (and of the entities) as files for as long as the context lasts, or those in
    some of the selection's segments.

    The window's days are covered whole; the engine selects. Duplicates are listed to be skipped, unless they count.
    Raises Damaged when an object is missing or does not have its length; TooMuch, before any of it is read, when
    that would be more than `at_most` lines.
    """
    these = selection.segments() if segments is None else segments
    with _gather_each([selection], these, at_most=at_most) as [gathered]:
        yield gathered


@contextmanager
def gather_deliveries(selection: Selection, listed: Sequence[Correction] = ()) -> Iterator[DeliveryFiles]:
    """Provide every delivery of the window's days (and of the entities) as files, with its verdict, for as long as
    the context lasts; with them what corrections list, those that move only for these days. Raises Damaged as `gather`
    does."""
    from pik.ports.engine import DeliveryFiles

    lines, chosen, batches, is_anywhere = 0, Spool(Segment), set[str](), False
    with scratch() as directory, ExitStack() as stack:
        verdicts, blocks = directory / "verdicts.csv", directory / "blocks.csv"
        with open(verdicts, "w", encoding="ascii") as of_each, open(blocks, "w", encoding="ascii") as of_block:
            for segment in selection.recorded_segments():
                frames = selection.frames(segment)
                if not frames:
                    continue
                kinds = selection.store.index.skipped(segment)
                of_each.writelines(f"{segment.batch_id},{seq},{kind}\n" for seq, kind in kinds.items())
                ingested = full_instant(segment.ingest_time)
                of_block.write(f"{segment.batch_id},{ingested},{segment.recorded_at}\n")
                if not is_anywhere:
                    is_anywhere = selection.corrected.may_take_out_elsewhere(kinds.values(), segment.recorded_at)
                lines += sum(frame.lines for frame in frames)
                chosen.add(segment)
                batches.add(segment.batch_id)
        files, whole = stack.enter_context(_files(selection, chosen, directory))
        withdrawn = [one for one in selection.corrected.withdrawn.items() if one[0] in batches]
        lists = _ListFiles(selection, directory, stack)
        yield DeliveryFiles(
            *(files, lines, verdicts, blocks, whole),
            corrections=lists.of(selection, is_anywhere=is_anywhere),
            choices=_choices(selection, batches, directory / "choices.csv"),
            withdrawn=withdrawn,
            listed=lists.listed(selection, listed),
        )


def _choices(selection: Selection, batches: Set[str], target: Path) -> Path | None:
    """Write which of the deliveries of these batches count by corrections, and by which; None: there are none."""
    corrected, count = selection.corrected, 0
    if not corrected.chooses:
        return None
    withdrawn = corrected.withdrawn
    with open(target, "w", encoding="ascii") as file:
        for correction_id, of_batches in corrected.heirs(selection.days, withdrawn, selection.overrides.until).items():
            for batch_id in of_batches.keys() & batches:
                for seq in of_batches[batch_id]:
                    count += 1
                    file.write(f"{count},{batch_id},{seq},true,{correction_id}\n")
        for one in corrected.choices(selection.days, selection.entities, withdrawn):
            if one.batch_id in batches:
                count += 1
                file.write(f"{count},{one.batch_id},{one.seq},{str(one.counts).lower()},{one.correction_id}\n")
    return target if count else None


class _ListFiles:
    """The lists of corrections as files, each made once, for selections of the same entities."""

    def __init__(self, selection: Selection, directory: Path, stack: ExitStack) -> None:
        self._raw, self._entities = selection.store.raw, selection.entities
        self._directory, self._stack = directory, stack
        self._made: dict[str, tuple[Path, int] | None] = {}

    def of(self, selection: Selection, *, is_anywhere: bool = False) -> tuple[CorrectionFiles, ...]:
        """Provide the lists that the selection needs, in the order of the log; where events that are out may have
        deliveries on days on which none is listed, those of all days. Raises Damaged."""
        corrected, overrides = selection.corrected, selection.overrides
        if not corrected:
            return ()
        is_anywhere = is_anywhere or overrides.duplicates or overrides.settled or corrected.removes_anywhere
        everywhere = None if is_anywhere else selection.days
        removing = self._provided(selection, corrected.removing, everywhere)
        return (*removing, *self._provided(selection, corrected.moving, selection.days))

    def listed(self, selection: Selection, corrections: Sequence[Correction]) -> tuple[CorrectionFiles, ...]:
        """Provide the lists of these corrections, of those that move only those for the selection's days."""
        moving = [one for one in corrections if one.kind.moves]
        others = [one for one in corrections if not one.kind.moves]
        return (*self._provided(selection, others, None), *self._provided(selection, moving, selection.days))

    def _provided(
        self, selection: Selection, corrections: Sequence[Correction], days: Days | None
    ) -> Iterator[CorrectionFiles]:
        from pik.ports.engine import CorrectionFiles

        for one, lists in selection.corrected.lists(corrections, days, selection.entities):
            self._make(one, lists)
            files = [file for listed in lists if (file := self._made[listed.key]) is not None]
            if files:
                paths, lines = [path for path, _ in files], sum(count for _, count in files)
                yield CorrectionFiles(one.kind.moves, one.correction_id, paths, lines)

    def _make(self, correction: Correction, lists: Sequence[CorrectionList]) -> None:
        """Provide lists, or their frames that may hold the entities, as files, with their numbers of lines."""
        lists = [listed for listed in lists if listed.key not in self._made]
        if self._entities:
            self._made.update((listed.key, self._cut(correction, listed)) for listed in lists)
            return
        paths = self._stack.enter_context(self._raw.files([listed.key for listed in lists]))
        for listed, path in zip(lists, paths, strict=True):
            size = path.stat().st_size
            if size != listed.size:
                raise damaged(listed.key, f"it has {size} bytes, not {listed.size}")
            self._made[listed.key] = path, listed.deliveries

    def _cut(self, correction: Correction, listed: CorrectionList) -> tuple[Path, int] | None:
        frames = listed_frames(listed, self._entities)
        if not frames:
            return None
        target = self._directory / f"{correction.correction_id}-{len(self._made)}.ndjson.zst"
        with open(target, "wb") as file:
            for frame in frames:
                data = self._raw.read(listed.key, frame.offset, frame.length)
                frame_text(listed, frame, data)
                file.write(data)
        return target, sum(frame.lines for frame in frames)


@contextmanager
def _files(
    selection: Selection, segments: Iterable[Segment], directory: Path, number: int = 0
) -> Iterator[tuple[list[Path], list[Segment]]]:
    """Provide the segments, or their frames that may hold the entities, as files; and the segments whose whole
    objects the first of the files are. Raises Damaged."""
    cut = directory / f"frames-{number}.ndjson.zst"
    whole: list[Segment] = []
    for segment in segments:
        is_partial = segment.key in selection.overrides.unreadable or bool(segment.unknown_frames)
        if not selection.takes_all or segment.has_copy or is_partial:
            _append(cut, selection.store.raw, segment, selection.frames(segment))
        else:
            whole.append(segment)
    with selection.store.raw.files([segment.key for segment in whole]) as paths:
        for segment, path in zip(whole, paths, strict=True):
            # A cut object must not make a smaller number; flipped bits are found by the frames' checksums.
            size = path.stat().st_size
            if size != segment.size:
                raise damaged(segment.key, f"it has {size} bytes, not {segment.size}")
        yield [*paths, cut] if cut.exists() else paths, whole


@contextmanager
def gather_together(selections: Sequence[Selection]) -> Iterator[list[GatheredRaw]]:
    """Provide what each of several selections gathers, of the same entities under several overrides, which leave out
    the same frames; their windows overlap. Raw that they share is read once. Raises as `gather` does."""
    first = selections[0]
    sources = [one.sources for one in selections]
    window = Window(min(one.start for one in sources), max(one.end for one in sources))
    days = Days(window, frozenset[int]().union(*(one.days.others for one in selections)))
    with _gather_each(selections, segments_of(first.store, days, first.entities)) as gathered:
        yield gathered


@contextmanager
def _gather_each(
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
            frames = selections[0].frames(segment) if those else []
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
            files, _ = stack.enter_context(_files(selections[0], spool, directory, number))
            for each in needing:
                ours[each].files += files
        lists = _ListFiles(selections[0], directory, stack)
        yield [one.gathered(lists) for one in ours]


class _Gathering:
    """What one selection gathers."""

    def __init__(self, selection: Selection, skip: TextIO) -> None:
        self.files: list[Path] = []
        self.lines = 0
        self._selection, self._overrides, self._days = selection, selection.overrides, selection.days
        self._withdrawn = selection.corrected.withdrawn
        self._counting = selection.counting()
        self._skip, self._skipped, self._known_until = skip, 0, 0
        self._overridden: set[str] = set()

    def meets(self, segment: Segment) -> bool:
        """Return whether the selection has the segment, if it needs anything of it or not."""
        if segment.day not in self._days or segment.batch_id in self._withdrawn or not self._overrides.knows(segment):
            return False
        self._known_until = max(self._known_until, segment.recorded_at)  # must not cover what was recorded since
        return True

    def takes(self, segment: Segment, verdicts: Mapping[int, Verdict], frames: Sequence[Frame]) -> bool:
        """Note which deliveries of the segment do not count. Return whether any does."""
        duplicates, counting = self._overrides.duplicates, self._counting.get(segment.batch_id, {})
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

    def gathered(self, lists: _ListFiles) -> GatheredRaw:
        """Return all of it, to be read now. Raises Damaged."""
        from pik.ports.engine import Inputs

        self._skip.close()
        added = self._overrides.added
        inputs = Inputs(
            [*self.files, *(path for path, _ in added)],
            self.lines + sum(count for _, count in added),
            Path(self._skip.name) if self._skipped else None,
            duplicates=self._overrides.duplicates,
            rules=self._overrides.rules,
            corrections=lists.of(self._selection),
            entity_range=self._selection.entity_range,
        )
        return GatheredRaw(inputs, self._known_until)


def unreadable_frames(selections: Iterable[Selection]) -> dict[str, frozenset[int]]:
    """Return the offsets of the frames that gathering these selections needs and that cannot be read, by the key of
    their segment, in the form of `Overrides.unreadable`; those that the selections leave out are among them."""
    found: dict[str, frozenset[int]] = {}
    for selection in selections:
        for segment in selection.segments():
            if segment.key not in found and (damage := _damaged_offsets(selection, segment)):
                found[segment.key] = damage | selection.overrides.unreadable.get(segment.key, frozenset())
    return found


def _damaged_offsets(selection: Selection, segment: Segment) -> frozenset[int]:
    raw, frames = selection.store.raw, selection.frames(segment)
    offsets: set[int] = set()
    for frame in frames:
        try:
            frame_lines(raw, segment, frame)
        except Unreadable:
            return frozenset(each.offset for each in frames)
        except Damaged:
            if not offsets and raw.size(segment.key) is None:
                return frozenset(each.offset for each in frames)
            offsets.add(frame.offset)
    return frozenset(offsets)


def _append(target: Path, raw: Raw, segment: Segment, frames: Sequence[Frame]) -> None:
    """Append frames to a file: frames one after the other are a zstd file. Raises Damaged for one that cannot be read:
    the reader of the copy does not know its segment."""
    with open(target, "ab") as file:
        for frame, data in stored_frames(raw, segment, frames):
            frame_text(segment, frame, data)
            file.write(data)
