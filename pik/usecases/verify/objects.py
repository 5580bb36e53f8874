"""Verifying the objects in raw beside listed segments: of a known kind and batch, sealed records whole."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import msgspec

from pik.errors import Damaged, Invalid
from pik.model.batch import OF_REQUEST, Batch, BatchState, Frame, Reject
from pik.model.instant import parse_instant
from pik.model.window import ALL_TIME
from pik.ports.index import Index
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.block_record import block_key, block_keys, read_block, recorded_blocks
from pik.rawlog.correction_log import correction_keys, read_winners
from pik.rawlog.frames import damaged, unpacked
from pik.rawlog.opening_record import opening_key, opening_keys, read_opening
from pik.rawlog.segment_reader import scan_segment, seqs
from pik.usecases.availability import has_expired
from pik.usecases.ingest.replaced_batches import PREFIX as CLOSINGS
from pik.usecases.ingest.replaced_batches import read_closing
from pik.usecases.verify.findings import INDEX, MISSING, MODIFIED, UNKNOWN, Problem, Tally, entity_ranges

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
        elif batch.state == BatchState.RUNNING:
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
            lost = (
                seqs_left if batch.state == BatchState.COMPLETE else {seq for seq in seqs_left if seq < batch.next_seq}
            )
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


_RECORD = re.compile(r"raw/batches/()([0-9A-Z]{26})\.ndjson\.zst")
_PULL = re.compile(r"raw/pulls/()([0-9A-Z]{26})\.ndjson\.zst")


@dataclass(frozen=True, slots=True)
class Objects:
    """Checks the objects that are no segments: those of the window's days are checked by day."""

    store: Store
    tally: Tally

    def problems(self) -> Iterator[Problem]:
        """Objects that nobody expects, and those that the index has lost."""
        for (kind, batch_id), keys in groupby((found.key for found in self.store.raw.objects("raw/")), key=_kind):
            if kind is REJECTS:
                yield from self._rejects(batch_id, list(keys))
            elif kind is _RECORD:
                if find_batch(self.store.index, batch_id) is None:
                    for key in keys:
                        yield Problem(INDEX, key, "the index does not know this batch")
            elif kind is None:
                for key in keys:
                    yield Problem(UNKNOWN, key, "pik did not write an object of such a name")

    def _rejects(self, batch_id: str, keys: list[str]) -> Iterator[Problem]:
        batch = find_batch(self.store.index, batch_id)  # before its files are: see Unlisted
        listed = {file.key for file in self.store.index.rejects(batch_id)}
        others = [key for key in keys if key not in listed]
        yield from Unlisted(self.store, self.tally, reject_content).problems(batch, others, sorted(listed))


def _kind(key: str) -> tuple[re.Pattern[str] | None, str]:
    """The pattern that a key matches, and its batch (of segments none, for they come by the thousand)."""
    for pattern in (SEGMENT, REJECTS, _RECORD, _PULL, OPENING, BLOCK, CLOSING):
        if match := pattern.fullmatch(key):
            if pattern is SEGMENT:
                return (pattern, "") if _is_day(match[1]) else (None, "")
            return pattern, match[2]
    return None, ""


def _is_day(text: str) -> bool:
    try:
        parse_instant(text, date_only=True)
    except Invalid:
        return False
    return True


CLOSING = re.compile(r"raw/closings/()([0-9A-Z]{26})\.ndjson\.zst")
OPENING = re.compile(r"raw/openings/()([0-9A-Z]{26})\.ndjson\.zst")
BLOCK = re.compile(r"raw/blocks/()([0-9A-Z]{26})-\d+\.ndjson\.zst")


