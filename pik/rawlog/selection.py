"""Gathers the raw that a computation reads: whole segments, or just the frames of some entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pik.errors import UsageError
from pik.model.batch import Frame, Segment, Verdict
from pik.model.window import Window
from pik.ports.engine import Inputs
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.frames import damaged, frame_text, frames_of, part_bytes
from pik.runtime.spool import Spool

_AT_ONCE = 4 << 20
"""Bytes of frames that one read gets, about."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Raw for the engine. `known_until` is the latest time at which the index took one of the segments (0: none)."""

    inputs: Inputs
    known_until: int
    empty: bool


class TooMuch(UsageError):
    """There are more lines than the caller wanted to read."""


@contextmanager
def gather(
    store: Store,
    window: Window,
    entities: Sequence[str] = (),
    *,
    include_duplicates: bool = False,
    until: int | None = None,
    at_most: int | None = None,
) -> Iterator[Gathered]:
    """The raw that holds every delivery of the window (and of the entities), as files for as long as the context lasts.

    The window's days are covered whole; the engine selects. Duplicates are listed to be skipped, unless included. With
    `until`, segments that the index took later than that are left out.
    Raises Damaged when an object is missing or is not as long as it was; TooMuch, before any of it is read, when that
    were more than `at_most` lines.
    """
    with store.raw.scratch() as scratch:
        skip = _SkipFile(scratch / "skip.csv")
        choice = _Choice(store, window, entities, skip, include_duplicates, until)
        cut = scratch / "frames.ndjson.zst"
        whole: list[Segment] = []
        for segment in choice.segments() if at_most is None else _few(choice, at_most):
            if entities or segment.inline:
                _append(cut, store.raw, segment, frames_of(segment, entities))
            else:
                whole.append(segment)
        skip.close()
        with store.raw.files([segment.key for segment in whole]) as paths:
            for segment, path in zip(whole, paths, strict=True):
                _expect_whole(segment, path)
            files: list[Path] = [*paths, cut] if cut.exists() else paths
            inputs = Inputs(files, choice.lines, skip.path if skip.lines else None, duplicates=include_duplicates)
            yield Gathered(inputs, choice.known_until, not files)


@dataclass(slots=True)
class _Choice:
    """The segments that have to be read; with them their duplicates are noted. `lines` are theirs, `known_until` is the
    latest time at which the index took one that was looked at."""

    store: Store
    window: Window
    entities: Sequence[str]
    skip: _SkipFile
    include_duplicates: bool
    until: int | None
    lines: int = 0
    known_until: int = 0

    def segments(self) -> Iterator[Segment]:
        for segment in self.store.index.segments(self.window, entities=self.entities):
            if self.until is not None and segment.recorded_at > self.until:
                continue
            self.known_until = max(self.known_until, segment.recorded_at)
            frames = frames_of(segment, self.entities)
            if frames and self.skip.add(segment, self.store, include_duplicates=self.include_duplicates):
                self.lines += sum(frame.lines for frame in frames)
                yield segment


def _few(choice: _Choice, at_most: int) -> Spool[Segment]:
    """The segments, once all of them are known not to be too many."""
    segments = Spool(Segment)
    for segment in choice.segments():
        if choice.lines > at_most:
            raise TooMuch(f"more than {at_most} lines would have to be read")
        segments.add(segment)
    return segments


class _SkipFile:
    """The CSV file of the deliveries that do not count: batch_id,seq."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self._file = open(path, "w", encoding="ascii")  # noqa: SIM115 - closed by `close`

    def add(self, segment: Segment, store: Store, *, include_duplicates: bool) -> bool:
        """Add the segment's duplicates; false if it holds nothing else, and so need not be read at all."""
        verdicts = store.index.skipped(segment)
        skipped = [seq for seq, kind in verdicts.items() if kind == Verdict.UNRECORDED or not include_duplicates]
        if len(skipped) == segment.deliveries:
            return False
        self._file.writelines(f"{segment.batch_id},{seq}\n" for seq in skipped)
        self.lines += len(skipped)
        return True

    def close(self) -> None:
        self._file.close()


def _expect_whole(segment: Segment, path: Path) -> None:
    """A cut object must not make a smaller number; flipped bits are found by the frames' checksums."""
    size = path.stat().st_size
    if size != segment.size:
        raise damaged(segment.key, f"it has {size} bytes, not {segment.size}")


def _append(target: Path, raw: Raw, segment: Segment, frames: Sequence[Frame]) -> None:
    """Copy frames behind what is there already: frames one after the other are a zstd file. Raises Damaged for one that
    cannot be read: whoever reads the copy does not know whose it is."""
    with open(target, "ab") as file:
        for together in _adjacent(frames):
            first, last = together[0], together[-1]
            data = memoryview(part_bytes(raw, segment, first.offset, last.offset + last.length))
            for frame in together:
                frame_text(segment, frame, data[frame.offset - first.offset :][: frame.length])
            file.write(data)


def _adjacent(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Frames without a gap between them, which one read gets, but not of too many bytes."""
    together: list[Frame] = []
    for frame in frames:
        if together and (
            frame.offset != together[-1].offset + together[-1].length or frame.offset - together[0].offset > _AT_ONCE
        ):
            yield together
            together = []
        together.append(frame)
    if together:
        yield together
