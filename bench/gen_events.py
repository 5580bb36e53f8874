"""Make a file of test events (JSONL), the same bytes for the same arguments.

About 3 % of the lines deliver an earlier event again: a third of them byte for byte, a third with reordered keys, a
third with other white space too. 20,000 entities (Zipf-like), 5 sources, 8 event types, 30 days, arrival roughly in
the order of time, 1 % late by up to five days, 10 % with an idempotency key, three spellings of time, some 250 bytes
a line.
"""

import argparse
import bisect
import hashlib
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

Event = dict[str, Any]

ENTITIES = 20_000
REMEMBERED = 50_000
START = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = 30 * 86_400
# Arrivals are jittered by up to 30 seconds; this keeps all of them inside the one day.
DAY = 86_400 - 31
EAST = timezone(timedelta(hours=3))

# weights in percent
SOURCES = {"web": 45, "mobile": 30, "pos": 12, "partner": 8, "iot": 5}
TYPES = {
    "purchase": 15,
    "page_view": 40,
    "login": 12,
    "refund": 2,
    "signup": 1,
    "cart_add": 18,
    "device_reading": 10,
    "support_ticket": 2,
}
SOURCE_WEIGHTS = list(itertools.accumulate(SOURCES.values()))
TYPE_WEIGHTS = list(itertools.accumulate(TYPES.values()))
CURRENCIES = ["USD", "EUR", "TRY", "GBP"]
REGIONS = ["eu-west-1", "us-east-1", "ap-south-1"]
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau".split()
# A number that no float holds travels as a marked string until its line is written.
EXACT = re.compile(r'"@exact:([0-9.]+)"')


@dataclass(frozen=True)
class Summary:
    """What a generated file holds, and one entity with about 200 events in it."""

    lines: int
    distinct: int
    size: int
    entity: str
    entity_events: int


def exact_numbers(seed: int) -> Iterator[str]:
    """Distinct 17-digit numbers that a double does not print back as written."""
    rng = random.Random(seed)
    for step in itertools.count():
        whole = 10**13 + step * 7_000_003 + rng.randrange(7_000_003)
        text = f"{whole}.{rng.randrange(1000):03d}"
        if repr(float(text)) != text and not text.endswith("0"):
            yield text


