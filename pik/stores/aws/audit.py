"""Holding the index table against raw, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pik.model.batch import ACCEPTED, UNRECORDED, Arrivals, Segment
from pik.model.instant import DAY, MIN_INSTANT, day_text
from pik.model.window import Window
from pik.stores.aws.claims import Claims, places
from pik.stores.aws.index import AwsIndex
from pik.stores.aws.items import KEYED_DAY, REQUEST, day_number, duplicate_pk, listing_key, segment_key, segment_of
from pik.stores.aws.requests import Requests, request_segment
from pik.stores.aws.rows import Row, number_of, rows_of
from pik.stores.aws.table import Item, Key


@dataclass(frozen=True, slots=True)
class AwsAudit:
    """Reads the index table. Deliveries that are not recorded yet differ from nothing."""

    index: AwsIndex

    def differing(self, arrivals: Arrivals) -> list[int]:
        rows, key = rows_of([arrivals]), arrivals.segment.key
        day = Window(max(arrivals.segment.day * DAY, MIN_INSTANT), (arrivals.segment.day + 1) * DAY)
        of_batch = self.index.segments(day, batch_id=arrivals.segment.batch_id)
        listed = next((segment for segment in of_batch if segment.key == key), None)
        if listed is None:
            return [row.seq for row in rows]
        skipped = self.index.skipped(listed)
        accepted = [row for row in rows if row.seq not in skipped]
        again = [row for row in rows if skipped.get(row.seq) not in (None, UNRECORDED)]
        return sorted([*self._without_claim(listed, accepted), *self._without_item(listed, again)])

    def rows(self) -> dict[str, int]:
        g, counts = self.index.generation.current(), Counter[str]()
        for item in self.index.table.scan("pk", "sk", "batch", "n", "day"):
            if key := _counts_for(g, item):
                counts[key] += 1
        for item in self.index.table.query(f"{g}/days"):
            day, _, kind = item["sk"].partition("/")
            if kind == REQUEST:
                counts.update(self._of_requests(g, day_number(day)))
            else:
                counts |= self._unsettled(g, day)
        return dict(counts)

    def _without_claim(self, segment: Segment, rows: Sequence[Row]) -> Iterator[int]:
        claims = Claims(self.index.table, self.index.generation.current(), segment.batch_id, places([segment]))
        found = self.index.table.get_many(dict.fromkeys(map(claims.key, rows)))
        return (row.seq for row in rows if found.get(claims.key(row)) != claims.item(row))

    def _without_item(self, segment: Segment, rows: Sequence[Row]) -> Iterator[int]:
        g, table, n = self.index.generation.current(), self.index.table, number_of(segment.key)
        if "skipped" not in (table.get(listing_key(g, segment)) or {}):
            return iter(())  # of requests with one event, and while claims may not be finished, claims are all there is

        def key(row: Row) -> Key:
            event_id = row.event_id.hex()
            day = day_text(segment.day) if row.content is None else KEYED_DAY
            return duplicate_pk(g, day, event_id), f"{event_id}/{segment.batch_id}/{row.seq}"

        found = table.get_many(map(key, rows))
        places_of = ((row, found.get(key(row), {})) for row in rows)
        return (row.seq for row, item in places_of if (item.get("n"), item.get("frame")) != (n, row.frame))

    def _unsettled(self, g: int, day: str) -> dict[str, int]:
        """Segments that somebody is at work on, or died at."""
        unsettled = (item for item in self.index.table.query(f"{g}/day/{day}") if "skipped" not in item)
        return {segment.key: segment.deliveries for segment in map(segment_of, unsettled)}

    def _of_requests(self, g: int, day: int) -> Iterator[str]:
        """The segments of requests whose event had come before: that the claim names another is their only row."""
        requests = Requests(self.index.table, g, set())
        judged = requests.judged(requests.of_day(day))
        return (request_segment(item).key for item, kind in judged if kind != ACCEPTED)


def _counts_for(g: int, item: Item) -> str | None:
    """The key of the segment that an item is a row of, if it is one: a claim or a duplicate."""
    generation, _, rest = item["pk"].partition("/")
    kind, _, rest = rest.partition("/")
    if generation != str(g):
        return None
    if kind == "claim":
        return segment_key(day_number(rest.partition("/")[0]), item["batch"], item["n"])
    if kind == "key":
        return segment_key(item["day"], item["batch"], item["n"])
    if kind == "duplicate":
        return segment_key(item["day"], item["sk"].split("/")[1], item["n"])
    return None
