"""Rebuilding the index from raw into a generation of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from time import time_ns

from msgspec import structs

from pik.model.batch import (
    ACCEPTED,
    COMPLETE,
    CONFLICT,
    EXACT,
    Arrivals,
    Batch,
    Counts,
    Location,
    RejectFile,
    Segment,
)
from pik.model.instant import day_text
from pik.stores.aws.claims import Claims, places
from pik.stores.aws.generation import Generation
from pik.stores.aws.items import (
    DAY_SHARDS,
    FILE,
    KEYED_DAY,
    REQUEST,
    batch_item,
    batch_key,
    batch_of,
    claim_key,
    day_item,
    origin_pk,
    pack_skipped,
    progress_fields,
    reference,
    reject_item,
    segment_key,
    unpack_skipped,
)
from pik.stores.aws.keys import time_key
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.recording import Recording
from pik.stores.aws.requests import INLINE, Requests
from pik.stores.aws.rows import Header, Row, ids_key, number_of, rows_of, write_ids
from pik.stores.aws.table import READS, Item, Key, Table, batched


@contextmanager
def rebuilding(table: Table, raw: AwsRaw, generation: Generation) -> Iterator[AwsRebuild]:
    """An empty generation that takes the place of the current one. Raises Busy while anything writes to that.

    The one that it replaces is kept until the next rebuild, for those who are still reading it.
    """
    with generation.replacing() as made:
        _sweep(table, raw, {str(made), str(generation.current())})
        rebuild = AwsRebuild(table, raw, made)
        yield rebuild
        rebuild.count()


def _sweep(table: Table, raw: AwsRaw, kept: set[str]) -> None:
    """Remove what earlier rebuilds have replaced or left unfinished."""
    items = ((item["pk"], item["sk"]) for item in table.scan("pk", "sk"))
    table.write_many(deletes=(key for key in items if (g := key[0].partition("/")[0]).isdigit() and g not in kept))
    for found in raw.objects("index/"):
        if found.key.split("/")[1] not in kept:
            raw.clients.client("s3").delete_object(Bucket=raw.bucket, Key=found.key)


@dataclass(slots=True)
class _Tally:
    """What a batch's segments hold."""

    segments: int = 0
    size: int = 0
    first: int | None = None
    last: int | None = None
    recorded_at: int = 0
    kinds: dict[str, int] = field(default_factory=lambda: {ACCEPTED: 0, EXACT: 0, CONFLICT: 0})
    unread: bool = False

    def add(self, segment: Segment) -> None:
        self.segments += 1
        self.size += segment.size
        self.first = segment.first_event if self.first is None else min(self.first, segment.first_event)
        self.last = segment.last_event if self.last is None else max(self.last, segment.last_event)
        self.recorded_at = max(self.recorded_at, segment.recorded_at)


