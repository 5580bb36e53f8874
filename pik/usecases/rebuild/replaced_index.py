"""The index that a rebuild replaces: what it says, as far as it can be read."""

from __future__ import annotations

from collections.abc import Iterator

from pik.model.batch import Batch, RejectFile, Segment
from pik.model.instant import MIN_INSTANT
from pik.model.window import ALL_TIME
from pik.ports.index import Index

ALL, PART, NONE = "all", "part", "none"
"""How much of the replaced index could be read. One without any batch says nothing: raw was moved into a new store."""


class Replaced:
    """Reads the replaced index. A damaged one may fail in any way, and then says less; it never stops a rebuild."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._known = False
        self._failed = False

    @property
    def extent(self) -> str:
        """ALL, PART or NONE; final once `batches` and `segments` were read."""
        return NONE if not self._known else PART if self._failed else ALL

    def batches(self) -> Iterator[tuple[Batch, list[RejectFile]]]:
        """The batches, and their files of rejects."""
        try:
            for batch in self._index.batches():
                self._known = True
                yield batch, self._index.rejects(batch.batch_id)
        except Exception:  # noqa: BLE001 - flipped bits in a database show as anything
            self._failed = True

    def segments(self, batch_id: str | None = None) -> Iterator[tuple[Segment, dict[int, str]]]:
        """The segments, of one batch or of all, with their duplicates: seq → exact or conflict."""
        day, seen = MIN_INSTANT, set[str]()  # the day that was come to, and what was seen of it
        try:
            for segment in self._index.segments(ALL_TIME, batch_id=batch_id):
                yield segment, self._index.skipped(segment)
                if segment.day != day:
                    day, seen = segment.day, set()
                seen.add(segment.key)
        except Exception:  # noqa: BLE001 - as above
            self._failed = True
            if batch_id is None:  # one bad row is no reason to lose those of other batches
                for batch, _ in self.batches():
                    of_batch = self.segments(batch.batch_id)
                    yield from (one for one in of_batch if one[0].day >= day and one[0].key not in seen)
