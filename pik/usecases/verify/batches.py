"""Verifying batches: their records, their files of rejects, and their counts against their segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from pik.errors import Damaged
from pik.model.batch import Batch, BatchState, Counts, RejectFile, Segment
from pik.model.instant import DAY, MIN_INSTANT
from pik.model.tally import count_lags, with_names
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.batch_record import BatchLine, RejectLine, SegmentLine, read_record, record_key, restored
from pik.rawlog.pull_record import pulls, read_pull
from pik.rawlog.segment_writer import reason_kind
from pik.usecases.availability import has_expired
from pik.usecases.ingest.api_request import request_batch
from pik.usecases.ingest.replaced_batches import closing_key
from pik.usecases.verify.findings import (
    INDEX,
    MISSING,
    MODIFIED,
    Holding,
    Ledger,
    Problem,
    Tally,
    holding_of,
    segment_problem,
)
from pik.usecases.verify.objects import find_batch, missing_openings, rejects_of

_LOOKS = 3
"""How often a batch is counted that does not stay as it is meanwhile."""

_OF_BATCH = (
    *("origin", "started_at", "finished_at", "next_seq", "offset", "prefix_digest", "reasons", "lags"),
    "sources",
)
"""Fields that a batch has in its record and in the index. Not its attempt: a writer that died behind the record leaves
the next attempt nothing to do but finishing the batch."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Checks each batch, the newest first."""

    store: Store
    tally: Tally
    ledger: Ledger

    def problems(self) -> Iterator[Problem]:
        """Everything that differs."""
        if self.store.copy is not None:
            yield from self._pulled()
        holdings = self.ledger.batches()
        holding = next(holdings, None)
        for batch in self.store.index.batches():
            while holding is not None and holding[0] > batch.batch_id:
                yield from self._without_batch(holding[0])
                holding = next(holdings, None)
            mine = Holding()
            if holding is not None and holding[0] == batch.batch_id:
                mine = holding[1]
                holding = next(holdings, None)
            yield from self._of_batch(batch, mine)
        while holding is not None:
            yield from self._without_batch(holding[0])
            holding = next(holdings, None)

    def _without_batch(self, batch_id: str) -> Iterator[Problem]:
        if find_batch(self.store.index, batch_id) is None:
            yield Problem(INDEX, f"batch {batch_id}", "the index lists segments of it, but not the batch")

    def _of_batch(self, batch: Batch, holding: Holding) -> Iterator[Problem]:
        yield from self._rejects(batch)
        yield from missing_openings(self.store, batch)
        record = record_key(batch.batch_id)
        if batch.has_record and self.store.raw.size(record) is None:
            if has_expired(self.store, batch.finished_at or batch.started_at):
                pass
            elif self._is_unnamed(batch):
                yield Problem(INDEX, f"batch {batch.batch_id}", "nothing but its row in the index tells of it")
            else:
                yield Problem(MISSING, record, "the record of this finished batch is not there")
        elif self.tally.full and (batch.has_record or self._left_a_record(batch)):
            yield from self._record(batch)
        if self.tally.full and batch.state not in (BatchState.RUNNING, BatchState.PULLED):
            yield from self._counts(batch, holding)
            if batch.is_request:
                yield from self._request(batch, holding)
            else:
                yield from self._origin(batch)

    def _is_unnamed(self, batch: Batch) -> bool:
        """Whether a batch of which the record is not there has nothing else either: no segment, no file of rejects."""
        index = self.store.index
        segments = index.segments(ALL_TIME, batch_id=batch.batch_id)
        return batch.next_seq > 1 and next(segments, None) is None and not index.rejects(batch.batch_id)

    def _rejects(self, batch: Batch) -> Iterator[Problem]:
        for rejects in self._files(batch):
            if self.store.raw.size(rejects.key) is None:
                if not has_expired(self.store, batch.started_at):
                    yield Problem(MISSING, rejects.key, "the file of rejects is not there")
            elif detail := _reject_damage(self.store, rejects, self.tally.full):
                yield Problem(MODIFIED, rejects.key, detail)

    def _files(self, batch: Batch) -> list[RejectFile]:
        """The batch's files of rejects. Most requests have none, and are not to cost a call for it."""
        return self.store.index.rejects(batch.batch_id) if batch.counts.rejected else []

    def _left_a_record(self, batch: Batch) -> bool:
        """Whether an unfinished batch has a record: its writer died before it said so, or the record is damaged."""
        unfinished = batch.state == BatchState.INTERRUPTED and not batch.is_request
        return unfinished and self.store.raw.size(record_key(batch.batch_id)) is not None

    def _record(self, batch: Batch) -> Iterator[Problem]:
        """The record, and the index against it."""
        key = record_key(batch.batch_id)
        listed = {one.key: one for one in self.store.index.segments(self.tally.window, batch_id=batch.batch_id)}
        rejects = {file.key: file for file in self.store.index.rejects(batch.batch_id)}
        try:
            for line in read_record(self.store.raw, key):
                if isinstance(line, BatchLine):
                    yield from self._closings(key, line)
                    if batch.has_record and (other := _other_fields(batch, restored(line))):
                        detail = f"the index has another {' and '.join(other)} than {key}"
                        yield Problem(INDEX, f"batch {batch.batch_id}", detail)
                elif isinstance(line, RejectLine):
                    yield from self._named_rejects(key, batch, line.rejects, rejects.pop(line.rejects.key, None))
                elif self._in_window(line.segment):
                    yield from self._named(key, line.segment, listed.pop(line.segment.key, None))
        except Damaged as error:
            yield Problem(MODIFIED, key, error.message)
            return
        for name in [*listed, *rejects]:
            yield Problem(INDEX, name, f"the index lists it, {key} does not name it")

    def _closings(self, record: str, line: BatchLine) -> Iterator[Problem]:
        for batch_id in line.replaces:
            closing = closing_key(batch_id)
            if self.store.raw.size(closing) is None and not has_expired(self.store, line.finished_at):
                yield Problem(MISSING, closing, f"{record} replaces batch {batch_id}; what closes it is not there")

    def _in_window(self, segment: Segment) -> bool:
        first, last = self.tally.window.days
        return first <= segment.day <= last

    def _named(self, record: str, segment: Segment, listed: Segment | None) -> Iterator[Problem]:
        """A segment that a record names, as the index lists it."""
        if listed is not None:
            other = [name for name in segment.__struct_fields__ if name != "inline"]
            other = [name for name in other if getattr(segment, name) != getattr(listed, name)]
            if other and not {"size", "digest"} & set(other):  # of which the segment itself is held against raw
                detail = f"the index has another {' and '.join(other)} than {record}"
                yield segment_problem(INDEX, listed, detail, ())
            return
        known = segment.batch_id in self.tally.short and self.store.copy is None  # when its day was checked
        self.tally.short.add(segment.batch_id)
        if self.store.raw.size(segment.key) is not None:
            if not known:
                self.tally.counts["not_indexed"] += 1
                yield segment_problem(INDEX, segment, f"{record} names it, the index does not", segment.frames)
        elif has_expired(self.store, segment.ingest_time):
            self.tally.expire(segment)
        else:
            self.tally.counts["missing"] += 1
            detail = f"{record} names it; neither the index nor raw has it"
            yield segment_problem(MISSING, segment, detail, segment.frames)

    def _named_rejects(
        self, record: str, batch: Batch, named: RejectFile, listed: RejectFile | None
    ) -> Iterator[Problem]:
        if listed is not None:
            if listed != named:
                yield Problem(INDEX, named.key, f"the index does not have it as {record} does")
        elif self.store.raw.size(named.key) is None and not has_expired(self.store, batch.started_at):
            yield Problem(MISSING, named.key, f"{record} names it; neither the index nor raw has it")

    def _counts(self, batch: Batch, holding: Holding) -> Iterator[Problem]:
        """A batch's counts against its segments; once more, from the index as it is now, before they are a problem."""
        if not self._whole(batch) or not holding.sound or batch.batch_id in self.tally.short:
            return
        if self._has_pending(batch):
            self.tally.unsettled = True  # its counts move after its segments; the next attempt finishes that
            return
        index, looked = self.store.index, batch
        for _ in range(_LOOKS):
            if _agree(looked, holding, self._rejected(looked)):
                return
            holding = holding_of(index, index.segments(ALL_TIME, batch_id=batch.batch_id))
            now = find_batch(index, batch.batch_id)
            if now is None or now.state == BatchState.RUNNING or (now.is_request and now.state != BatchState.COMPLETE):
                return
            unchanged, looked = now == looked, now
            if unchanged:
                break
        if not _agree(looked, holding, self._rejected(looked)):
            yield Problem(INDEX, f"batch {batch.batch_id}", _disagreement(looked.counts, holding.counts))

    def _has_pending(self, batch: Batch) -> bool:
        """Whether a writer in a deployed store died while it recorded a chunk of deliveries. Of a request that died
        nothing tells how far it came."""
        interrupted = batch.state == BatchState.INTERRUPTED and self.store.deployed
        return interrupted and (batch.is_request or batch.batch_id in self.ledger.unsettled)

    def _rejected(self, batch: Batch) -> int:
        """The rejected records in the batch's files. Of an interrupted batch in a deployed store, as many as it counts:
        a file may be listed before."""
        if batch.state == BatchState.INTERRUPTED and self.store.deployed:
            return batch.counts.rejected
        return sum(file.records for file in self._files(batch))

    def _whole(self, batch: Batch) -> bool:
        """Whether all of the batch is in the window."""
        window = self.tally.window
        times = [time for time in (batch.first_event, batch.last_event) if time is not None]
        return window == ALL_TIME or all(window.start <= time < window.end for time in times)

    def _request(self, batch: Batch, holding: Holding) -> Iterator[Problem]:
        """A request has no record: what its batch says follows from its id, its segments and its rejects."""
        single = batch.counts.read == 1
        if not self._whole(batch) or not holding.sound or batch.batch_id in self.tally.short:
            return
        if batch.state != BatchState.COMPLETE and not single:
            return  # one with several events that died; what it had claimed counts
        made = request_batch(batch.batch_id, batch.counts.read)
        told: dict[str, Any] = {
            "lags": count_lags(Counter(holding.told.lags).elements()),
            "sources": with_names({}, holding.told.sources),
            "reasons": with_names({}, self._reasons(batch)),
        }
        # Of very many names those are kept apart that came first, which is another order than that of segments.
        expected = replace(made, **{name: there for name, there in told.items() if "" not in there})
        other = [name for name in ("state", "attempt", *_OF_BATCH) if "" not in told.get(name, ())]
        other = [name for name in other if getattr(batch, name) != getattr(expected, name)]
        if other:
            detail = f"the index has another {' and '.join(other)} than the request's objects tell"
            yield Problem(INDEX, f"batch {batch.batch_id}", detail)
        if holding.recorded_first not in (None, batch.recorded_at):
            detail = "its segments do not all say the same as it of when it was recorded"
            yield Problem(INDEX, f"batch {batch.batch_id}", detail)
        if not single:
            listed = self.store.index.segments(ALL_TIME, batch_id=batch.batch_id)
            if sum(1 for _ in listed) != holding.segments:
                detail = f"by its id the index does not find all of its {holding.segments} segments"
                yield Problem(INDEX, f"batch {batch.batch_id}", detail)

    def _reasons(self, batch: Batch) -> Counter[str]:
        reasons: Counter[str] = Counter()
        for file in self._files(batch):
            with suppress(Damaged):  # which is reported of the file
                reasons.update(reason_kind(reject.reason) for reject in rejects_of(self.store.raw, file.key))
        return reasons

    def _origin(self, batch: Batch) -> Iterator[Problem]:
        """By its origin a batch is found when the same input comes again."""
        found = self.store.batches.find(batch.origin)
        if found is None or found.batch_id < batch.batch_id:
            detail = "the index does not find it by its origin: the same input would be ingested once more"
            yield Problem(INDEX, f"batch {batch.batch_id}", detail)

    def _pulled(self) -> Iterator[Problem]:
        """What a copy's records name and its index does not."""
        for record in pulls(self.store.raw):
            try:
                for line in read_pull(self.store.raw, record):
                    if isinstance(line, SegmentLine) and self._in_window(line.segment):
                        segment = line.segment
                        window = Window(max(segment.day * DAY, MIN_INSTANT), (segment.day + 1) * DAY)
                        listed = self.store.index.segments(window, batch_id=segment.batch_id)
                        if all(one.key != segment.key for one in listed):
                            yield from self._named(record, segment, None)
            except Damaged as error:
                yield Problem(MODIFIED, record, error.message)


