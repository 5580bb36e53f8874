"""Rebuilding the index from raw, into another generation beside the current one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from time import time_ns

from msgspec import structs

from pik.errors import Damaged
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
)
from pik.model.instant import day_text
from pik.ports.index import Winner
from pik.ports.raw import RawKind, number_of
from pik.rawlog.replacements import ReplacingRaw
from pik.rawlog.required import RequiredRaw
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.corrections import NewCorrections
from pik.stores.aws.catalog.deliveries import (
    Claims,
    Delivery,
    Row,
    arrivals_of,
    claims_of,
    duplicate_item,
    duplicate_items,
    duplicate_of,
    prefix_of,
    read_ids,
    rows_of,
)
from pik.stores.aws.catalog.generation import Generation, tell_requests_wait
from pik.stores.aws.catalog.layout import BatchAttributes, BatchItem, ClaimItem, DuplicateItem, Listed
from pik.stores.aws.catalog.listing import Listing
from pik.stores.aws.catalog.requests import Requests, is_single
from pik.stores.aws.catalog.restored import Block, RestoredIndex, Tally
from pik.stores.aws.clients import translated
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Key, Table, key_of


def sweep(table: Table, raw: AwsRaw, kept: set[str]) -> None:
    """Remove what earlier rebuilds have replaced or left unfinished."""
    items = ((item["pk"], item["sk"]) for item in table.scan("pk", "sk"))
    table.write_many(deletes=(key for key in items if (g := key[0].partition("/")[0]).isdigit() and g not in kept))
    for found in raw.objects("index/"):
        if found.key.split("/")[1] not in kept:
            with translated("s3"):
                raw.clients.client("s3").delete_object(Bucket=raw.bucket, Key=found.key)


def rows_in(listing: Listing, segment: Segment, frames: Collection[int]) -> Arrivals:
    """Return the rows of the deliveries in these frames of a segment, as far as the id files of its block can be
    read."""
    rows: list[Row] = []
    if frames and number_of(segment.key) == OF_REQUEST:
        requests = Requests(listing.table, listing.generation)
        entities = [frame.first for frame in segment.frames]
        items = listing.of_day(day_text(segment.day), Listed.REQUEST, entities)
        deliveries = map(requests.delivery, items)
        rows = [delivery.row for delivery in deliveries if delivery.batch_id == segment.batch_id]
    if frames and not rows:
        rows = list(_rows_of(listing.raw, listing.generation, segment))
    return arrivals_of(segment, [row for row in rows if row.frame in frames])


def _rows_of(raw: AwsRaw, generation: int, segment: Segment) -> Iterator[Row]:
    for found in raw.objects(f"{prefix_of(generation)}{segment.batch_id}-{number_of(segment.key)}-"):
        try:
            header, rows = read_ids(RequiredRaw(raw), found.key)
        except Damaged:
            continue
        keys = [one.key for one in header.segments]
        yield from (row for row in rows if keys[row.segment] == segment.key)


@dataclass(frozen=True, slots=True)
class RequestsBeside:
    """The requests that write to both generations."""

    table: Table
    pointer: Generation
    made: int
    replaced: int
    waiting: Callable[[str], None]

    def await_writers(self) -> None:
        tell_requests_wait(self.waiting)
        self.pointer.await_requests()

    def batches(self, batch_ids: Sequence[str]) -> tuple[set[str], set[str]]:
        found = self.table.get_many(dict.fromkeys(layout.batch_key(self.replaced, one) for one in batch_ids))
        both = {item["sk"] for item in found.values() if item.get("made") == self.made}
        there = self.table.get_many(layout.batch_key(self.made, one) for one in both)
        return both, both - {item["sk"] for item in there.values()}


@dataclass(slots=True)
class AwsRebuild:
    """Fills a generation that has no readers yet; `replaced` is the current one."""

    table: Table
    raw: AwsRaw
    generation: int
    replaced: int
    pointer: Generation
    waiting: Callable[[str], None]
    _restored: RestoredIndex = field(init=False)
    _latest: int = 0

    def __post_init__(self) -> None:
        self._restored = RestoredIndex(self.table, self.raw, ReplacingRaw(self.raw), self.generation)

    @property
    def corrections(self) -> NewCorrections:
        return NewCorrections(self.table, self.pointer, self.generation)

    @property
    def beside(self) -> RequestsBeside:
        return RequestsBeside(self.table, self.pointer, self.generation, self.replaced, self.waiting)

    def add_batch(self, batch: Batch) -> None:
        if not batch.is_request:  # which are not looked up by what they hold
            self._restored.put(layout.origin_item(self.generation, batch.origin, batch.batch_id, time_ns()))
        self._restored.put(codec.batch_item(self.generation, batch))

    def add_segments(self, arrivals: Sequence[Arrivals], verdicts: Mapping[int, Verdict] | None) -> None:
        now = max(time_ns(), self._latest + 1)
        stamped = [replace(arrived, segment=self._stamped(arrived.segment, now)) for arrived in arrivals]
        self._restored.add(Block([arrived.segment for arrived in stamped], rows_of(stamped), verdicts))

    def add_rejects(self, batch_id: str, rejects: RejectFile) -> None:
        self._restored.put(codec.reject_item(self.generation, batch_id, rejects))

    def rows(self, segment: Segment, frames: Collection[int]) -> Arrivals:
        return rows_in(Listing(self.table, self.raw, self.replaced, self.pointer), segment, frames)

    def skipped(self, segments: Sequence[Segment]) -> list[dict[int, Verdict]]:
        self._restored.flush()
        g = self.generation
        keys = [layout.listing_key(g, segment) for segment in segments]
        found = self.table.get_many(dict.fromkeys(keys))
        others = [segment for segment, key in zip(segments, keys, strict=True) if key not in found]
        batches = self.table.get_many(dict.fromkeys(layout.batch_key(g, segment.batch_id) for segment in others))
        of_requests = Requests(self.table, g).skipped(filter(is_single, batches.values()))
        return [
            codec.unpack_skipped(found[key]["skipped"]) if key in found else of_requests.get(segment.batch_id, {})
            for segment, key in zip(segments, keys, strict=True)
        ]

    def winners(self, arrivals: Arrivals, seqs: Collection[int]) -> dict[int, Winner]:
        self._restored.flush()
        claims = self._claims(arrivals.segment)
        keys = {row.seq: claims.delivery(row).claim_key for row in rows_of([arrivals]) if row.seq in seqs}
        found = self.table.get_many(dict.fromkeys(keys.values()))
        winners = {}
        for seq, key in keys.items():
            if item := found.get(key):
                of = RawKind.SEGMENT.key(item["batch"], item["n"], item["day"])
                winners[seq] = Winner((item["batch"], item["seq"]), of, item.get("content"))
        return winners

    def prefer(self, arrivals: Arrivals, seq: int) -> None:
        self._restored.flush()
        segment = arrivals.segment
        row = next(row for row in rows_of([arrivals]) if row.seq == seq)
        delivery = self._claims(segment).delivery(row)
        current = self.table.get(delivery.claim_key)
        if current is not None and (current["batch"], current["seq"]) == (segment.batch_id, seq):
            return
        if self._ingest_time(delivery) is None:
            return
        self.table.put(delivery.claim)  # first, so that a request that comes in between sees it, or is seen
        event_id, day = delivery.event_id, day_text(segment.day) if row.content is None else layout.KEYED_DAY
        items = list(self.table.query(layout.duplicates_of(self.generation, day, event_id), prefix=f"{event_id}/"))
        if current is not None:
            items += self._demoted(current, row)
        self._judge(items, delivery.claim)

    def settle(self) -> Iterator[Location]:
        self._restored.flush()
        self.pointer.announce_filled(self.generation, self.waiting)
        for day in [*map(day_text, sorted(self._restored.repeated)), layout.KEYED_DAY]:
            for shard in layout.DAY_SHARDS:
                items = self.table.query(layout.duplicates_pk(self.generation, day, shard))
                events = groupby(items, key=lambda item: item["sk"].partition("/")[0])
                duplicates = (list(of_event) for _, of_event in events)
                for of_event, claim in self.table.join(duplicates, self._claim_key):
                    if claim is None or ("brought" in claim and self._is_lost(claim)):
                        yield from self._promote(of_event, claim)

    def count(self) -> None:
        """Give each batch the counts of what its segments hold, where all of these could be read."""
        self._restored.flush()
        tallies = self._restored.tallies()
        for (_, tally), item in self.table.join(tallies, lambda one: layout.batch_key(self.generation, one[0])):
            if item is not None and item.get("made") == self.generation:
                self._count_more(item, tally)
            elif item is not None:
                self._restored.put({**item, **_advance(codec.batch_of(item), tally)})
        self._restored.flush()

    def _count_more(self, item: BatchItem | None, tally: Tally) -> None:
        """Change the counts of a request that wrote to both generations, as far as its verdicts changed."""
        while item is not None:
            kinds = (tally.kinds[kind] for kind in (Verdict.ACCEPTED, Verdict.EXACT, Verdict.CONFLICT))
            batch = codec.batch_of(item)
            changed = codec.progress(replace(batch, counts=batch.counts + Counts(0, *kinds)))
            if self.table.put_if({**item, **changed}, "#counts = :counts", {"counts": item["counts"]}):
                return
            item = self.table.get(layout.batch_key(self.generation, batch.batch_id))

    def _is_lost(self, claim: ClaimItem) -> bool:
        """Return whether the delivery that a claim names is not in this index, or in a frame that is lost."""
        key = layout.numbered_key(self.generation, claim["day"], claim["batch"], claim["n"])
        if (listed := self.table.get(key)) is not None:
            return not codec.segment_of(listed).frames[claim["frame"]].lines
        batch = self.table.get(layout.batch_key(self.generation, claim["batch"]))
        return batch is None or not is_single(batch)

    def _stamped(self, segment: Segment, now: int) -> Segment:
        """Return the segment, recorded now if it has no `recorded_at`."""
        segment = segment if segment.recorded_at else structs.replace(segment, recorded_at=now)
        self._latest = max(self._latest, segment.recorded_at)
        return segment

    def _demoted(self, current: ClaimItem, row: Row) -> list[DuplicateItem]:
        """Return the delivery that counted until now as a duplicate without a verdict yet; none if its segment is not
        listed."""
        demoted = Row(current["seq"], row.event_id, current.get("content"), 0, current["frame"], row.entity)
        delivery = Delivery(self.generation, current["day"], current["n"], current["batch"], demoted)
        ingest_time = self._ingest_time(delivery)
        return [] if ingest_time is None else [duplicate_item(ingest_time, delivery, Verdict.ACCEPTED)]

    def _ingest_time(self, delivery: Delivery) -> int | None:
        """Return the `ingest_time` of a delivery's segment; None if that is not listed."""
        g, day, row = self.generation, delivery.day, delivery.row
        listed = self.table.get(layout.numbered_key(g, day, delivery.batch_id, delivery.n))
        if listed is not None or delivery.n != OF_REQUEST:
            return listed and listed["ingest_time"]
        of_request = self.table.get(layout.request_key(g, day, row.entity, row.event_id, delivery.batch_id))
        return of_request and of_request["ingest_time"]

    def _judge(self, items: Sequence[DuplicateItem], claim: ClaimItem) -> None:
        """Change the verdicts on an event's duplicates, wherever they are written, now that this claim decides."""
        for item in items:
            delivery = duplicate_of(self.generation, item)
            kind = delivery.verdict(claim)
            if kind == item["kind"]:
                continue
            if kind == Verdict.ACCEPTED:
                self.table.delete(key_of(item))
            else:
                self.table.write_many(duplicate_items(item["ingest_time"], delivery, kind))
            if self._list_verdict(item, delivery, kind):
                kinds = Counter({item["kind"]: -1})
                kinds.update([kind])
                self._restored.note(delivery.batch_id, Tally(kinds=kinds))

    def _list_verdict(self, item: DuplicateItem, delivery: Delivery, kind: Verdict) -> bool:
        """List a segment with another verdict on one of its deliveries. Return False where the verdicts are not listed:
        of a request with one event, or while one is being recorded, which looks again at its end."""
        while True:
            listed = self.table.get(layout.numbered_key(self.generation, item["day"], delivery.batch_id, item["n"]))
            if listed is None and item["n"] == OF_REQUEST:  # of one with one event the claim itself says what it is
                return False
            assert listed is not None, "a segment whose duplicates are listed is listed itself"
            if "skipped" not in listed:
                return False
            skipped = {**codec.unpack_skipped(listed["skipped"]), delivery.row.seq: kind}
            before = {"before": listed["skipped"]}
            if self.table.put_if({**listed, "skipped": codec.pack_skipped(skipped)}, "#skipped = :before", before):
                return True

    def _claim_key(self, of_event: Sequence[DuplicateItem]) -> Key[ClaimItem]:
        return duplicate_of(self.generation, of_event[0]).claim_key

    def _promote(self, items: Sequence[DuplicateItem], claim: ClaimItem | None) -> Iterator[Location]:
        """Make the first of an event's duplicates count, because its accepted delivery, which the claim names, is lost;
        yield it, unless another delivery was recorded meanwhile and has the claim."""
        deliveries = [(item["ingest_time"], duplicate_of(self.generation, item), item["kind"]) for item in items]
        _, batch_id, _ = min((time, one.batch_id, one.row.seq) for time, one, _ in deliveries)
        of_batch = [(one, kind) for _, one, kind in deliveries if one.batch_id == batch_id]
        winner, kind = min(of_batch, key=lambda pair: pair[0].row.seq)
        condition, values = "attribute_not_exists(pk)", {}
        if claim is not None:
            condition, values = "#batch = :batch AND #seq = :seq", {"batch": claim["batch"], "seq": claim["seq"]}
        if self.table.put_if(winner.claim, condition, values):
            self._judge(items, winner.claim)
            yield winner.location(Verdict(kind))
        elif (other := self.table.get(winner.claim_key)) is not None:
            self._judge(items, other)

    def _claims(self, segment: Segment) -> Claims:
        return claims_of(self.table, self.generation, segment.batch_id, [segment])


def _advance(batch: Batch, tally: Tally) -> BatchAttributes:
    """Return the attributes of a batch that follow from its segments."""
    counts = batch.counts
    if not tally.unread:
        kinds = tally.kinds[Verdict.ACCEPTED], tally.kinds[Verdict.EXACT], tally.kinds[Verdict.CONFLICT]
        read = counts.read if batch.state == BatchState.COMPLETE else sum(kinds) + counts.rejected
        counts = Counts(read, *kinds, counts.rejected)
    return {
        **codec.progress(replace(batch, counts=counts, first_event=tally.first, last_event=tally.last)),
        "segments": tally.segments,
        "bytes": tally.size,
        "recorded_at": tally.recorded_at,
    }