@dataclass(slots=True)
class AwsRebuild:
    """Fills a generation that nobody reads yet. Memory: a few numbers a segment and a batch."""

    table: Table
    raw: AwsRaw
    generation: int
    _tallies: defaultdict[str, _Tally] = field(default_factory=lambda: defaultdict(_Tally))
    _recorded: dict[str, int] = field(default_factory=dict)  # by segment
    _single: set[str] = field(default_factory=set)  # the requests that had one event
    _days: set[int] = field(default_factory=set)
    _latest: int = 0

    def add_batch(self, batch: Batch) -> None:
        origin = {"pk": origin_pk(self.generation, batch.origin), "sk": f"{time_key(time_ns())}/{batch.batch_id}"}
        self.table.write_many([origin, batch_item(self.generation, batch)])
        if batch.is_request and batch.next_seq == 2 and not batch.counts.rejected:
            self._single.add(batch.batch_id)

    def add_segments(self, arrivals: Sequence[Arrivals], verdicts: Mapping[int, str] | None) -> None:
        stamped = [replace(arrived, segment=self._stamped(arrived.segment)) for arrived in arrivals]
        batch_id = stamped[0].segment.batch_id
        rows = rows_of(stamped)
        if batch_id in self._single and rows:
            self._add_request(stamped[0], rows[0])
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

    def count(self) -> None:
        """Give each batch the counts of what its segments hold, where all of these could be read."""
        for batch_id, tally in self._tallies.items():
            item = self.table.get(batch_key(self.generation, batch_id))
            if item is not None:
                self.table.put({**item, **_counted(batch_of(item), tally)})

    def _stamped(self, segment: Segment) -> Segment:
        """When the index took a segment its batch's record says; of others it is now."""
        if not segment.recorded_at:
            self._latest = max(time_ns(), self._latest + 1)
            segment = structs.replace(segment, recorded_at=self._latest)
        self._recorded[segment.key] = segment.recorded_at
        return segment

    def _add_request(self, arrived: Arrivals, row: Row) -> None:
        segment = arrived.segment
        requests = Requests(self.table, self.generation, set())
        copy = self.raw.read(segment.key) if segment.size <= INLINE else b""
        listing = requests.listing(arrived, row, segment.recorded_at, copy)
        claims = Claims(self.table, self.generation, segment.batch_id, places([segment]))
        item = self.table.get(batch_key(self.generation, segment.batch_id)) or {}
        self.table.write_many(
            [listing, day_item(self.generation, segment.day, REQUEST), {**item, **requests.listed(arrived, row)}]
        )
        claims.make([row])

    def _list_days(self, days: set[int]) -> None:
        self.table.write_many(day_item(self.generation, day, FILE) for day in days - self._days)
        self._days |= days

    def _tally(self, segments: Sequence[Segment], rows: Sequence[Row], verdicts: Mapping[int, str]) -> None:
        tally = self._tallies[segments[0].batch_id]
        for segment in segments:
            tally.add(segment)
        tally.unread |= not rows
        for row in rows:
            tally.kinds[verdicts.get(row.seq, ACCEPTED)] += 1

    def _claim_key(self, event_id: str, item: Item) -> Key:
        keyed = "content" in item
        return claim_key(self.generation, item["day"], item.get("entity", ""), bytes.fromhex(event_id), keyed=keyed)

    def _promote(self, event_id: str, items: list[Item]) -> Location:
        """The first of the duplicates counts, where the accepted delivery is lost."""
        winner = min(items, key=lambda item: (item["ingest_time"], *_place(item)))
        batch_id, seq = _place(winner)
        pk, sk = self._claim_key(event_id, winner)
        content = {name: winner[name] for name in ("day", "content") if "content" in winner}
        self.table.put(
            {"pk": pk, "sk": sk, "batch": batch_id, "n": winner["n"], "frame": winner["frame"], "seq": seq, **content}
        )
        for item in items:
            self._judge(item, ACCEPTED if item is winner else _kind(item, winner))
        key = segment_key(winner["day"], batch_id, winner["n"])
        return Location(event_id, winner["day"], key, batch_id, winner["frame"], seq, ACCEPTED)

    def _judge(self, item: Item, kind: str) -> None:
        """Change what a duplicate is, wherever it is written."""
        if kind == item["kind"]:
            return
        batch_id, seq = _place(item)
        gone = kind == ACCEPTED
        self.table.write_many([] if gone else [{**item, "kind": kind}], [(item["pk"], item["sk"])] if gone else [])
        key = segment_key(item["day"], batch_id, item["n"])
        listed = self._listed(key, batch_id, item["day"])
        skipped = {**unpack_skipped(listed["skipped"]), seq: kind}
        self.table.put({**listed, "skipped": pack_skipped(skipped)})
        kinds = self._tallies[batch_id].kinds
        kinds[item["kind"]] -= 1
        kinds[kind] += 1

    def _listed(self, key: str, batch_id: str, day: int) -> Item:
        pk, sk = f"{self.generation}/day/{day_text(day)}", f"{self._recorded[key]:020d}/{batch_id}-{number_of(key)}"
        item = self.table.get((pk, sk))
        assert item is not None, "a segment whose duplicates are listed is listed itself"
        return item


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


def _place(item: Item) -> tuple[str, int]:
    _, batch_id, seq = item["sk"].split("/")
    return batch_id, int(seq)


def _kind(item: Item, winner: Item) -> str:
    return EXACT if item.get("content") == winner.get("content") else CONFLICT


def _counted(batch: Batch, tally: _Tally) -> Item:
    counts = batch.counts
    if not tally.unread:
        kinds = tally.kinds[ACCEPTED], tally.kinds[EXACT], tally.kinds[CONFLICT]
        read = counts.read if batch.state == COMPLETE else sum(kinds) + counts.rejected
        counts = Counts(read, *kinds, counts.rejected)
    told = replace(batch, counts=counts, first_event=tally.first, last_event=tally.last)
    own = {"segments": tally.segments, "bytes": tally.size, "recorded_at": tally.recorded_at}
    return {**progress_fields(told), **own}
