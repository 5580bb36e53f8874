"""Gathers the raw that a computation reads: whole segments, or just the frames of some entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pik.errors import Damaged
from pik.model.batch import UNRECORDED, Frame, Segment
from pik.model.window import Window
from pik.ports.engine import Inputs
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.usecases.reading import damaged, frame_bytes, frame_text, frames_of


@dataclass(frozen=True, slots=True)
class Gathered:
    """Raw for the engine. `known_until` is the latest time at which the index took one of the segments (0: none)."""

    inputs: Inputs
    known_until: int
    empty: bool


@contextmanager
def gather(
    store: Store,
    window: Window,
    entities: Sequence[str] = (),
    *,
    include_duplicates: bool = False,
    until: int | None = None,
) -> Iterator[Gathered]:
    """The raw that holds every delivery of the window (and of the entities), as files for as long as the context lasts.

    The window's days are covered whole; the engine selects. Duplicates are listed to be skipped, unless included. With
    `until`, segments that the index took later than that are left out.
    Raises Damaged when an object is missing or is not as long as it was.
    """
    with store.raw.scratch() as scratch:
        known_until = lines = 0
        whole: list[str] = []
        skip = _SkipFile(scratch / "skip.csv")
        cut = scratch / "frames.ndjson.zst"
        for segment in store.index.segments(window, entities=entities):
            if until is not None and segment.recorded_at > until:
                continue
            known_until = max(known_until, segment.recorded_at)
            frames = frames_of(segment, entities)
            if not frames:
                continue
            if not skip.add(segment, store, include_duplicates=include_duplicates):
                continue
            if entities or segment.inline:
                _append(cut, store.raw, segment, frames)
            else:
                _expect_whole(store.raw, segment)
                whole.append(segment.key)
            lines += sum(frame.lines for frame in frames)
        skip.close()
        with store.raw.files(whole) as paths:
            files: list[Path] = [*paths, cut] if cut.exists() else paths
            yield Gathered(Inputs(files, lines, skip.path if skip.lines else None), known_until, not files)


class _SkipFile:
    """The CSV file of the deliveries that do not count: batch_id,seq."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self._file = open(path, "w", encoding="ascii")  # noqa: SIM115 - closed by `close`

    def add(self, segment: Segment, store: Store, *, include_duplicates: bool) -> bool:
        """Add the segment's duplicates; false if it holds nothing else, and so need not be read at all."""
        verdicts = store.index.skipped(segment)
        skipped = [seq for seq, kind in verdicts.items() if kind == UNRECORDED or not include_duplicates]
        if len(skipped) == segment.deliveries:
            return False
        self._file.writelines(f"{segment.batch_id},{seq}\n" for seq in skipped)
        self.lines += len(skipped)
        return True

    def close(self) -> None:
        self._file.close()


def _expect_whole(raw: Raw, segment: Segment) -> None:
    """A cut or missing object must not make a smaller number; flipped bits are found by the frames' checksums."""
    size = raw.size(segment.key)
    if size is None:
        raise Damaged(f"raw object {segment.key} is missing", hint="pik verify --full tells what is affected")
    if size != segment.size:
        raise damaged(segment.key, f"it has {size} bytes, not {segment.size}")


def _append(target: Path, raw: Raw, segment: Segment, frames: Sequence[Frame]) -> None:
    """Copy frames behind what is there already: frames one after the other are a zstd file. Raises Damaged for one that
    cannot be read: whoever reads the copy does not know whose it is."""
    with open(target, "ab") as file:
        for frame in frames:
            data = frame_bytes(raw, segment, frame)
            frame_text(segment, frame, data)
            file.write(data)