def _other_fields(batch: Batch, recorded: Batch) -> list[str]:
    """The fields in which the index differs from the record. Which deliveries are duplicates a rebuild may have
    changed, but not how many deliveries there are."""
    other = [name for name in _OF_BATCH if getattr(batch, name) != getattr(recorded, name)]
    if _without_verdicts(batch.counts) != _without_verdicts(recorded.counts):
        other.append("counts")
    return other


def _without_verdicts(counts: Counts) -> tuple[int, int, int]:
    return counts.read, counts.accepted + counts.duplicates, counts.rejected


def _agree(batch: Batch, holding: Holding, rejected: int) -> bool:
    counts = replace(holding.counts, read=holding.counts.read + rejected, rejected=rejected)
    times = (batch.first_event, batch.last_event)
    recorded = holding.recorded_last in (None, batch.recorded_at)
    return recorded and batch.counts == counts and times == (holding.first_event, holding.last_event)


def _disagreement(counts: Counts, held: Counts) -> str:
    if counts.astuple()[1:4] == held.astuple()[1:4]:
        return (
            "its rejected records, its first and last event, or when it was recorded, are not what its segments and"
            " files of rejects say"
        )
    return (
        f"it counts {counts.accepted} accepted, {counts.exact} exact and {counts.conflict} conflict; its segments hold"
        f" {held.accepted}, {held.exact} and {held.conflict}"
    )


def _reject_damage(store: Store, rejects: RejectFile, full: bool) -> str:
    size = store.raw.size(rejects.key)
    if size != rejects.size:
        return f"{size} bytes, not {rejects.size}"
    if full and sha256(store.raw.read(rejects.key)).hexdigest() != rejects.digest:
        return "its SHA-256 is not the recorded one"
    return ""
