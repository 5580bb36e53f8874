"""Rebuilding the index from raw into a generation of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from time import time_ns

from msgspec import structs

from pik.errors import Damaged, StoreError
from pik.model.batch import (
    OF_REQUEST,
    Arrivals,
    Batch,
    BatchState,
    Counts,
    Location,
    RejectFile,
    Segment,
    Verdict,
    duplicate_kind,
)
from pik.model.instant import day_text
from pik.ports.catalog import Winner
from pik.rawlog.keys import RawKind, number_of
from pik.stores.aws.catalog.claims import Claims, Winners, place, places
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.id_files import Header, Row, arrivals_of, ids_key, prefix_of, read_ids, rows_of, write_ids
from pik.stores.aws.catalog.items import (
    BATCH_SHARDS,
    DAY_SHARDS,
    FILE,
    KEYED_DAY,
    REQUEST,
    batch_item,
    batch_key,
    batch_of,
    claim_key,
    day_item,
    listing_key,
    origin_pk,
    progress_fields,
    reference,
    reject_item,
    unpack_skipped,
)
from pik.stores.aws.catalog.record_chunk import Recording
from pik.stores.aws.catalog.requests import INLINE, Requests, place_of
from pik.stores.aws.clients import translated
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.state.items import time_key
from pik.stores.aws.table import READS, Item, Key, Table, batched


@contextmanager
def rebuilding(table: Table, raw: AwsRaw, generation: Generation) -> Iterator[AwsRebuild]:
    """An empty generation that takes the place of the current one. Raises Busy while anything writes to that.

    The one that it replaces is kept until the next rebuild, for those who are still reading it.
    """
    with generation.replacing() as made:
        replaced = generation.current()
        _sweep(table, raw, {str(made), str(replaced)})
        _finish_pending(table, raw, replaced)
        rebuild = AwsRebuild(table, raw, made, replaced)
        yield rebuild
        rebuild.count()


def _finish_pending(table: Table, raw: AwsRaw, generation: int) -> None:
    """Finish what writers that died had begun to record, as those who go on with their batches would: then the
    generation says of each delivery what it is."""
    for shard in BATCH_SHARDS:
        for item in table.query(f"{generation}/batch/{shard}"):
            if "pending" in item:
                with suppress(StoreError):  # of what is damaged, what is there is read
                    Recording(table, raw, generation, item["sk"]).finished(item)


def _sweep(table: Table, raw: AwsRaw, kept: set[str]) -> None:
    """Remove what earlier rebuilds have replaced or left unfinished."""
    items = ((item["pk"], item["sk"]) for item in table.scan("pk", "sk"))
    table.write_many(deletes=(key for key in items if (g := key[0].partition("/")[0]).isdigit() and g not in kept))
    for found in raw.objects("index/"):
        if found.key.split("/")[1] not in kept:
            with translated("s3"):
                raw.clients.client("s3").delete_object(Bucket=raw.bucket, Key=found.key)


@dataclass(slots=True)
class _Tally:
    """What a batch's segments hold."""

    segments: int = 0
    size: int = 0
    first: int | None = None
    last: int | None = None
    recorded_at: int = 0
    kinds: dict[str, int] = field(default_factory=lambda: {Verdict.ACCEPTED: 0, Verdict.EXACT: 0, Verdict.CONFLICT: 0})
    unread: bool = False

    def add(self, segment: Segment) -> None:
        self.segments += 1
        self.size += segment.size
        self.first = segment.first_event if self.first is None else min(self.first, segment.first_event)
        self.last = segment.last_event if self.last is None else max(self.last, segment.last_event)
        self.recorded_at = max(self.recorded_at, segment.recorded_at)


