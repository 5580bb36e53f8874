"""Chunks for the index, made by hand: deliveries without raw behind them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from pik.model.batch import KEYED, PLAIN, Arrivals, Chunk, Counts, Frame, Origin, RejectFile, Segment
from pik.model.instant import DAY, day_text

BATCH = "01J00000000000000000000000"
OTHER = "01J00000000000000000000001"
THIRD = "01J00000000000000000000002"


def origin(content: str = "c", **fields: object) -> Origin:
    return Origin(**{"name": "file", "content": content, **fields})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sent:
    """A delivery: what it is the event of, its day, and with `key` what it says (else the event is what it says)."""

    event: str
    day: int = 0
    says: str | None = None

    @property
    def event_id(self) -> bytes:
        """Of a plain event the day is part of what it is."""
        text = self.event if self.says is not None else f"{self.event} on {self.day}"
        return sha256(text.encode()).digest()[:16]


def arrivals(batch_id: str, number: int, sent: Mapping[int, Sent], ingest_time: int = 5) -> tuple[Arrivals, ...]:
    """The segments of a block whose deliveries are given by seq, each in a frame of its own."""
    days: dict[int, list[tuple[int, Sent]]] = defaultdict(list)
    for seq, each in sent.items():
        days[each.day].append((seq, each))
    made = []
    for day, of_day in sorted(days.items()):
        plain, keyed = [], []
        for frame, (seq, each) in enumerate(of_day):
            if each.says is None:
                plain.append(PLAIN.pack(each.event_id, seq, frame))
            else:
                keyed.append(KEYED.pack(seq, each.event_id, sha256(each.says.encode()).digest()[:16], frame))
        segment = Segment(
            key=f"raw/event_date={day_text(day)}/{batch_id}-{number}.ndjson.zst",
            batch_id=batch_id,
            day=day,
            size=10 * len(of_day),
            digest=f"{number:064x}",
            deliveries=len(of_day),
            ingest_time=ingest_time,
            first_event=day * DAY + min(seq for seq, _ in of_day),
            last_event=day * DAY + max(seq for seq, _ in of_day),
            frames=tuple(Frame(10 * frame, 10, 1, "e", "e") for frame in range(len(of_day))),
        )
        entities = "\n".join("e" for _ in of_day)
        made.append(Arrivals(segment, b"".join(sorted(plain)), b"".join(sorted(keyed)), entities))
    return tuple(made)


def chunk(
    sent: Iterable[Sent | None],
    *,
    batch_id: str = BATCH,
    first_seq: int = 1,
    number: int = 1,
    reasons: Mapping[str, int] | None = None,
    ingest_time: int = 5,
) -> Chunk:
    """A chunk with these records; None is a rejected one."""
    records = dict(enumerate(sent, first_seq))
    valid = {seq: each for seq, each in records.items() if each is not None}
    rejected = len(records) - len(valid)
    key = f"raw/rejects/{batch_id}-{number}.ndjson.zst"
    return Chunk(
        batch_id=batch_id,
        first_seq=first_seq,
        last_seq=first_seq + len(records) - 1,
        read=len(records),
        offset=100 * (first_seq + len(records) - 1),
        prefix_digest=f"digest {number}",
        arrivals=arrivals(batch_id, number, valid, ingest_time),
        rejects=RejectFile(key=key, size=7, digest="d", records=rejected) if rejected else None,
        reasons=reasons or ({"bad": rejected} if rejected else {}),
        lags={10: len(valid)},
        sources={"s": len(valid)},
        times={"event_time epoch": len(valid)},
    )


def counts(read: int, accepted: int, exact: int = 0, conflict: int = 0) -> Counts:
    return Counts(read, accepted, exact, conflict, read - accepted - exact - conflict)
