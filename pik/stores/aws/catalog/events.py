"""Finding events by their ids: in the id files of chunks, and among requests by their index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product

from pik.model.batch import ACCEPTED, OF_REQUEST, Location
from pik.model.instant import day_text
from pik.stores.aws.adaptive_map import Flow
from pik.stores.aws.catalog.id_files import IdFile, Match, id_file, prefix_of, read_tail, search_ids
from pik.stores.aws.catalog.items import KEYED_DAY, PREFIXES, claim_key, day_number, duplicate_pk, segment_key
from pik.stores.aws.catalog.requests import Requests, place_of
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.table import READS, Item, Key, Table, batched

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
                if kind != ACCEPTED:
                    day, _, event_id, batch_id = place_of(item)
                    key = segment_key(day, batch_id, OF_REQUEST)
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
    return _location(event_id, day, claim, claim["batch"], claim["seq"], ACCEPTED)


def _duplicate(item: Item) -> Location:
    event_id, batch_id, seq = item["sk"].split("/")
    return _location(event_id, item["day"], item, batch_id, int(seq), item["kind"])


def _location(event_id: str, day: int, item: Item, batch_id: str, seq: int, kind: str) -> Location:
    return Location(event_id, day, segment_key(day, batch_id, item["n"]), batch_id, item["frame"], seq, kind)