@dataclass(slots=True)
class AwsRebuild:
    """Fills a generation that nobody reads yet; `replaced` is the one that is there. Memory: a few numbers a batch of
    files."""

    table: Table
    raw: AwsRaw
    generation: int
    replaced: int
    _tallies: defaultdict[str, _Tally] = field(default_factory=lambda: defaultdict(_Tally))
    _single: set[str] = field(default_factory=set)  # the requests that had one event
    _days: set[int] = field(default_factory=set)
    _doubtful: set[int] = field(default_factory=set)  # days with requests whose event another delivery should claim
    _kinds: dict[str, dict[int, Verdict]] = field(default_factory=dict)
    """Verdicts of requests' segments that came about here."""
    _latest: int = 0

    def add_batch(self, batch: Batch) -> None:
        origin = {"pk": origin_pk(self.generation, batch.origin), "sk": f"{time_key(time_ns())}/{batch.batch_id}"}
        self.table.write_many([origin, batch_item(self.generation, batch)])
        if batch.is_request and batch.next_seq == 2 and not batch.counts.rejected:
            self._single.add(batch.batch_id)

    def add_segments(self, arrivals: Sequence[Arrivals], verdicts: Mapping[int, Verdict] | None) -> None:
        now = max(time_ns(), self._latest + 1)
        stamped = [replace(arrived, segment=self._stamped(arrived.segment, now)) for arrived in arrivals]
        batch_id = stamped[0].segment.batch_id
        rows = rows_of(stamped)
        if batch_id in self._single and rows:
            self._add_request(stamped[0], rows[0], verdicts)
            return
        segments = [arrived.segment for arrived in stamped]
        if rows:
            header = _header(segments)
            write_ids(self.raw, ids_key(self.generation, header, rows), header, rows)
        made = Claims(self.table, self.generation, batch_id, places(segments)).make(rows, verdicts)
        recording = Recording(self.table, self.raw, self.generation, batch_id)
        recording.write_duplicates(segments, rows, made)
        recording.settle(segments, rows, made)
        self.table.write_many(reference(self.generation, segment) for segment in segments)
        self._list_days({segment.day for segment in segments})
        self._tally(segments, rows, made)

    def add_rejects(self, batch_id: str, rejects: RejectFile) -> None:
        self.table.put(reject_item(self.generation, batch_id, rejects))

    def rows(self, segment: Segment, frames: Collection[int]) -> Arrivals:
        return _replaced_rows(self.table, self.raw, self.replaced, segment, frames)

    def skipped(self, segment: Segment) -> dict[int, Verdict]:
        if segment.batch_id in self._single:
            return self._kinds.get(segment.key, {})
        item = self.table.get(listing_key(self.generation, segment))
        return unpack_skipped(item["skipped"]) if item else {}

    def winners(self, arrivals: Arrivals, seqs: Collection[int]) -> dict[int, Winner]:
        return self._winners.of(arrivals, seqs)

    def prefer(self, arrivals: Arrivals, seq: int) -> None:
        self._winners.prefer(arrivals, seq)

    def settle(self) -> Iterator[Location]:
        for day in [*map(day_text, sorted(self._days)), KEYED_DAY]:
            for shard in DAY_SHARDS:
                items = self.table.query(f"{self.generation}/duplicate/{day}/{shard}")
                events = ((event_id, list(of_event)) for event_id, of_event in groupby(items, key=_event_id))
                for some in batched(events, READS):
                    found = self.table.get_many(self._claim_key(event_id, of_event[0]) for event_id, of_event in some)
                    for event_id, of_event in some:
                        if self._claim_key(event_id, of_event[0]) not in found:
                            yield self._promote(event_id, of_event)
        for number in sorted(self._doubtful):
            yield from Requests(self.table, self.generation, set()).claim_again(number)

    def count(self) -> None:
        """Give each batch the counts of what its segments hold, where all of these could be read."""
        for batch_id, tally in self._tallies.items():
            item = self.table.get(batch_key(self.generation, batch_id))
            if item is not None:
                self.table.put({**item, **_counted(batch_of(item), tally)})

    def _stamped(self, segment: Segment, now: int) -> Segment:
        """A segment that does not say when it was recorded is recorded now."""
        segment = segment if segment.recorded_at else structs.replace(segment, recorded_at=now)
        self._latest = max(self._latest, segment.recorded_at)
        return segment

    def _add_request(self, arrived: Arrivals, row: Row, verdicts: Mapping[int, Verdict] | None) -> None:
        segment = arrived.segment
        requests = Requests(self.table, self.generation, set())
        listing = requests.listing(arrived, row, segment.recorded_at, self._copy(segment))
        claims = Claims(self.table, self.generation, segment.batch_id, places([segment]))
        item = self.table.get(batch_key(self.generation, segment.batch_id)) or {}
        of_batch = {**item, **requests.listed(arrived, row), "recorded_at": segment.recorded_at}
        self.table.write_many([listing, day_item(self.generation, segment.day, REQUEST), of_batch])
        if verdicts and row.seq in verdicts:
            self._doubtful.add(segment.day)
        elif kind := claims.make([row]).get(row.seq):
            self.remember(segment.key, row.seq, kind)

    def _copy(self, segment: Segment) -> bytes:
        """The bytes of a small object."""
        if segment.inline or segment.size > INLINE:
            return segment.inline
        with suppress(Damaged):
            return self.raw.read(segment.key)
        return b""

    def _list_days(self, days: set[int]) -> None:
        self.table.write_many(day_item(self.generation, day, FILE) for day in days - self._days)
        self._days |= days

    def _tally(self, segments: Sequence[Segment], rows: Sequence[Row], verdicts: Mapping[int, Verdict]) -> None:
        tally = self._tallies[segments[0].batch_id]
        for segment in segments:
            tally.add(segment)
        tally.unread |= len(rows) != sum(segment.deliveries for segment in segments)
        for row in rows:
            tally.kinds[verdicts.get(row.seq, Verdict.ACCEPTED)] += 1

    def move(self, batch_id: str, before: str | None, after: str) -> None:
        kinds = self._tallies[batch_id].kinds
        if before is not None:
            kinds[before] -= 1
        kinds[after] += 1

    def is_single(self, batch_id: str) -> bool:
        return batch_id in self._single

    def remember(self, key: str, seq: int, kind: Verdict) -> None:
        self._kinds[key] = {} if kind == Verdict.ACCEPTED else {seq: kind}

    def _claim_key(self, event_id: str, item: Item) -> Key:
        keyed = "content" in item
        return claim_key(self.generation, item["day"], item.get("entity", ""), bytes.fromhex(event_id), keyed=keyed)

    def _promote(self, event_id: str, items: list[Item]) -> Location:
        """The first of the duplicates counts, where the accepted delivery is lost."""
        first, _ = place(min(items, key=lambda item: (item["ingest_time"], *place(item))))
        winner = min((item for item in items if place(item)[0] == first), key=place)
        batch_id, seq = place(winner)
        pk, sk = self._claim_key(event_id, winner)
        content = {name: winner[name] for name in ("day", "content") if "content" in winner}
        self.table.put(
            {"pk": pk, "sk": sk, "batch": batch_id, "n": winner["n"], "frame": winner["frame"], "seq": seq, **content}
        )
        for item in items:
            kind = duplicate_kind(item.get("content"), winner.get("content"))
            self._winners.judge(item, Verdict.ACCEPTED if item is winner else kind)
        key = RawKind.SEGMENT.key(batch_id, winner["n"], winner["day"])
        return Location(event_id, winner["day"], key, batch_id, winner["frame"], seq, Verdict.ACCEPTED)

    @property
    def _winners(self) -> Winners:
        return Winners(self.table, self.generation, self)


