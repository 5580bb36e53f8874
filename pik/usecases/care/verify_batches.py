"""Verifying batches: their records, their files of rejects, and their counts against their segments."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import Batch, BatchState, Counts, RejectFile, Segment, count_lags, with_names
from pik.model.window import ALL_TIME, Window
from pik.ports.raw import RawKind
from pik.rawlog.objects import read_rejects
from pik.rawlog.sealed_records import BatchLine, RejectLine, SegmentLine, pulls, read_pull, read_record, restored
from pik.rawlog.segment_writer import reason_kind
from pik.usecases.availability import has_expired
from pik.usecases.care.verify_findings import (
    Problem,
    ProblemKind,
    batch_problem,
    differing,
    segment_problem,
)
from pik.usecases.care.verify_ledger import Holding, segment_holding
from pik.usecases.care.verify_objects import missing_records
from pik.usecases.care.verify_run import Verification
from pik.usecases.ingest.api_request import request_batch

_MOST_COUNTS = 3
"""How many times a batch that changes meanwhile is counted."""

_IN_RECORD = (
    *("origin", "started_at", "actor", "finished_at", "next_seq", "offset", "prefix_digest", "reasons", "lags"),
    *("sources", "times"),
)
"""Fields that a batch has in its record and in the index. Not its attempt: a writer that died after creating the record
leaves the next attempt nothing to do but finishing the batch."""


def batch_problems(run: Verification) -> Iterator[Problem]:
    """Check each batch, the newest first."""
    if run.store.copy is not None:
        yield from _check_pulls(run)
    batches = ((batch.batch_id, batch) for batch in run.store.index.batches())
    both: Iterator[tuple[str, Batch | Holding]] = heapq.merge(
        batches, run.ledger.batches(), key=itemgetter(0), reverse=True
    )
    for batch_id, entries in groupby(both, key=itemgetter(0)):
        batch, holding = None, Holding()
        for _, entry in entries:
            if isinstance(entry, Batch):
                batch = entry
            else:
                holding = entry
        if batch is not None:
            yield from _check(run, batch, holding)
        elif run.find_batch(batch_id) is None:
            yield batch_problem(batch_id, "the index lists segments of it, but not the batch")


def _check(run: Verification, batch: Batch, holding: Holding) -> Iterator[Problem]:
    yield from _rejects(run, batch)
    yield from missing_records(run, batch)
    record = RawKind.BATCH.key(batch.batch_id)
    if batch.has_record and run.store.raw.size(record) is None:
        if not has_expired(run.store, batch.finished_at or batch.started_at):
            if _has_nothing(run, batch):
                yield batch_problem(batch.batch_id, "it has no object in raw, only its row in the index")
            else:
                yield Problem(ProblemKind.MISSING, record, "the record of this finished batch is not there")
    elif not run.quick and (batch.has_record or _left_a_record(run, batch)):
        yield from _record(run, batch)
    if run.quick or batch.state in (BatchState.RUNNING, BatchState.PULLED):
        return
    is_comparable = _is_within(run, batch) and holding.sound and batch.batch_id not in run.incomplete
    if is_comparable:
        yield from _counts(run, batch, holding)
    if batch.is_request:
        if is_comparable:
            yield from _request(run, batch, holding)
        return
    found = run.store.batches.find(batch.origin)
    if found is None or found.batch_id < batch.batch_id:
        detail = "the index does not find it by its origin: the same input would be ingested once more"
        yield batch_problem(batch.batch_id, detail)


def _has_nothing(run: Verification, batch: Batch) -> bool:
    """Return whether a batch without a record has no segment and no file of rejects either."""
    is_empty = next(run.segments(batch.batch_id), None) is None
    return batch.next_seq > 1 and is_empty and not run.store.index.rejects(batch.batch_id)


def _left_a_record(run: Verification, batch: Batch) -> bool:
    """Return whether an unfinished batch has a record: its writer died before the index knew, or the record is
    damaged."""
    unfinished = batch.state == BatchState.INTERRUPTED and not batch.is_request
    return unfinished and run.store.raw.size(RawKind.BATCH.key(batch.batch_id)) is not None


def _is_within(run: Verification, batch: Batch) -> bool:
    """Return whether all of the batch is in the window."""
    times = [time for time in (batch.first_event, batch.last_event) if time is not None]
    return run.window == ALL_TIME or all(run.window.start <= time < run.window.end for time in times)


def _reject_files(run: Verification, batch: Batch) -> list[RejectFile]:
    """Return the batch's files of rejects. Most requests have none, and should not cost a call for it."""
    return run.store.index.rejects(batch.batch_id) if batch.counts.rejected else []