class Generator:
    def __init__(
        self, lines: int, seed: int = 7, *, one_day: bool = False, exact: bool = False, keys: bool = True
    ) -> None:
        self.lines = lines
        self.span = DAY if one_day else MONTH
        self.rng = random.Random(seed)
        self.exact = exact_numbers(seed) if exact else None
        self.keys = keys
        self.weights = list(itertools.accumulate((1.0 / (i + 1) ** 0.9 for i in range(ENTITIES)), initial=0.0))[1:]
        self.entities = list(range(ENTITIES))
        self.rng.shuffle(self.entities)
        self.recent: list[Event] = []
        self.per_entity: Counter[str] = Counter()

    def __iter__(self) -> Iterator[tuple[Event, str]]:
        """Each event with the line that delivers it."""
        for i in range(self.lines):
            if self.recent and self.rng.random() < 0.03:
                yield self._again()
            else:
                event = self._new(i)
                yield event, _line(event)

    def _again(self) -> tuple[Event, str]:
        event = self.recent[self.rng.randrange(len(self.recent))]
        how = self.rng.randrange(3)
        if how == 0:
            return event, _line(event)
        return event, _line(self._shuffled(event), (",", ":") if how == 1 else (", ", ": "))

    def _new(self, i: int) -> Event:
        rng = self.rng
        time = START + timedelta(seconds=self.span * i / self.lines + rng.random() * 30)
        if rng.random() < 0.01:
            time -= timedelta(seconds=rng.uniform(3600, 5 * 86_400))
        if time < START:
            time = START + timedelta(seconds=rng.random() * 100)
        event_type = rng.choices(list(TYPES), cum_weights=TYPE_WEIGHTS)[0]
        rank = bisect.bisect_left(self.weights, rng.random() * self.weights[-1])
        entity = f"user_{self.entities[min(rank, ENTITIES - 1)]:06d}"
        event: Event = {
            "source": rng.choices(list(SOURCES), cum_weights=SOURCE_WEIGHTS)[0],
            "event_type": event_type,
            "entity_id": entity,
            "event_time": self._spelled(time),
            "payload": self._payload(event_type),
        }
        if rng.random() < 0.1:
            key = "k-" + self._hex(24)
            if self.keys:
                event["idempotency_key"] = key
        if len(self.recent) < REMEMBERED:
            self.recent.append(event)
        else:
            self.recent[rng.randrange(REMEMBERED)] = event
        self.per_entity[entity] += 1
        return event

    def _hex(self, digits: int) -> str:
        return f"{self.rng.getrandbits(4 * digits):0{digits}x}"

    def _spelled(self, time: datetime) -> str:
        kind = self.rng.random()
        if kind < 0.85:
            return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"
        if kind < 0.95:
            return f"{time:%Y-%m-%dT%H:%M:%SZ}"
        return time.astimezone(EAST).isoformat(timespec="microseconds")

    def _payload(self, event_type: str) -> dict[str, Any]:
        rng = self.rng
        payload: dict[str, Any]
        if event_type in ("purchase", "refund"):
            payload = {
                "amount": rng.randrange(100, 500_000) / 100,
                "currency": rng.choice(CURRENCIES),
                "order_id": "ord_" + self._hex(12),
                "items": rng.randrange(1, 9),
                "sku": [self._hex(6) for _ in range(rng.randrange(1, 4))],
            }
        elif event_type == "page_view":
            payload = {
                "url": "/" + "/".join(rng.choices(WORDS, k=3)),
                "duration_ms": rng.randrange(20, 60_000),
                "session": self._hex(16),
                "ref": rng.choice(WORDS),
            }
        elif event_type == "device_reading":
            payload = {
                "temp": round(rng.gauss(20, 5), 2),
                "hum": round(rng.random(), 4),
                "battery": rng.randrange(0, 101),
                "fw": f"1.{rng.randrange(9)}.{rng.randrange(30)}",
                "pos": {"lat": round(rng.uniform(-90, 90), 5), "lon": round(rng.uniform(-180, 180), 5)},
            }
        elif event_type == "cart_add":
            payload = {
                "sku": self._hex(6),
                "quantity": rng.randrange(1, 6),
                "price": rng.randrange(100, 50_000) / 100,
                "session": self._hex(16),
            }
        else:
            payload = {
                "session": self._hex(16),
                "ip": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
                "note": " ".join(rng.choices(WORDS, k=rng.randrange(2, 6))),
                "ok": rng.random() < 0.9,
            }
        payload["value"] = rng.randrange(0, 100_000) / 100
        payload["region"] = rng.choice(REGIONS)
        if self.exact is not None:
            payload["exact"] = "@exact:" + next(self.exact)
        return payload

    def _shuffled(self, value: dict[str, Any]) -> dict[str, Any]:
        keys = [key for key in value if key != "exact"]  # so that the field leaves the order of the others alone
        self.rng.shuffle(keys)
        keys += ["exact"] if "exact" in value else []
        return {key: self._shuffled(value[key]) if isinstance(value[key], dict) else value[key] for key in keys}


def _line(event: Event, separators: tuple[str, str] = (",", ":")) -> str:
    line = json.dumps(event, separators=separators)
    return EXACT.sub(r"\1", line) if "@exact:" in line else line


def _with_id(event: Event, line: str) -> str:
    identity = [event[key] for key in ("source", "event_type", "entity_id", "event_time", "payload")]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return f'{{"id":"{digest[:32]}",{line[1:]}'


def generate(
    lines: int,
    out: Path,
    *,
    ids: Path | None = None,
    seed: int = 7,
    one_day: bool = False,
    exact: bool = False,
    keys: bool = True,
) -> Summary:
    """Write `lines` events to `out`, and to `ids` the same lines with an `id` in front."""
    generator = Generator(lines, seed, one_day=one_day, exact=exact, keys=keys)
    size = 0
    with out.open("w") as plain, (ids or Path("/dev/null")).open("w") as identified:
        for event, line in generator:
            plain.write(line + "\n")
            size += len(line) + 1
            if ids is not None:
                identified.write(_with_id(event, line) + "\n")
    counts = generator.per_entity
    entity = min(counts, key=lambda name: (abs(counts[name] - 200), name))
    return Summary(lines, counts.total(), size, entity, counts[entity])


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a file of test events, the same for the same arguments.")
    parser.add_argument("lines", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=7, help="another seed makes other events")
    parser.add_argument("--ids", type=Path, help="write the same lines with an id in front to this file too")
    parser.add_argument("--one-day", action="store_true", help="all events within one UTC day")
    parser.add_argument("--exact", action="store_true", help="one more payload field, a number that no double holds")
    parser.add_argument("--no-keys", action="store_true", help="no event has an idempotency key")
    args = vars(parser.parse_args())
    print(json.dumps(asdict(generate(args.pop("lines"), args.pop("out"), keys=not args.pop("no_keys"), **args))))


if __name__ == "__main__":
    main()