def _header(segments: Sequence[Segment]) -> Header:
    """Of an id file: nothing is left to finish with it."""
    return Header(
        batch_id=segments[0].batch_id,
        first_seq=0,
        last_seq=0,
        read=0,
        offset=0,
        prefix_digest="",
        segments=tuple(segments),
        rejects=None,
        reasons={},
        lags={},
        sources={},
    )


def _event_id(item: Item) -> str:
    return str(item["sk"].partition("/")[0])


def _counted(batch: Batch, tally: _Tally) -> Item:
    counts = batch.counts
    if not tally.unread:
        kinds = tally.kinds[Verdict.ACCEPTED], tally.kinds[Verdict.EXACT], tally.kinds[Verdict.CONFLICT]
        read = counts.read if batch.state == BatchState.COMPLETE else sum(kinds) + counts.rejected
        counts = Counts(read, *kinds, counts.rejected)
    told = replace(batch, counts=counts, first_event=tally.first, last_event=tally.last)
    own = {"segments": tally.segments, "bytes": tally.size, "recorded_at": tally.recorded_at}
    return {**progress_fields(told), **own}


def _replaced_rows(table: Table, raw: AwsRaw, generation: int, segment: Segment, frames: Collection[int]) -> Arrivals:
    """The rows that a generation has of these frames of a segment."""
    rows: list[Row] = []
    if frames and number_of(segment.key) == OF_REQUEST:
        of_entities = Requests(table, generation, set()).of_entities(segment.day, {f.first for f in segment.frames})
        for item in of_entities:
            _, entity, event_id, batch_id = place_of(item)
            if batch_id == segment.batch_id:
                rows.append(Row(item["seq"], bytes.fromhex(event_id), item.get("content"), 0, 0, entity))
    if frames and not rows:
        rows = list(_of_ids(raw, generation, segment))
    return arrivals_of(segment, [row for row in rows if row.frame in frames])


def _of_ids(raw: AwsRaw, generation: int, segment: Segment) -> Iterator[Row]:
    """The rows of a segment in the id files of its block."""
    for found in raw.objects(f"{prefix_of(generation)}{segment.batch_id}-{number_of(segment.key)}-"):
        try:
            header, rows = read_ids(raw, found.key)
        except Damaged:
            continue
        keys = [one.key for one in header.segments]
        yield from (row for row in rows if keys[row.segment] == segment.key)
