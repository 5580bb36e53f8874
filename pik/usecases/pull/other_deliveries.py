"""Where else the events of a segment have deliveries. Only an idempotency key comes again with another time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pik.model.batch import KEYED, Arrivals, Location
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.batch_record import SegmentLine
from pik.rawlog.frames import unpacked
from pik.rawlog.segment_reader import scan_segment, seqs

_HAS_KEY = b'"idempotency_key":'
_PAGE = 500  # events whose numbers of deliveries are asked for at once


def deliveries_elsewhere(source: Store, raw: Raw, line: SegmentLine, entities: Sequence[str]) -> Iterator[Location]:
    """Every delivery of the segment's events (of these entities; none: of all) that may be in other days: of those with
    an idempotency key. `raw` is where the segment is read from."""
    if not any(_HAS_KEY in text for text in unpacked(line.segment.key, raw.read(line.segment.key))):
        return
    arrivals = scan_segment(raw, line.segment.key)
    verdicts = line.verdicts
    again: set[str] = set()
    first: list[tuple[int, str]] = []
    for seq, event_id in _keyed(arrivals, entities):
        if seq in verdicts:
            again.add(event_id)
        else:
            first.append((line.segment.day, event_id))
    for start in range(0, len(first), _PAGE):
        page = first[start : start + _PAGE]
        repeats = source.index.repeats(page)
        again.update(event_id for (_, event_id), repeated in zip(page, repeats, strict=True) if repeated)
    for event_id in sorted(again):
        yield from source.index.deliveries(event_id)


def _keyed(arrivals: Arrivals, entities: Sequence[str]) -> Iterator[tuple[int, str]]:
    """seq and event_id of each delivery with an idempotency key."""
    entity_of = dict(zip(sorted(seqs(arrivals)), arrivals.entities.split("\n"), strict=True)) if entities else {}
    for seq, event_id, _, _ in KEYED.iter_unpack(arrivals.keyed):
        if not entities or entity_of[seq] in entities:
            yield seq, event_id.hex()
