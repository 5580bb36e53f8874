"""Comparing the index table and the id files with raw, row by row.

Claims, duplicates and listings are read a hundred at a time, across segments.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pik.errors import Damaged
from pik.model.batch import Arrivals, Segment, Verdict
from pik.ports.raw import RawKind, number_of
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.id_files import Row, prefix_of, read_ids, rows_of
from pik.stores.aws.catalog.index import AwsIndex
from pik.stores.aws.catalog.layout import ClaimItem, DuplicateItem, SegmentItem
from pik.stores.aws.catalog.record_chunk import Claims, claim_of, claims_of, verdict
from pik.stores.aws.catalog.requests import Requests
from pik.stores.aws.table import Item, Key, key_of


@dataclass(frozen=True, slots=True)
class AwsAudit:
    """Reads the index table. Deliveries that are not recorded yet never differ."""

    index: AwsIndex

    def differing(self, arrivals: Sequence[Arrivals]) -> dict[str, str]:
        g, table = self.index.generation.current(), self.index.table
        listed = table.get_many(dict.fromkeys(layout.listing_key(g, one.segment) for one in arrivals))
        comparisons = [self._comparison(g, one, listed.get(layout.listing_key(g, one.segment))) for one in arrivals]
        claims = table.get_many(dict.fromkeys(one.claims.key(row) for one in comparisons for row in one.rows))
        items = table.get_many(dict.fromkeys(key for one in comparisons for key in one.item_keys()))
        ids = _IdFiles(self.index, g)
        wrong = {}
        for one in comparisons:
            if detail := one.difference(claims, items) or (ids.difference(one.arrived, one.rows) if one.listed else ""):
                wrong[one.arrived.segment.key] = detail
        return wrong

    def rows(self) -> Iterator[tuple[str, int | None]]:
        g, table = self.index.generation.current(), self.index.table
        for item in table.scan("pk", "sk", "batch", "n", "day"):
            if key := _segment_of_row(g, item):
                yield key, 1
        for listed in table.query(layout.days_pk(g)):
            day, _, kind = listed["sk"].partition("/")
            if kind == layout.REQUEST:
                # That the claim names another delivery is the only row of a duplicate.
                requests = Requests(table, g).segments(layout.day_number(day))
                yield from ((segment.key, 1) for segment, skipped in requests if skipped)
            else:
                yield from (
                    (layout.segment_of(one).key, None)
                    for one in table.query(layout.day_pk(g, day))
                    if "skipped" not in one
                )

    def knows(self, batch_id: str) -> bool:
        return self.index.table.get(layout.batch_key(self.index.generation.current(), batch_id)) is not None

    def damage(self) -> Iterator[tuple[str, str]]:
        return iter(())  # DynamoDB and S3 check what they hold

    def corrections(self) -> set[str]:
        return {item["sk"] for item in self.index.table.query(layout.corrections_pk(self.index.generation.current()))}

    def follow(self, corrections: Sequence[str]) -> None:
        pk = layout.corrections_pk(self.index.generation.current())
        self.index.table.write_many({"pk": pk, "sk": key} for key in corrections)

    def _comparison(self, g: int, arrived: Arrivals, listing: SegmentItem | None) -> _Comparison:
        segment = arrived.segment
        packed = None if listing is None else listing.get("skipped")
        return _Comparison(
            g,
            arrived,
            rows_of([arrived]),
            self.index.skipped(segment) if packed is None else layout.unpack_skipped(packed),
            claims_of(self.index.table, g, segment.batch_id, [segment]),
            listed=listing is not None,
            settled=packed is not None,
        )


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A segment's deliveries, and which of them the index calls duplicates. `listed` is false for a request with one
    event; `settled` is true once the segment's claims are finished."""

    generation: int
    arrived: Arrivals
    rows: Sequence[Row]
    skipped: Mapping[int, Verdict]
    claims: Claims
    listed: bool
    settled: bool

    def item_keys(self) -> Iterator[Key[Any]]:
        """Yield the keys of the duplicates' items or, of a request with one event, of its own items."""
        for row in self.rows:
            if not self.listed:
                yield from self._requests.keys(self.arrived.segment, row)
            elif self.settled and row.seq in self.skipped:
                yield key_of(self._duplicate(row))

    def difference(self, claims: Mapping[tuple[str, str], ClaimItem], items: Mapping[tuple[str, str], Item]) -> str:
        """Return what is wrong; empty if nothing is."""
        wrong = [row.seq for row in self.rows if not self._is_right(row, claims.get(self.claims.key(row)), items)]
        if not wrong:
            return ""
        return f"{len(wrong)} deliveries, the first of them record {min(wrong)}, are not in the index as in raw"

    def _is_right(self, row: Row, claim: ClaimItem | None, items: Mapping[tuple[str, str], Item]) -> bool:
        if not self.listed and not self._requests.is_as_recorded(self.arrived, row, items):
            return False
        kind = self.skipped.get(row.seq, Verdict.ACCEPTED)
        if kind == Verdict.UNRECORDED:
            return True
        if kind == Verdict.ACCEPTED:
            return claim == self.claims.item(row)
        if claim is None or verdict(self.claims.claim(row), claim_of(claim)) != kind:
            return False
        expected = self._duplicate(row)
        return not self.settled or items.get(key_of(expected)) == expected

    @property
    def _requests(self) -> Requests:
        return Requests(self.claims.table, self.generation)

    def _duplicate(self, row: Row) -> DuplicateItem:
        return layout.duplicate_item(self.generation, self.arrived.segment, row, self.skipped[row.seq])


