"""What raw and the replaced index have of each batch, for a rebuild, which restores one batch after the other.

All of it is sorted on disk, so that memory does not grow with the number of batches or segments.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any

from pik.model.batch import OF_REQUEST, Batch, BatchState, Origin, Segment, Verdict
from pik.model.ids import creation_time
from pik.ports.index import Beside
from pik.ports.raw import Raw, RawKey, RawKind, keys_of, number_of
from pik.rawlog.sealed_records import OpeningLine, attempt_of
from pik.runtime.parallel import map_in_threads
from pik.runtime.storage import Sorter
from pik.usecases.care.rebuild_segments import AHEAD, READERS, ReplacedIndex, Scan, SegmentVerdicts, scan

_IN_MEMORY = 5_000
"""Batches and segments of the replaced index that are sorted in memory: a segment may have many frames."""

_OBJECT, _ROW, _SEGMENT = range(3)
"""The order in which a rebuild gets what there is of a batch."""

_KINDS = RawKind.SEGMENT, RawKind.REJECTS, RawKind.OPENING, RawKind.BLOCK
_FINISHED, _BESIDE, _BEGUN = -3, -2, -1
"""Stand for the kind of an object: the batch has a record; its writer records it in the new index, too; its writer was
to do so, but has not come so far yet, or has died."""

_AT_ONCE = 100
"""Batches of which is asked together whether they are recorded beside the rebuild."""


@dataclass(frozen=True, slots=True)
class BatchObjects:
    """The keys of a batch's objects in raw, but for its record."""

    batch_id: str
    segments: list[str] = field(default_factory=list)
    rejects: list[str] = field(default_factory=list)
    openings: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.segments or self.rejects or self.is_logged)

    @property
    def is_request(self) -> bool:
        """Whether it is an API request, whose segments are its record."""
        return all(number_of(key) == OF_REQUEST for key in (*self.segments, *self.rejects)) and not self.is_logged

    @property
    def is_logged(self) -> bool:
        """Whether it has more than one block, so that block records show how far it came."""
        return bool(self.openings or self.blocks)

    def interrupted(self, opening: OpeningLine | None, last_seq: int) -> Batch:
        """Return it as a batch that ended before it had a record, of whose input this seq was the last to be
        recorded."""
        unknown = Origin(name="(interrupted; its origin was in the lost index)", content=f"lost:{self.batch_id}")
        numbered = (*self.segments, *self.rejects, *self.blocks)
        return Batch(
            batch_id=self.batch_id,
            origin=opening.origin if opening else unknown,
            state=BatchState.INTERRUPTED,
            attempt=max([1, *(attempt_of(number_of(key)) for key in numbered)]),
            started_at=opening.started_at if opening else creation_time(self.batch_id),
            actor=opening.actor if opening else "",
            next_seq=last_seq + 1,
        )


