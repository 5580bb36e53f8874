"""Claims: the item of an event that names its first delivery, inserted once; a rebuild may move it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pik.errors import StoreError
from pik.model.batch import Arrivals, Segment, Verdict, duplicate_kind
from pik.model.instant import day_text
from pik.ports.catalog import Winner
from pik.rawlog.keys import RawKind, number_of
from pik.stores.aws.catalog.id_files import Row, rows_of
from pik.stores.aws.catalog.items import KEYED_DAY, claim_key, duplicate_pk, pack_skipped, unpack_skipped
from pik.stores.aws.table import Item, Key, Table


class Claim(NamedTuple):
    """Which delivery of an event came first; `content` is None without an idempotency key."""

    batch_id: str
    seq: int
    content: bytes | None

    def verdict(self, batch_id: str, seq: int, content: bytes | None) -> Verdict:
        """Return what a delivery of the event is."""
        is_first = (self.batch_id, self.seq) == (batch_id, seq)
        return Verdict.ACCEPTED if is_first else duplicate_kind(content, self.content)


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one batch's deliveries. `segments` are the (day, n) of the segments that rows refer to."""

    table: Table
    generation: int
    batch_id: str
    segments: Sequence[tuple[int, int]]

    def make(self, rows: Sequence[Row], known: Mapping[int, Verdict] | None = None) -> dict[int, Verdict]:
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
        return {seq: kind for seq, kind in kinds if kind != Verdict.ACCEPTED}

    def verdict(self, row: Row, winners: Mapping[bytes, Claim]) -> Verdict:
        """Return what the delivery is, where these events are claimed: UNRECORDED if its own event is not."""
        # A claim that was there may be this delivery's own, made by a call whose answer was lost or by a dead process.
        claim = winners.get(row.event_id)
        return claim.verdict(self.batch_id, row.seq, row.content) if claim else Verdict.UNRECORDED

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


class Counting(Protocol):
    """Counts verdicts by batch; of requests with one event it keeps them, for they have no list of duplicates."""

    def move(self, batch_id: str, before: str | None, after: str) -> None:
        """A delivery of the batch has another verdict now."""

    def is_single(self, batch_id: str) -> bool:
        """Whether the batch is a request with one event."""

    def remember(self, key: str, seq: int, kind: Verdict) -> None:
        """The verdict of the only delivery of a request's segment."""


@dataclass(frozen=True, slots=True)
class Winners:
    """Reads and moves the claims of a generation."""

    table: Table
    generation: int
    counting: Counting

    def of(self, arrivals: Arrivals, seqs: Collection[int]) -> dict[int, Winner]:
        """The accepted deliveries of these deliveries' events, by seq."""
        segment = arrivals.segment
        claims = self._claims(segment)
        keys = {row.seq: claims.key(row) for row in rows_of([arrivals]) if row.seq in seqs}
        found = self.table.get_many(dict.fromkeys(keys.values()))
        winners = ((seq, found.get(key)) for seq, key in keys.items())
        return {seq: _winner(item, segment.day) for seq, item in winners if item is not None}

    def prefer(self, arrivals: Arrivals, seq: int) -> None:
        """Make this delivery the accepted one of its event."""
        segment, claims = arrivals.segment, self._claims(arrivals.segment)
        row = next(row for row in rows_of([arrivals]) if row.seq == seq)
        current = self.table.get(claims.key(row))
        mine = claims.item(row)
        if current is not None and (current["batch"], current["seq"]) == (mine["batch"], seq):
            return
        single = self.counting.is_single(segment.batch_id)
        if not single and self._listed(segment.day, segment.batch_id, number_of(segment.key)) is None:
            return
        of_event = list(self._duplicates(segment.day, row))
        if current is not None:
            of_event += self._demoted(current, row, segment.day)
        self.table.put(mine)
        if single:
            self.counting.remember(segment.key, seq, Verdict.ACCEPTED)
        for item in of_event:
            batch_id, of_seq = place(item)
            is_mine = (batch_id, of_seq) == (segment.batch_id, seq)
            self.judge(item, Verdict.ACCEPTED if is_mine else duplicate_kind(item.get("content"), row.content))

    def judge(self, item: Item, kind: Verdict) -> None:
        """Change what a duplicate is, wherever it is written."""
        if kind == item["kind"]:
            return
        batch_id, seq = place(item)
        gone = kind == Verdict.ACCEPTED
        self.table.write_many([] if gone else [{**item, "kind": kind}], [(item["pk"], item["sk"])] if gone else [])
        listed = self._listed(item["day"], batch_id, item["n"])
        assert listed is not None, "a segment whose duplicates are listed is listed itself"
        self.table.put({**listed, "skipped": pack_skipped({**unpack_skipped(listed["skipped"]), seq: kind})})
        self.counting.move(batch_id, item["kind"], kind)

    def _demoted(self, current: Item, row: Row, day: int) -> list[Item]:
        """The winner of before as a duplicate, of no kind yet."""
        batch_id, seq, n = current["batch"], current["seq"], current["n"]
        day = current.get("day", day)
        content = {"entity": row.entity} if row.content is None else {"content": current["content"]}
        if self.counting.is_single(batch_id):
            kind = duplicate_kind(current.get("content"), row.content)
            self.counting.remember(RawKind.SEGMENT.key(batch_id, n, day), seq, kind)
            return []
        listed = self._listed(day, batch_id, n)
        if listed is None:
            return []
        event_id = row.event_id.hex()
        pk = duplicate_pk(self.generation, day_text(day) if row.content is None else KEYED_DAY, event_id)
        return [
            {
                "pk": pk,
                "sk": f"{event_id}/{batch_id}/{seq}",
                "kind": Verdict.ACCEPTED,
                "day": day,
                "n": n,
                "frame": current["frame"],
                "ingest_time": listed["ingest_time"],
                **content,
            }
        ]

    def _duplicates(self, day: int, row: Row) -> Iterator[Item]:
        event_id = row.event_id.hex()
        pk = duplicate_pk(self.generation, day_text(day) if row.content is None else KEYED_DAY, event_id)
        return self.table.query(pk, prefix=f"{event_id}/")

    def _listed(self, day: int, batch_id: str, n: int) -> Item | None:
        return self.table.get((f"{self.generation}/day/{day_text(day)}", f"{batch_id}-{n:012d}"))

    def _claims(self, segment: Segment) -> Claims:
        return Claims(self.table, self.generation, segment.batch_id, places([segment]))


def _winner(item: Item, day: int) -> Winner:
    key = RawKind.SEGMENT.key(item["batch"], item["n"], item.get("day", day))
    return Winner((item["batch"], item["seq"]), key, item.get("content"))


def place(item: Item) -> tuple[str, int]:
    """The delivery that an item of a duplicate is about."""
    _, batch_id, seq = item["sk"].split("/")
    return batch_id, int(seq)