@dataclass(frozen=True, slots=True)
class Openings:
    """Reads each record whole: it is one line, or one for each event whose winner changed."""

    store: Store

    def problems(self) -> Iterator[Problem]:
        """Records that are not as they were written, or of batches that the index has lost."""
        yield from self._of_batches(opening_keys(self.store.raw), read_opening)
        yield from self._of_batches(block_keys(self.store.raw), read_block)
        for found in self.store.raw.objects(CLOSINGS):
            try:
                line = read_closing(self.store.raw, found.key)
            except Damaged as error:
                yield Problem(MODIFIED, found.key, error.message)
            else:
                for batch_id in (line.batch_id, line.replaced_by):
                    if find_batch(self.store.index, batch_id) is None:
                        yield Problem(INDEX, found.key, f"the index does not know batch {batch_id}")
        yield from self._corrections()

    def _corrections(self) -> Iterator[Problem]:
        there = correction_keys(self.store.raw)
        followed = self.store.audit.corrections()
        for key in there:
            try:
                deque(read_winners(self.store.raw, key), maxlen=0)
            except Damaged as error:
                yield Problem(MODIFIED, key, error.message)
            else:
                if key not in followed:
                    yield Problem(INDEX, key, "the index was not made by following this correction")
        for key in sorted(followed.difference(there)):
            yield Problem(MISSING, key, "the index follows this correction; the next rebuild would forget it")

    def _of_batches(self, keys: Iterator[tuple[str, str]], read: Callable[[Raw, str], object]) -> Iterator[Problem]:
        for batch_id, of_batch in groupby(keys, key=itemgetter(1)):
            known = find_batch(self.store.index, batch_id) is not None
            for key, _ in of_batch:
                try:
                    read(self.store.raw, key)
                except Damaged as error:
                    yield Problem(MODIFIED, key, error.message)
                else:
                    if not known:
                        yield Problem(INDEX, key, "the index does not know this batch")


def missing_openings(store: Store, batch: Batch) -> Iterator[Problem]:
    """What is missing of the opening record and the block records of an interrupted batch of several blocks. A finished
    batch does not need them any more: its own record says all that they do."""
    if batch.state != BatchState.INTERRUPTED or batch.is_request or has_expired(store, batch.started_at):
        return
    opening = opening_key(batch.batch_id)
    there = store.raw.size(opening) is not None
    keys = [key for key, _ in block_keys(store.raw, batch.batch_id)]
    numbers = {s.key.rpartition("-")[2] for s in store.index.segments(ALL_TIME, batch_id=batch.batch_id)}
    if not there and (keys or len(numbers) > 1):
        yield Problem(MISSING, opening, "the opening record of this interrupted batch is not there")
    if there:
        yield from _other_opening(store, batch, opening)
    if there or keys or len(numbers) > 1:
        yield from _missing_blocks(store, batch, keys)


def _other_opening(store: Store, batch: Batch, key: str) -> Iterator[Problem]:
    with suppress(Damaged):  # which is said of that record
        line = read_opening(store.raw, key)
        if (line.origin, line.started_at) != (batch.origin, batch.started_at):
            yield Problem(INDEX, f"batch {batch.batch_id}", f"the index has another origin or started_at than {key}")


def _missing_blocks(store: Store, batch: Batch, keys: Iterable[str]) -> Iterator[Problem]:
    try:
        blocks = recorded_blocks(read_block(store.raw, key)[0] for key in keys)
    except Damaged:  # which is said of that record
        return
    last_seq, number = (blocks[-1].last_seq, blocks[-1].number) if blocks else (0, 0)
    if last_seq + 1 < batch.next_seq:
        detail = f"the block records of this interrupted batch end at record {last_seq}, it goes on at {batch.next_seq}"
        yield Problem(MISSING, block_key(batch.batch_id, number + 1), detail)
    elif batch.next_seq > 1:
        ends = {(block.last_seq + 1, block.offset, block.prefix_digest) for block in blocks}
        if (batch.next_seq, batch.offset, batch.prefix_digest) not in ends:
            detail = "it does not go on where one of its block records ends"
            yield Problem(INDEX, f"batch {batch.batch_id}", detail)
