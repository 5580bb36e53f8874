"""API requests with one event: one item lists the delivery, another is the batch, the third its claim. They are there
together or not at all, and the verdict is always the claim's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from time import time_ns

from pik.errors import StoreError
from pik.model.batch import OF_REQUEST, Arrivals, Batch, Chunk, Counts, Frame, Location, Segment, Verdict
from pik.model.instant import day_text
from pik.rawlog.keys import RawKind
from pik.runtime.retry import attempts
from pik.stores.aws.catalog.claims import Claims, claim_of, places
from pik.stores.aws.catalog.id_files import Row, rows_of
from pik.stores.aws.catalog.items import (
    DAY_SHARDS,
    PREFIXES,
    REQUEST,
    batch_item,
    batch_of,
    claim_key,
    day_item,
    day_number,
    request_key,
    request_pk,
)
from pik.stores.aws.clients import Flow
from pik.stores.aws.state.items import US
from pik.stores.aws.table import READS, Item, Key, Table, batched

_AHEAD = 500
"""Requests of an entity that are read before those of the entities before it have been."""

INLINE = 4096
"""Bytes of an object, at most, that its item has a copy of: reading 4 KB from S3 costs as much as writing them here."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests with one event of a generation. `days` are those that are known to be listed."""

    table: Table
    generation: int
    days: set[tuple[int, int]]

    def take(self, batch: Batch, chunk: Chunk, copy: bytes) -> Verdict:
        """Record a request and return what its event is: accepted, exact or conflict."""
        arrived, (row,) = chunk.arrivals[0], rows_of(chunk.arrivals)
        claims = Claims(self.table, self.generation, batch.batch_id, [(arrived.segment.day, OF_REQUEST)])
        day = arrived.segment.day
        now = time_ns()
        listed = [self.listing(arrived, row, now, copy), self.batch(batch, chunk, arrived, row, now)]
        of_day = [] if (self.generation, day) in self.days else [day_item(self.generation, day, REQUEST)]
        for _ in attempts():
            there = self.table.put_together([*listed, claims.item(row)], of_day)
            if there is None:
                self.days.add((self.generation, day))
                return Verdict.ACCEPTED
            told = next((claim_of(item) for item in there if (item["pk"], item["sk"]) == claims.key(row)), None)
            if winners := {row.event_id: told} if told else claims.look_up([row]):
                verdict = claims.verdict(row, winners)
                if verdict != Verdict.ACCEPTED:  # else it was this very call that an answer was lost of
                    # Recorded after the delivery that it is a duplicate of, as far as clocks agree.
                    later = {"recorded_at": time_ns()}
                    self.table.write_many([*({**item, **later} for item in listed), *of_day])
                return verdict
            # Another request with this event, or the first ones of the day, are recorded at this very moment.
            self.table.write_many(of_day)
            of_day = []
        raise StoreError("too much contention on this event", hint="send this one again")

    def listing(self, arrived: Arrivals, row: Row, recorded_at: int, copy: bytes) -> Item:
        """The item of the request's segment."""
        segment = arrived.segment
        pk, sk = request_key(self.generation, segment.day, row.entity, row.event_id, segment.batch_id)
        event_id = row.event_id.hex()
        return {
            "pk": pk,
            "sk": sk,
            "event_prefix": f"{self.generation}/{event_id[:PREFIXES]}",
            "event_id": event_id,
            "recorded_at": segment.recorded_at or recorded_at,
            **({"guessed": True} if segment.guessed else {}),
            "ingest_time": segment.ingest_time,
            "event_time": segment.first_event,
            "size": segment.size,
            "digest": bytes.fromhex(segment.digest),
            "seq": row.seq,
            **({} if row.content is None else {"content": row.content}),
            **({"inline": copy} if 0 < len(copy) <= INLINE else {}),
        }

    def batch(self, batch: Batch, chunk: Chunk, arrived: Arrivals, row: Row, recorded_at: int) -> Item:
        """The item of the request's batch; its counts are those of its claim."""
        told = replace(batch, counts=Counts(read=1), recorded_at=recorded_at, lags=chunk.lags, sources=chunk.sources)
        return {**batch_item(self.generation, told), **self.listed(arrived, row)}

    def listed(self, arrived: Arrivals, row: Row) -> Item:
        """What the batch's item says of the request's segment."""
        segment = arrived.segment
        pk, sk = request_key(self.generation, segment.day, row.entity, row.event_id, segment.batch_id)
        return {
            "segments": 1,
            "bytes": segment.size,
            "first_event": segment.first_event,
            "last_event": segment.last_event,
            "listed": pk,
            "listed_as": sk,
            "seq": row.seq,
            **({} if row.content is None else {"content": row.content}),
        }

    def of_entity(self, day: int, entity: str) -> Iterator[Item]:
        """The items of the segments of requests that are about an entity's events of a day."""
        return self.table.query(request_pk(self.generation, day, entity), prefix=f"{entity}{US}")

    def of_entities(self, day: int, entities: Iterable[str]) -> Iterator[Item]:
        """As `of_entity` of each, several entities at a time."""

        def begin(entity: str) -> Iterator[Item]:
            items = self.of_entity(day, entity)
            return chain(list(islice(items, _AHEAD)), items)

        return chain.from_iterable(Flow().map(begin, entities))

    def of_day(self, day: int) -> Iterator[Item]:
        """The items of the segments of a day's requests."""
        for shard in DAY_SHARDS:
            yield from self.table.query(f"{self.generation}/request/{day_text(day)}/{shard}")

    def judged(self, items: Iterable[Item]) -> Iterator[tuple[Item, Verdict]]:
        """Requests' items, those of the segments or those of the batches, each with what its event is. Those that were
        never claimed are left out."""
        for some in batched(items, READS):
            keys = [self._claim_key(item) for item in some]
            found = self.table.get_many(dict.fromkeys(keys))
            for item, key in zip(some, keys, strict=True):
                if key in found:
                    yield item, _verdict(item, found[key])

    def counted(self, items: Sequence[Item]) -> Iterator[Batch]:
        """The batches of requests."""
        for item, verdict in self.judged(items):
            counts = Counts(1, *(int(verdict == kind) for kind in (Verdict.ACCEPTED, Verdict.EXACT, Verdict.CONFLICT)))
            yield replace(batch_of(item), counts=counts)

    def claim_again(self, day: int) -> Iterator[Location]:
        """Requests of the day whose event nobody claims, because its accepted delivery is lost: the first one does."""
        for items in batched(self.of_day(day), READS):
            for item in sorted(items, key=lambda item: (item["ingest_time"], item["sk"])):
                _, entity, event_id, batch_id = place_of(item)
                segment = request_segment(item)
                row = Row(item["seq"], bytes.fromhex(event_id), item.get("content"), 0, 0, entity)
                claims = Claims(self.table, self.generation, batch_id, places([segment]))
                if next(iter(self.table.insert_many([claims.item(row)]))):
                    yield Location(event_id, day, segment.key, batch_id, 0, item["seq"], Verdict.ACCEPTED)

    def _claim_key(self, item: Item) -> Key:
        day, entity, event_id, _ = place_of(item)
        return claim_key(self.generation, day, entity, bytes.fromhex(event_id), keyed="content" in item)