def _rejects(run: Verification, batch: Batch) -> Iterator[Problem]:
    raw = run.store.raw
    for file in _reject_files(run, batch):
        size = raw.size(file.key)
        if size is None:
            if not has_expired(run.store, batch.started_at):
                yield Problem(ProblemKind.MISSING, file.key, "the file of rejects is not there")
        elif size != file.size:
            yield Problem(ProblemKind.MODIFIED, file.key, f"{size} bytes, not {file.size}")
        elif not run.quick:
            try:
                if sha256(raw.read(file.key)).hexdigest() != file.digest:
                    yield Problem(ProblemKind.MODIFIED, file.key, "its SHA-256 is not the recorded one")
            except Damaged as error:
                yield Problem(ProblemKind.of(error), file.key, error.message)


def _record(run: Verification, batch: Batch) -> Iterator[Problem]:
    raw, key = run.store.raw, RawKind.BATCH.key(batch.batch_id)
    listed = {one.key: one for one in run.store.index.segments(run.window, batch_id=batch.batch_id)}
    rejects = {file.key: file for file in run.store.index.rejects(batch.batch_id)}
    try:
        for line in read_record(raw, key):
            if isinstance(line, BatchLine):
                for batch_id in line.replaces:
                    closing = RawKind.CLOSING.key(batch_id)
                    if raw.size(closing) is None and not has_expired(run.store, line.finished_at):
                        detail = f"{key} replaces batch {batch_id}; its closing is not there"
                        yield Problem(ProblemKind.MISSING, closing, detail)
                if batch.has_record and (other := differing_fields(batch, restored(line))):
                    yield batch_problem(batch.batch_id, f"the index has another {other} than {key}")
            elif isinstance(line, RejectLine):
                file = line.rejects
                known = rejects.pop(file.key, None)
                if known is not None and known != file:
                    yield Problem(ProblemKind.INDEX, file.key, f"the index does not have it as {key} does")
                elif known is None and raw.size(file.key) is None and not has_expired(run.store, batch.started_at):
                    detail = f"{key} names it; neither the index nor raw has it"
                    yield Problem(ProblemKind.MISSING, file.key, detail)
            elif run.includes(line.segment.day):
                yield from _check_segment(run, key, line.segment, listed.pop(line.segment.key, None))
    except Damaged as error:
        yield Problem(ProblemKind.of(error), key, error.message)
        return
    for name in [*listed, *rejects]:
        yield Problem(ProblemKind.INDEX, name, f"the index lists it, {key} does not name it")


def _check_segment(run: Verification, record: str, segment: Segment, listed: Segment | None) -> Iterator[Problem]:
    """Check a segment that a record names, as the index lists it."""
    if listed is not None:
        is_same_object = (segment.size, segment.digest) == (listed.size, listed.digest)  # compared with raw itself
        apart = ("inline", "packed", *(["frames"] if listed.unknown_frames else []))  # which raw was compared with
        other = differing(segment, listed, (name for name in segment.__struct_fields__ if name not in apart))
        if is_same_object and other:
            yield segment_problem(ProblemKind.INDEX, listed, f"the index has another {other} than {record}")
        return
    # An object that is in raw and not in the index was reported by the check of its day.
    is_reported = segment.batch_id in run.incomplete and run.store.copy is None
    run.incomplete.add(segment.batch_id)
    if run.store.raw.size(segment.key) is not None:
        if not is_reported:
            run.counts["not_indexed"] += 1
            detail = f"{record} names it, the index does not"
            yield segment_problem(ProblemKind.INDEX, segment, detail, segment.frames)
    elif has_expired(run.store, segment.ingest_time):
        run.count_expired(segment)
    else:
        run.counts["missing"] += 1
        run.unknown_losses.add(segment.day)
        detail = f"{record} names it; neither the index nor raw has it"
        yield segment_problem(ProblemKind.MISSING, segment, detail, segment.frames)


