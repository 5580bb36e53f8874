"""Writing the lists of a correction: which deliveries it is about. docs/format.md specifies them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from operator import attrgetter

import msgspec
import zstandard

from pik.model.batch import Frame, frame_of
from pik.model.correction import CorrectionList, ListedDelivery
from pik.model.instant import day_of, parse_instant
from pik.ports.raw import Object, Raw, RawKind
from pik.rawlog.segment_writer import COMPRESSION_LEVEL, FRAME
from pik.runtime.storage import Parts

HELD = 100_000
"""Deliveries that a writer holds in memory, which is also about how many an object has at most."""

_AT_ONCE = 1000
"""Deliveries that are given to a writer together."""

_TOGETHER = 16 << 20
"""Bytes of objects that are created together."""


@dataclass(slots=True)
class ListWriter:
    """Takes the deliveries that a correction lists, in any order and each once, and creates its lists in bounded
    memory: one per day of raw, and more for a day that has more than about `held` deliveries."""

    raw: Raw
    correction_id: str
    held: int = HELD
    _days: defaultdict[str, list[ListedDelivery]] = field(default_factory=lambda: defaultdict(list))
    _count: int = 0
    _spilled: Parts[ListedDelivery] = field(default_factory=lambda: Parts(ListedDelivery))
    _numbers: Counter[str] = field(default_factory=Counter)
    _objects: list[Object] = field(default_factory=list)
    _lists: list[CorrectionList] = field(default_factory=list)

    def add(self, *deliveries: ListedDelivery) -> None:
        """Take deliveries. Raises StoreError."""
        for delivery in deliveries:
            self._days[delivery.event_time[:10]].append(delivery)
        self._count += len(deliveries)
        if self._count >= self.held:
            self._make_room()

    def finish(self) -> tuple[CorrectionList, ...]:
        """Return the lists, by day, once all of them are durable. Raises StoreError."""
        for date in sorted({*self._days, *self._spilled.names()}):
            of_day = self._days.pop(date, [])
            for part in self._spilled.read(date):
                if len(of_day) + len(part) > self.held:
                    self._write(date, of_day)
                    of_day = []
                of_day += part
            self._write(date, of_day)
        self._create()
        return tuple(sorted(self._lists, key=attrgetter("day")))

    def _make_room(self) -> None:
        """Write the deliveries of a day if they are most of what is held; otherwise keep all of them in a file until
        those that follow are there as well."""
        date, longest = max(self._days.items(), key=lambda of_day: len(of_day[1]))
        if 2 * len(longest) > self._count:
            del self._days[date]
            self._write(date, longest)
            self._count -= len(longest)
            return
        for date, deliveries in self._days.items():
            self._spilled.add(date, deliveries)
        self._days.clear()
        self._count = 0

    def _write(self, date: str, deliveries: list[ListedDelivery]) -> None:
        if not deliveries:
            return
        for name in ("seq", "batch_id"):  # several times by one field is faster than once by several
            deliveries.sort(key=attrgetter(name))
        deliveries.sort(key=_time)
        first, last = _time(deliveries[0]), _time(deliveries[-1])
        deliveries.sort(key=attrgetter("entity_id"))
        data, frames = _framed(deliveries)
        self._numbers[date] += 1
        day = day_of(parse_instant(date, date_only=True))
        made = CorrectionList(
            key=RawKind.LIST.key(self.correction_id, self._numbers[date], day),
            day=day,
            first_event=parse_instant(first),
            last_event=parse_instant(last),
            deliveries=len(deliveries),
            size=len(data),
            digest=sha256(data).hexdigest(),
            frames=frames,
        )
        self._lists.append(made)
        self._objects.append((made.key, data))
        if sum(len(data) for _, data in self._objects) >= _TOGETHER:
            self._create()

    def _create(self) -> None:
        if self._objects:
            self.raw.create_all(self._objects)
            self._objects = []


def write_lists(raw: Raw, correction_id: str, deliveries: Iterable[ListedDelivery]) -> tuple[CorrectionList, ...]:
    """Create the lists of a correction with these deliveries, in any order and each once, and return them once they are
    durable. Raises StoreError."""
    writer = ListWriter(raw, correction_id)
    rest = iter(deliveries)
    while some := tuple(islice(rest, _AT_ONCE)):
        writer.add(*some)
    return writer.finish()


def _time(delivery: ListedDelivery) -> str:
    return delivery.time or delivery.event_time


def _framed(deliveries: Sequence[ListedDelivery]) -> tuple[bytes, tuple[Frame, ...]]:
    """Return the bytes of a list, and its frames."""
    compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
    text = msgspec.json.Encoder().encode_lines(deliveries)
    parts: list[bytes] = []
    frames: list[Frame] = []
    begin = offset = first = 0
    while begin < len(text):
        end = text.find(b"\n", begin + FRAME - 1) + 1 or len(text)
        last = first + text.count(b"\n", begin, end)
        data = compressor.compress(text[begin:end])
        parts.append(data)
        frames.append(frame_of(offset, len(data), [one.entity_id for one in deliveries[first:last]]))
        begin, offset, first = end, offset + len(data), last
    return b"".join(parts), tuple(frames)
