"""Which delivery of an event counts, in a generation that is being rebuilt, and changing it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pik.errors import Damaged
from pik.model.batch import ACCEPTED, CONFLICT, EXACT, KEYED, OF_REQUEST, PLAIN, Arrivals, Location, Segment
from pik.model.instant import day_text
from pik.ports.index import Winner
from pik.stores.aws.catalog.claims import Claims, places
from pik.stores.aws.catalog.id_files import Row, number_of, prefix_of, read_ids, rows_of
from pik.stores.aws.catalog.items import KEYED_DAY, duplicate_pk, pack_skipped, segment_key, unpack_skipped
from pik.stores.aws.catalog.requests import Requests, place_of, request_segment
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.table import READS, Item, Table, batched


class Counting(Protocol):
    """Counts verdicts by batch; of requests with one event it keeps them, for they have no list of duplicates."""

    def move(self, batch_id: str, before: str | None, after: str) -> None:
        """A delivery of the batch has another verdict now."""

    def is_single(self, batch_id: str) -> bool:
        """Whether the batch is a request with one event."""

    def remember(self, key: str, seq: int, kind: str) -> None:
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
            self.counting.remember(segment.key, seq, ACCEPTED)
        for item in of_event:
            batch_id, of_seq = place(item)
            is_mine = (batch_id, of_seq) == (segment.batch_id, seq)
            self.judge(item, ACCEPTED if is_mine else EXACT if item.get("content") == row.content else CONFLICT)

    def judge(self, item: Item, kind: str) -> None:
        """Change what a duplicate is, wherever it is written."""
        if kind == item["kind"]:
            return
        batch_id, seq = place(item)
        gone = kind == ACCEPTED
        self.table.write_many([] if gone else [{**item, "kind": kind}], [(item["pk"], item["sk"])] if gone else [])
        listed = self._listed(item["day"], batch_id, item["n"])
        assert listed is not None, "a segment whose duplicates are listed is listed itself"
        self.table.put({**listed, "skipped": pack_skipped({**unpack_skipped(listed["skipped"]), seq: kind})})
        self.counting.move(batch_id, item["kind"], kind)

    def claimed_again(self, day: int) -> Iterator[Location]:
        """Requests of the day whose event nobody claims, because its accepted delivery is lost: the first one does."""
        requests = Requests(self.table, self.generation, set())
        for items in batched(requests.of_day(day), READS):
            for item in sorted(items, key=lambda item: (item["ingest_time"], item["sk"])):
                _, entity, event_id, batch_id = place_of(item)
                segment = request_segment(item)
                row = Row(item["seq"], bytes.fromhex(event_id), item.get("content"), 0, 0, entity)
                if next(iter(self.table.insert_many([self._claims(segment).item(row)]))):
                    yield Location(event_id, day, segment.key, batch_id, 0, item["seq"], ACCEPTED)

    def _demoted(self, current: Item, row: Row, day: int) -> list[Item]:
        """The winner of before as a duplicate, of no kind yet."""
        batch_id, seq, n = current["batch"], current["seq"], current["n"]
        day = current.get("day", day)
        content = {"entity": row.entity} if row.content is None else {"content": current["content"]}
        if self.counting.is_single(batch_id):
            kind = EXACT if current.get("content") == row.content else CONFLICT
            self.counting.remember(segment_key(day, batch_id, n), seq, kind)
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
                "kind": ACCEPTED,
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
    key = segment_key(item.get("day", day), item["batch"], item["n"])
    return Winner((item["batch"], item["seq"]), key, item.get("content"))


def place(item: Item) -> tuple[str, int]:
    """The delivery that an item of a duplicate is about."""
    _, batch_id, seq = item["sk"].split("/")
    return batch_id, int(seq)


def replaced_rows(table: Table, raw: AwsRaw, generation: int, segment: Segment, frames: Collection[int]) -> Arrivals:
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


def arrivals_of(segment: Segment, rows: Sequence[Row]) -> Arrivals:
    """Rows as deliveries of a segment."""
    plain = sorted(PLAIN.pack(row.event_id, row.seq, row.frame) for row in rows if row.content is None)
    keyed = sorted(KEYED.pack(row.seq, row.event_id, row.content, row.frame) for row in rows if row.content is not None)
    in_order = "\n".join(row.entity for row in sorted(rows, key=lambda row: row.seq))
    return Arrivals(segment, b"".join(plain), b"".join(keyed), in_order)