def _counts(run: Verification, batch: Batch, holding: Holding) -> Iterator[Problem]:
    """Check a batch's counts against its segments; once more, from the index as it is now, before they are a
    problem."""
    may_lag = batch.state == BatchState.INTERRUPTED and run.store.deployed
    if may_lag and (batch.is_request or batch.batch_id in run.ledger.unsettled):
        # Its writer died while it recorded a chunk: counts move after segments, and the next attempt finishes that.
        # Nothing records how far a request had come.
        run.unsettled = True
        return
    index, current = run.store.index, batch
    for _ in range(_MOST_COUNTS):
        if _agree(run, current, holding):
            return
        holding = Holding()
        for segment in run.segments(batch.batch_id):
            holding = holding.plus(segment_holding(index, segment))
        now = run.find_batch(batch.batch_id)
        if now is None or now.state == BatchState.RUNNING or (now.is_request and now.state != BatchState.COMPLETE):
            return
        is_unchanged, current = now == current, now
        if is_unchanged:
            break
    if not _agree(run, current, holding):
        yield batch_problem(batch.batch_id, _disagreement(current.counts, holding.counts))


def _agree(run: Verification, batch: Batch, holding: Holding) -> bool:
    if batch.state == BatchState.INTERRUPTED and run.store.deployed:
        rejected = batch.counts.rejected  # there a file may be listed before it is counted
    else:
        rejected = sum(file.records for file in _reject_files(run, batch))
    counts = structs.replace(holding.counts, read=holding.counts.read + rejected, rejected=rejected)
    times = (batch.first_event, batch.last_event)
    is_recorded = holding.recorded_last in (None, batch.recorded_at)
    return is_recorded and batch.counts == counts and times == (holding.first_event, holding.last_event)


def _disagreement(counts: Counts, held: Counts) -> str:
    if structs.astuple(counts)[1:4] == structs.astuple(held)[1:4]:
        return (
            "its rejected records, its first and last event, or when it was recorded, differ from those of its segments"
            " and files of rejects"
        )
    return (
        f"it counts {counts.accepted} accepted, {counts.exact} exact and {counts.conflict} conflict; its segments hold"
        f" {held.accepted}, {held.exact} and {held.conflict}"
    )


def _request(run: Verification, batch: Batch, holding: Holding) -> Iterator[Problem]:
    """Check a request, which has no record: its batch follows from its id, its segments and its rejects."""
    is_single = batch.counts.read == 1
    if batch.state != BatchState.COMPLETE and not is_single:
        return  # its writer died; what it had claimed counts
    reasons: Counter[str] = Counter()
    actor = holding.actor
    for file in _reject_files(run, batch):
        with suppress(Damaged):  # reported by `_rejects`
            rejects = read_rejects(run.store.raw, file.key)
            reasons.update(reason_kind(reject.reason) for reject in rejects)
            actor = max(actor, rejects[0].actor)
    counted: dict[str, Any] = {
        "lags": count_lags(Counter(holding.lags).elements()),
        "sources": with_names({}, holding.sources),
        "reasons": with_names({}, reasons),
    }
    # Beyond a number of names only the first to come have their own counts, and segments come in another order.
    counted = {name: counts for name, counts in counted.items() if "" not in counts}
    skipped = {"lags", "sources", "reasons"} - counted.keys()
    if not holding.read:
        skipped |= {"lags", "sources", "actor"}
    expected = replace(request_batch(batch.batch_id, batch.counts.read, actor), **counted)
    names = (name for name in ("state", "attempt", *_IN_RECORD) if name not in skipped)
    if other := differing(batch, expected, names):
        yield batch_problem(batch.batch_id, f"the index has another {other} than the request's objects")
    if holding.recorded_first not in (None, batch.recorded_at):
        yield batch_problem(batch.batch_id, "its segments and it do not agree on when it was recorded")


def _check_pulls(run: Verification) -> Iterator[Problem]:
    """Check that a copy's index has every segment that its pull records name."""
    for record in pulls(run.store.raw):
        try:
            for line in read_pull(run.store.raw, record):
                if isinstance(line, SegmentLine) and run.includes(line.segment.day):
                    segment = line.segment
                    listed = run.store.index.segments(Window.of_day(segment.day), batch_id=segment.batch_id)
                    if all(one.key != segment.key for one in listed):
                        yield from _check_segment(run, record, segment, None)
        except Damaged as error:
            yield Problem(ProblemKind.of(error), record, error.message)


def differing_fields(batch: Batch, recorded: Batch) -> str:
    """Return the fields in which the index differs from the record. A rebuild may have changed which deliveries are
    duplicates, but not how many deliveries there are."""
    before, after = ((it.read, it.accepted + it.duplicates, it.rejected) for it in (recorded.counts, batch.counts))
    if before == after:
        recorded = replace(recorded, counts=batch.counts)
    return differing(batch, recorded, (*_IN_RECORD, "counts"))
