"""Claims: who is the first of an event. A claim is an item that nobody can insert twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pik.errors import StoreError
from pik.model.batch import ACCEPTED, CONFLICT, EXACT, UNRECORDED, Segment
from pik.stores.aws.catalog.id_files import Row, number_of
from pik.stores.aws.catalog.items import claim_key
from pik.stores.aws.table import Item, Key, Table


class Claim(NamedTuple):
    """Which delivery of an event came first; `content` is None without an idempotency key."""

    batch_id: str
    seq: int
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one batch's deliveries. `segments` are the (day, n) of the segments that rows refer to."""

    table: Table
    generation: int
    batch_id: str
    segments: Sequence[tuple[int, int]]

    def make(self, rows: Sequence[Row], known: Mapping[int, str] | None = None) -> dict[int, str]:
        """Claim the events of a chunk, in the order of its rows, and tell which seqs are duplicates, and of what kind.
        `known` tells it of some already: these claim nothing. May be repeated."""
        known = known or {}
        first: dict[bytes, Row] = {}
        for row in rows:
            if row.seq not in known:
                first.setdefault(row.event_id, row)
        claiming = list(first.values())
        inserted = self.table.insert_many(self.item(row) for row in claiming)
        there = [row for row, new in zip(claiming, inserted, strict=True) if not new]
        found = self.look_up(there)
        if len(found) != len(there):
            raise StoreError("a claim that was there is gone", hint="pik verify --rebuild-index")
        winners = {row.event_id: self.mine(row) for row in claiming} | found
        kinds = ((row.seq, known.get(row.seq) or self.verdict(row, winners)) for row in rows)
        return {seq: kind for seq, kind in kinds if kind != ACCEPTED}

    def verdict(self, row: Row, winners: Mapping[bytes, Claim]) -> str:
        """What the delivery is, where these events are claimed: accepted, exact, conflict, or not recorded yet."""
        claim = winners.get(row.event_id)
        if claim is None:
            return UNRECORDED
        # A claim that was there may be one's own, made by a call whose answer was lost, or by whoever died at it.
        if (claim.batch_id, claim.seq) == (self.batch_id, row.seq):
            return ACCEPTED
        return EXACT if claim.content == row.content else CONFLICT

    def mine(self, row: Row) -> Claim:
        """That this delivery is the first of its event."""
        return Claim(self.batch_id, row.seq, row.content)

    def look_up(self, rows: Iterable[Row]) -> dict[bytes, Claim]:
        """The claims that there are of these rows' events."""
        keys = {self.key(row): row.event_id for row in rows}
        found = self.table.get_many(keys)
        return {keys[key]: claim_of(item) for key, item in found.items()}

    def key(self, row: Row) -> Key:
        """Of the claim of this row's event."""
        day, _ = self.segments[row.segment]
        return claim_key(self.generation, day, row.entity, row.event_id, keyed=row.content is not None)

    def item(self, row: Row) -> Item:
        """The claim that this delivery is the first of its event."""
        pk, sk = self.key(row)
        day, n = self.segments[row.segment]
        item: Item = {"pk": pk, "sk": sk, "batch": self.batch_id, "n": n, "frame": row.frame, "seq": row.seq}
        return item if row.content is None else {**item, "day": day, "content": row.content}


def claim_of(item: Item) -> Claim:
    """What a claim's item says."""
    return Claim(item["batch"], item["seq"], item.get("content"))


def places(segments: Iterable[Segment]) -> list[tuple[int, int]]:
    """(day, n) of each segment."""
    return [(segment.day, number_of(segment.key)) for segment in segments]