class _IdFiles:
    """The id files of chunks, each read once."""

    def __init__(self, index: AwsIndex, generation: int) -> None:
        self._index, self._generation = index, generation
        self._read: dict[tuple[str, int], list[tuple[str, Segment, list[Row]]]] = {}

    def difference(self, arrived: Arrivals, rows: Sequence[Row]) -> str:
        """Return what is wrong with the rows of a segment in id files; empty if nothing is."""
        segment = arrived.segment
        try:
            files = self._of_chunk(segment.batch_id, number_of(segment.key))
        except (Damaged, ValueError, struct.error) as error:
            return f"an id file of its batch cannot be read: {error}"
        for name, described, there in files:
            if described.key == segment.key:
                same = (described.day, described.digest) == (segment.day, segment.digest)
                if not same or sorted(map(_without_place, there)) != sorted(map(_without_place, rows)):
                    return f"{name} does not have its deliveries as raw has them"
                return ""
        return "no id file has its deliveries: they are not found by their ids"

    def _of_chunk(self, batch_id: str, n: int) -> list[tuple[str, Segment, list[Row]]]:
        if (batch_id, n) not in self._read:
            found = []
            for each in self._index.raw.objects(f"{prefix_of(self._generation)}{batch_id}-{n}-"):
                header, rows = read_ids(self._index.raw, each.key)
                for place, segment in enumerate(header.segments):
                    found.append((each.key, segment, [row for row in rows if row.segment == place]))
            self._read[batch_id, n] = found
        return self._read[batch_id, n]


def _without_place(row: Row) -> tuple[int, bytes, bytes, int, str]:
    return row.seq, row.event_id, row.content or b"", row.frame, row.entity


def _segment_of_row(g: int, item: Item) -> str | None:
    """Return the key of the segment of a claim or a duplicate; None for other items, and other generations."""
    generation, _, rest = item["pk"].partition("/")
    kind, _, rest = rest.partition("/")
    if generation != str(g):
        return None
    if kind == "claim":
        return RawKind.SEGMENT.key(item["batch"], item["n"], layout.day_number(rest.partition("/")[0]))
    if kind == "key":
        return RawKind.SEGMENT.key(item["batch"], item["n"], item["day"])
    if kind == "duplicate":
        return RawKind.SEGMENT.key(item["sk"].split("/")[1], item["n"], item["day"])
    return None
