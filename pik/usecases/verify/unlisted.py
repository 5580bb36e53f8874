"""Objects in raw that the index does not list: what a crash left, what is being written, or what the index has lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from pik.errors import Damaged
from pik.model.batch import COMPLETE, OF_REQUEST, RUNNING, Batch, Frame, Reject
from pik.ports.index import Index
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.frames import damaged, unpacked
from pik.rawlog.segment_reader import scan_segment, seqs
from pik.usecases.verify.findings import INDEX, MODIFIED, Problem, Tally, entity_ranges

SEGMENT = re.compile(r"raw/event_date=(\d{4}-\d\d-\d\d)/([0-9A-Z]{26})-(\d+)\.ndjson\.zst")
REJECTS = re.compile(r"raw/rejects/()([0-9A-Z]{26})-(\d+)\.ndjson\.zst")
"""The keys of what belongs to a batch: day (of segments), batch and number."""


@dataclass(frozen=True, slots=True)
class Content:
    """The records that an object is about and, of a segment, its frames."""

    seqs: set[int]
    frames: tuple[Frame, ...] = ()


def segment_content(raw: Raw, key: str) -> Content:
    """What a segment holds. Raises Damaged."""
    arrivals = scan_segment(raw, key)
    return Content(seqs(arrivals), arrivals.segment.frames)


def reject_content(raw: Raw, key: str) -> Content:
    """What a file of rejects holds. Raises Damaged."""
    return Content({reject.seq for reject in rejects_of(raw, key)})


def rejects_of(raw: Raw, key: str) -> list[Reject]:
    """The records in a file of rejects. Raises Damaged."""
    try:
        return list(map(_decode_reject, unpacked(key, raw.read(key))))
    except msgspec.MsgspecError as error:
        raise damaged(key, str(error)) from None


_decode_reject = msgspec.json.Decoder(Reject).decode


def find_batch(index: Index, batch_id: str) -> Batch | None:
    """The batch of exactly this id."""
    return next(index.batches(batch_id), None)


@dataclass(frozen=True, slots=True)
class Unlisted:
    """Tells what objects are that the index does not list. `content` reads one of their kind."""

    store: Store
    tally: Tally
    content: Callable[[Raw, str], Content]

    def problems(self, batch: Batch | None, keys: Sequence[str], listed: Iterable[str]) -> Iterator[Problem]:
        """What the index has lost among a batch's objects. It lists the others in `listed`, and was asked for these
        after `batch` was read: so an object of a complete batch that is not among them never will be."""
        if not keys:
            return
        if self.store.copy is not None:  # left by a pull that was interrupted
            self.tally.counts["superseded"] += len(keys)
        elif batch is None:
            yield from self._of_no_batch(keys)
        elif batch.state == RUNNING:
            self.tally.counts["in_progress"] += len(keys)
        else:
            yield from self._left_over(batch, keys, listed)

    def _of_no_batch(self, keys: Iterable[str]) -> Iterator[Problem]:
        """A file's batch is in the index before anything of it is in raw; a request's object comes first."""
        for key in keys:
            if _number(key) != OF_REQUEST:
                yield self._lost(key, "the index does not know this object's batch", Content(set()))
            elif self.store.audit.knows(_batch_id(key)):
                yield self._lost(
                    key, "the index knows this request's batch, but not all that counts it", Content(set())
                )
            else:
                self.tally.counts["unacknowledged"] += 1

    def _left_over(self, batch: Batch, keys: Iterable[str], listed: Iterable[str]) -> Iterator[Problem]:
        contents: dict[str, Content] = {}
        for key in keys:
            try:
                contents[key] = self.content(self.store.raw, key)
            except Damaged as error:
                yield Problem(MODIFIED, key, f"the index does not list it, and it cannot be read: {error.message}")
        left = {key: set(content.seqs) for key, content in contents.items()}
        for key in listed:
            try:
                elsewhere = self.content(self.store.raw, key).seqs
            except Damaged:  # which is reported of that object; what it held cannot be told
                elsewhere = set().union(*left.values()) if left else set()
            for seqs_left in left.values():
                seqs_left -= elsewhere
        for key, seqs_left in left.items():
            lost = seqs_left if batch.state == COMPLETE else {seq for seq in seqs_left if seq < batch.next_seq}
            if lost:
                detail = f"the index lists neither it nor {len(lost)} of its records, the first of them {min(lost)}"
                yield self._lost(key, detail, contents[key])
            else:
                self.tally.counts["unacknowledged" if seqs_left else "superseded"] += 1

    def _lost(self, key: str, detail: str, content: Content) -> Problem:
        self.tally.counts["not_indexed"] += 1
        match = SEGMENT.fullmatch(key) or REJECTS.fullmatch(key)
        assert match is not None, "the caller has looked at the name"
        self.tally.short.add(match[2])
        return Problem(INDEX, key, detail, match[1] or None, entity_ranges(content.frames))


def _number(key: str) -> int:
    return int(key.rpartition("-")[2].partition(".")[0])


def _batch_id(key: str) -> str:
    return key.rpartition("/")[2].partition("-")[0]
