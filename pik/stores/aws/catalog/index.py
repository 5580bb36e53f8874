"""Reading the index table and the id files."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain, islice, product
from operator import itemgetter

from pik.errors import NotFound
from pik.model.batch import OF_REQUEST, Batch, Counts, Location, RejectFile, Segment, Verdict
from pik.model.instant import day_text
from pik.model.window import Window
from pik.ports.catalog import Totals
from pik.rawlog.keys import RawKind
from pik.stores.aws.catalog.batches import living
from pik.stores.aws.catalog.claims import Claims, places
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.id_files import IdFile, Match, id_file, prefix_of, read_ids, read_tail, search_ids
from pik.stores.aws.catalog.items import (
    BATCH_SHARDS,
    FILE,
    KEYED_DAY,
    PREFIXES,
    batch_key,
    batch_of,
    claim_key,
    day_number,
    decoding,
    duplicate_pk,
    listing_key,
    referred,
    reject_file,
    segment_of,
    unpack_skipped,
)
from pik.stores.aws.catalog.record_chunk import NO_DELIVERIES, advanced, counts_of
from pik.stores.aws.catalog.requests import Requests, place_of, request_segment
from pik.stores.aws.clients import Flow
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.table import READS, Item, Key, Table, batched

_REMEMBERED, _MEMORABLE = 2000, 8192
"""Segments whose duplicates are remembered, because they came along when the segments were listed, and the bytes that
these may take."""

_ULID = 26


@dataclass(slots=True)
class AwsIndex:
    """Implements the port on the items of the index table, and the id files."""

    table: Table
    raw: AwsRaw
    generation: Generation
    _skipped: dict[str, bytes | dict[int, Verdict]] = field(default_factory=dict, repr=False, compare=False)
    """By segment: its duplicates, or what `pack_skipped` made of them."""

    def segments(
        self, window: Window, *, batch_id: str | None = None, entities: Sequence[str] = ()
    ) -> Iterator[Segment]:
        g = self.generation.current()
        first, last = map(day_text, window.days)
        if batch_id is not None:
            return self._of_batch(g, batch_id, first, last)
        days = [item["sk"].split("/") for item in self.table.query(f"{g}/days", between=(first, f"{last}/~"))]
        wanted = sorted(set(entities))
        return chain.from_iterable(
            self._of_files(g, day, wanted) if kind == FILE else self._of_requests(g, day, wanted) for day, kind in days
        )

    def skipped(self, segment: Segment) -> dict[int, Verdict]:
        came = self._skipped.get(segment.key)
        if came is None:
            came = self._look_up(segment)
        return unpack_skipped(came) if isinstance(came, bytes) else dict(came)

    def locate(self, event_id_prefix: str, limit: int = 10) -> list[Location]:
        return self._events.locate(event_id_prefix, limit)

    def deliveries(self, event_id: str, limit: int | None = None) -> list[Location]:
        return self._events.deliveries(event_id)[:limit]

    def repeats(self, events: Sequence[tuple[int, str]]) -> list[int]:
        return self._events.repeats(events)

    def batches(self, prefix: str = "") -> Iterator[Batch]:
        g = self.generation.current()
        return (living(self.table, batch) for batch, _ in self._batches(g, prefix))

    def rejects(self, batch_id: str) -> list[RejectFile]:
        g = self.generation.current()
        return [reject_file(item) for item in self.table.query(f"{g}/reject/{batch_id}")]

    def totals(self) -> Totals:
        g = self.generation.current()
        return reduce(_added, self._batches(g, ""), Totals(0, 0, 0, 0, 0, None, None))

    @property
    def _events(self) -> Events:
        return Events(self.table, self.raw, self.generation.current())

    def _of_batch(self, g: int, batch_id: str, first: str, last: str) -> Iterator[Segment]:
        known = False
        for some in batched(self.table.query(f"{g}/segment/{batch_id}", between=(first, f"{last}/~")), READS):
            known = True
            keys = [referred(g, item) for item in some]
            found = self.table.get_many(keys)
            yield from self._listed(found[key] for key in keys if key in found)
        batch = None if known else self.table.get(batch_key(g, batch_id))
        if batch and "listed" in batch and first <= batch["listed"].split("/")[2] <= last:
            item = self.table.get((batch["listed"], batch["listed_as"]))
            yield from self._judged(g, [item] if item else [])

    def _of_files(self, g: int, day: str, entities: Sequence[str]) -> Iterator[Segment]:
        for segment in self._listed(self.table.query(f"{g}/day/{day}")):
            if not entities or any(f.first <= entity <= f.last for f in segment.frames for entity in entities):
                yield segment

    def _listed(self, items: Iterable[Item]) -> Iterator[Segment]:
        for item in items:
            segment = segment_of(item)
            if "skipped" in item:
                self._remember(segment, item["skipped"])
            yield segment

    def _of_requests(self, g: int, day: str, entities: Sequence[str]) -> Iterator[Segment]:
        requests, number = Requests(self.table, g, set()), day_number(day)
        items = requests.of_entities(number, entities) if entities else requests.of_day(number)
        return self._judged(g, items)

    def _judged(self, g: int, items: Iterable[Item]) -> Iterator[Segment]:
        for item, kind in Requests(self.table, g, set()).judged(items):
            segment = request_segment(item)
            self._remember(segment, {} if kind == Verdict.ACCEPTED else {item["seq"]: kind})
            yield segment

    def _remember(self, segment: Segment, skipped: bytes | dict[int, Verdict]) -> None:
        if len(skipped) <= _MEMORABLE:
            self._skipped[segment.key] = skipped
        while len(self._skipped) > _REMEMBERED:
            del self._skipped[next(iter(self._skipped))]

    def _look_up(self, segment: Segment) -> bytes | dict[int, Verdict]:
        g = self.generation.current()
        item = self.table.get(listing_key(g, segment))
        if item is None or "skipped" not in item:
            batch = self.table.get(batch_key(g, segment.batch_id)) or {}
            if "listed" in batch:
                kind = next((kind for _, kind in Requests(self.table, g, set()).judged([batch])), Verdict.ACCEPTED)
                return {} if kind == Verdict.ACCEPTED else {batch["seq"]: kind}
            pending = self._pending(g, segment, batch.get("pending", NO_DELIVERIES))
            if pending is not None:
                return pending
            item = self.table.get(listing_key(g, segment))  # it was settled while the batch was looked at
        if item is None or "skipped" not in item:
            raise NotFound(f"segment {segment.key} is not in the index", hint="pik verify --rebuild-index")
        skipped: bytes = item["skipped"]
        return skipped

    def _pending(self, g: int, segment: Segment, pending: str) -> dict[int, Verdict] | None:
        """The duplicates of a segment whose claims may not be finished, by the claims that there are; None if it is not
        what is pending."""
        if pending == NO_DELIVERIES:
            return None
        header, rows = read_ids(self.raw, pending)
        keys = [one.key for one in header.segments]
        if segment.key not in keys:
            return None
        claims = Claims(self.table, g, segment.batch_id, places(header.segments))
        mine = [row for row in rows if keys[row.segment] == segment.key]
        winners = claims.look_up(mine)
        kinds = ((row.seq, claims.verdict(row, winners)) for row in mine)
        return {seq: kind for seq, kind in kinds if kind != Verdict.ACCEPTED}

    def _batches(self, g: int, prefix: str) -> Iterator[tuple[Batch, Item]]:
        """Batches and their items, newest first."""
        for items in batched(self._batch_items(g, prefix), READS):
            of_requests = [item for item in items if "listed" in item]
            requests = {batch.batch_id: batch for batch in Requests(self.table, g, set()).counted(of_requests)}
            for item in items:
                if "listed" not in item:
                    yield self._as_claimed(g, batch_of(item), item)
                elif item["sk"] in requests:
                    yield requests[item["sk"]], item

    def _as_claimed(self, g: int, batch: Batch, item: Item) -> tuple[Batch, Item]:
        """The batch with what is pending, where that is recorded. Of a request that died nobody goes on with it: what
        it had claimed counts, and no more."""
        pending = item.get("pending", NO_DELIVERIES)
        if pending == NO_DELIVERIES or not (batch.is_request or "settled_at" in item):
            return batch, item
        header, rows = read_ids(self.raw, pending)
        claims = Claims(self.table, g, batch.batch_id, places(header.segments))
        winners = claims.look_up(rows)
        if not batch.is_request:  # all of it is recorded, but its writer has not said so yet
            verdicts = {row.seq: kind for row in rows if (kind := claims.verdict(row, winners)) != Verdict.ACCEPTED}
            more = {"segments": len(header.segments), "bytes": sum(segment.size for segment in header.segments)}
            now = replace(advanced(batch, header, counts_of(header, verdicts)), recorded_at=item["settled_at"])
            return now, {**item, **{name: item[name] + count for name, count in more.items()}}
        kinds = Counter(claims.verdict(row, winners) for row in rows)
        counts = Counts(
            len(rows) - kinds[Verdict.UNRECORDED],
            kinds[Verdict.ACCEPTED],
            kinds[Verdict.EXACT],
            kinds[Verdict.CONFLICT],
        )
        firsts = [segment.first_event for segment in header.segments]
        lasts = [segment.last_event for segment in header.segments]
        sizes = {"segments": len(header.segments), "bytes": sum(segment.size for segment in header.segments)}
        return replace(batch, counts=counts, first_event=min(firsts), last_event=max(lasts)), {**item, **sizes}

    def _batch_items(self, g: int, prefix: str) -> Iterator[Item]:
        if len(prefix) == _ULID:
            item = self.table.get(batch_key(g, prefix))
            return iter([item] if item else [])
        shards = [self.table.query(f"{g}/batch/{s}", prefix=prefix, descending=True) for s in BATCH_SHARDS]
        return heapq.merge(*shards, key=itemgetter("sk"), reverse=True)


def _added(totals: Totals, of_batch: tuple[Batch, Item]) -> Totals:
    batch, item = of_batch
    firsts = [time for time in (totals.first_event, batch.first_event) if time is not None]
    lasts = [time for time in (totals.last_event, batch.last_event) if time is not None]
    return Totals(
        events=totals.events + batch.counts.accepted,
        deliveries=totals.deliveries + batch.counts.accepted + batch.counts.duplicates,
        segments=totals.segments + item["segments"],
        batches=totals.batches + 1,
        raw_bytes=totals.raw_bytes + item["bytes"],
        first_event=min(firsts, default=None),
        last_event=max(lasts, default=None),
    )


_BY_EVENT = ("by_event", "event_prefix", "event_id")
_HEX = "0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a generation."""

    table: Table
    raw: AwsRaw
    generation: int

    def locate(self, prefix: str, limit: int) -> list[Location]:
        """As Index.locate."""
        found: list[Location] = []
        claims = {**self._in_files(prefix, limit), **self._in_requests(prefix)}
        for some in batched(sorted(claims), READS):
            items = self.table.get_many(dict.fromkeys(claims[event_id] for event_id in some))
            found += [_accepted(event_id, items[claims[event_id]]) for event_id in some if claims[event_id] in items]
            if len(found) >= limit:
                break
        return found[:limit]

    def deliveries(self, event_id: str) -> list[Location]:
        """As Index.deliveries."""
        claim = self.table.get((f"{self.generation}/key/{event_id}", "claim"))
        requests = list(self._requests(event_id))
        if claim is None:
            keys = self._in_requests(event_id) or self._in_files(event_id, 1)
            claim = self.table.get(keys[event_id]) if keys else None
        if claim is None:
            return []
        accepted = _accepted(event_id, claim)
        day = KEYED_DAY if "content" in claim else day_text(accepted.day)
        others = [_duplicate(item) for item in self._duplicates(day, event_id)]
        others += self._of_requests(requests)
        return [accepted, *sorted(others, key=lambda place: (place.batch_id, place.seq))]

    def repeats(self, events: Sequence[tuple[int, str]]) -> list[int]:
        """As Index.repeats."""
        with_requests = bool(events) and self._has_requests()

        def repeated(event: tuple[int, str]) -> int:
            day, event_id = event
            requests = self._of_requests(self._requests(event_id)) if with_requests else ()
            count = sum(1 for of_day in (day_text(day), KEYED_DAY) for _ in self._duplicates(of_day, event_id))
            return count + sum(1 for _ in requests)

        return list(Flow().map(repeated, events))

    def _duplicates(self, day: str, event_id: str) -> Iterator[Item]:
        return self.table.query(duplicate_pk(self.generation, day, event_id), prefix=f"{event_id}/")

    def _of_requests(self, items: Iterable[Item]) -> Iterator[Location]:
        """The duplicates among an event's requests."""
        for some in batched(items, READS):
            whole = self.table.get_many((item["pk"], item["sk"]) for item in some)
            for item, kind in Requests(self.table, self.generation, set()).judged(whole.values()):
                if kind != Verdict.ACCEPTED:
                    day, _, event_id, batch_id = place_of(item)
                    key = RawKind.SEGMENT.key(batch_id, OF_REQUEST, day)
                    yield Location(event_id, day, key, batch_id, 0, item["seq"], kind)

    def _requests(self, prefix: str) -> Iterator[Item]:
        """The keys of requests with an event whose id starts so."""
        heads = [prefix[:PREFIXES]]
        if len(prefix) < PREFIXES:
            heads = [prefix + "".join(rest) for rest in product(_HEX, repeat=PREFIXES - len(prefix))]
        if len(heads) > 1 and not self._has_requests():
            return iter(())
        return chain.from_iterable(
            self.table.query(f"{self.generation}/{head}", prefix=prefix, index=_BY_EVENT) for head in heads
        )

    def _has_requests(self) -> bool:
        return any(item["sk"].endswith("/request") for item in self.table.query(f"{self.generation}/days"))

    def _in_requests(self, prefix: str) -> dict[str, Key]:
        """The claims' keys of the events of requests whose id starts so."""
        found: dict[str, Key] = {}
        for some in batched(self._requests(prefix), READS):
            for item in self.table.get_many((one["pk"], one["sk"]) for one in some).values():
                day, entity, event_id, _ = place_of(item)
                found[event_id] = self._claim(day, entity, event_id, keyed="content" in item)
        return found

    def _in_files(self, prefix: str, limit: int) -> dict[str, Key]:
        """The claims' keys of events in id files whose id starts so, the first `limit` of each file."""
        low, high = bytes.fromhex(prefix.ljust(32, "0")), bytes.fromhex(prefix.ljust(32, "f"))
        files = (id_file(found.key) for found in self.raw.objects(prefix_of(self.generation)))
        found: dict[str, Key] = {}
        for some in Flow().map(lambda file: self._in_file(file, low, high, limit), files):
            found.update(some)
        return found

    def _in_file(self, file: IdFile, low: bytes, high: bytes, limit: int) -> dict[str, Key]:
        matches: dict[bytes, Match] = {}
        for match in search_ids(self.raw, file, low, high):
            matches.setdefault(match.event_id, match)
        chosen = list(islice(matches.values(), limit))
        if all(match.keyed for match in chosen):
            return {match.event_id.hex(): self._claim(0, "", match.event_id.hex(), keyed=True) for match in chosen}
        header, entities = read_tail(self.raw, file)
        keys = {}
        for match in chosen:
            event_id, day = match.event_id.hex(), header.segments[match.segment].day
            keys[event_id] = self._claim(day, entities[match.place], event_id, keyed=match.keyed)
        return keys

    def _claim(self, day: int, entity: str, event_id: str, *, keyed: bool) -> Key:
        return claim_key(self.generation, day, entity, bytes.fromhex(event_id), keyed=keyed)


def _accepted(event_id: str, claim: Item) -> Location:
    day = claim["day"] if "content" in claim else day_number(claim["pk"].split("/")[2])
    return _location(event_id, day, claim, claim["batch"], claim["seq"], Verdict.ACCEPTED)


def _duplicate(item: Item) -> Location:
    with decoding(f"item {item['pk']} {item['sk']}"):
        event_id, batch_id, seq = item["sk"].split("/")
        return _location(event_id, item["day"], item, batch_id, int(seq), Verdict(item["kind"]))


def _location(event_id: str, day: int, item: Item, batch_id: str, seq: int, kind: Verdict) -> Location:
    return Location(event_id, day, RawKind.SEGMENT.key(batch_id, item["n"], day), batch_id, item["frame"], seq, kind)