@dataclass(frozen=True, slots=True)
class ListedSegment:
    """A segment that the replaced index lists, with its duplicates there, and what reading it gave."""

    row: Segment
    verdicts: dict[int, Verdict]
    found: Scan


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The end of a batch: of a request what reading the segments gave that the replaced index does not list."""

    found: dict[str, Scan]


Piece = BatchObjects | Batch | ListedSegment | Unlisted
"""Of a batch without a record, in this order: its objects in raw; its row in the replaced index, if any; the segments
that this lists; the end."""


class ByBatch:
    """Collects what there is of each batch."""

    def __init__(self) -> None:
        self.beside = 0
        """Segments in raw of batches that are recorded beside the rebuild; final once `unfinished` was read."""
        self._objects: Sorter[tuple[str, int, int, str]] = Sorter(itemgetter(0, 2, 3))
        self._rows: Sorter[tuple[str, int, Batch]] = Sorter(itemgetter(0), in_memory=_IN_MEMORY)
        self._listed: Sorter[tuple[str, int, str, SegmentVerdicts]] = Sorter(itemgetter(0, 2), in_memory=_IN_MEMORY)

    def note_finished(self, batch_id: str) -> None:
        """Note that the batch has a record, from which it was restored."""
        self._objects.add((batch_id, _OBJECT, _FINISHED, ""))

    def gather(self, raw: Raw, replaced: ReplacedIndex, beside: Beside) -> int:
        """Read the lists of raw and all of the replaced index. Return the number of segments in raw.

        Objects are listed before what recorded them, and segments of the index before its batches, so that there is a
        batch for each that is recorded meanwhile.
        """
        segments = 0
        for number, kind in enumerate(_KINDS):
            for object_key in keys_of(raw, kind):
                segments += kind is RawKind.SEGMENT
                self._objects.add((object_key.id, _OBJECT, number, str(object_key)))
        beside.await_writers()
        for segment, verdicts in replaced.segments():
            if (key := RawKey.parse(segment.key)) is not None:
                self._listed.add((key.id, _SEGMENT, segment.key, (segment, verdicts)))
        batches = replaced.batches()
        while some := list(islice(batches, _AT_ONCE)):
            both, begun = beside.batches([batch.batch_id for batch in some])
            for batch_id in both:
                self._objects.add((batch_id, _OBJECT, _BEGUN if batch_id in begun else _BESIDE, ""))
            for batch in some:
                self._rows.add((batch.batch_id, _ROW, batch))
            if len(both) < len(some):
                replaced.is_known = True
        return segments

    def listed(self) -> Iterator[SegmentVerdicts]:
        """Yield the segments that the replaced index lists, each once, but those that are recorded beside the
        rebuild."""
        for _, of_batch in groupby(self._all(), key=itemgetter(0)):
            for stage, entries in groupby(of_batch, key=itemgetter(1)):
                if stage == _OBJECT and next(entries)[2] in (_BESIDE, _BEGUN):
                    break
                if stage == _SEGMENT:
                    for _, same in groupby(entries, key=itemgetter(2)):
                        yield next(same)[3]

    def unfinished(self, raw: Raw) -> Iterator[tuple[str, Iterator[Piece]]]:
        """Yield the batches without a record by id, each with what there is of it; objects are read ahead."""

        def read(piece: tuple[str, Any]) -> tuple[str, Piece]:
            batch_id, content = piece
            if isinstance(content, tuple):
                segment, verdicts = content
                return batch_id, ListedSegment(segment, verdicts, scan(raw, segment.key))
            if isinstance(content, list):
                return batch_id, Unlisted({key: scan(raw, key) for key in content})
            return batch_id, content

        pieces = map_in_threads(read, self._pieces(), READERS, AHEAD)
        for batch_id, of_batch in groupby(pieces, key=itemgetter(0)):
            yield batch_id, map(itemgetter(1), of_batch)

    def _pieces(self) -> Iterator[tuple[str, Any]]:
        """Yield the batches' pieces with what is to be read: of a segment the row, of the end the keys."""
        for batch_id, entries in groupby(self._all(), key=itemgetter(0)):
            stages = groupby(entries, key=itemgetter(1))
            stage, of_stage = next(stages)
            objects = BatchObjects(batch_id)
            if stage == _OBJECT:
                kinds = objects.segments, objects.rejects, objects.openings, objects.blocks
                first = next(of_stage)[2:]
                if first[0] in (_FINISHED, _BESIDE):
                    if first[0] == _BESIDE:
                        self.beside += sum(_KINDS[entry[2]] is RawKind.SEGMENT for entry in of_stage)
                    continue
                is_begun = first[0] == _BEGUN
                for kind, key in chain(() if is_begun else (first,), (entry[2:] for entry in of_stage)):
                    kinds[kind].append(key)
                # Where its objects were listed, its writer had ended before the index was read, so it has died.
                if is_begun and not objects:
                    continue
                stage, of_stage = next(stages, (None, iter(())))
            yield batch_id, objects
            left = dict.fromkeys(objects.segments if objects.is_request else ())
            while stage is not None:
                if stage == _ROW:
                    yield batch_id, next(of_stage)[2]
                else:
                    for key, same in groupby(of_stage, key=itemgetter(2)):
                        left.pop(key, None)
                        yield batch_id, next(same)[3]
                stage, of_stage = next(stages, (None, iter(())))
            yield batch_id, list(left)

    def _all(self) -> Iterator[tuple[Any, ...]]:
        """Yield all that there is of each batch, ordered by batch and stage."""
        return heapq.merge(self._objects, self._rows, self._listed, key=itemgetter(0, 1))