def place_of(item: Item) -> tuple[int, str, str, str]:
    """Day, entity, event_id and batch of a request, by the item of its segment or of its batch."""
    entity, event_id, batch_id = str(item.get("listed_as", item["sk"])).split(US)
    day = str(item.get("listed", item["pk"])).split("/")[2]
    return day_number(day), entity, event_id, batch_id


def request_segment(item: Item) -> Segment:
    """The segment of a request."""
    day, entity, _, batch_id = place_of(item)
    return Segment(
        key=RawKind.SEGMENT.key(batch_id, OF_REQUEST, day),
        batch_id=batch_id,
        day=day,
        size=item["size"],
        digest=item["digest"].hex(),
        deliveries=1,
        ingest_time=item["ingest_time"],
        first_event=item["event_time"],
        last_event=item["event_time"],
        frames=(Frame(0, item["size"], 1, entity, entity),),
        recorded_at=item["recorded_at"],
        guessed=item.get("guessed", False),
        inline=item.get("inline", b""),
    )


def is_single(chunk: Chunk) -> bool:
    """Whether a request has one event, and nothing else."""
    return chunk.read == 1 and len(chunk.arrivals) == 1


def _verdict(item: Item, claim: Item) -> Verdict:
    _, _, _, batch_id = place_of(item)
    return claim_of(claim).verdict(batch_id, item["seq"], item.get("content"))
