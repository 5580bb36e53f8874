"""The engine against a few lines of Python, on arbitrary events, files, windows and duplicates."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pik.model.aggregate import Computed
from pik.model.event import read_event
from pik.model.instant import HOUR, full_instant, parse_instant
from pik.model.window import Window
from pik.ports.engine import Inputs
from tests.support.calendar_model import start_of
from tests.support.raw_files import BATCH, compute, event, frame, metric, raw_lines

PLACES: list[tuple[str, str | None, int]] = [
    ("1h", None, parse_instant("1970-01-01T00:00:00Z")),
    ("1h", "Europe/Berlin", parse_instant("2026-10-25T01:00:00Z")),
    ("1h", "Australia/Lord_Howe", parse_instant("2026-10-03T15:30:00Z")),
    ("1d", "Africa/Cairo", parse_instant("2026-04-23T22:00:00Z")),
    ("1d", "America/Havana", parse_instant("2026-11-01T05:00:00Z")),
    ("1w", "Asia/Kolkata", parse_instant("2026-11-01T18:30:00Z")),
    ("1mo", "Pacific/Auckland", parse_instant("2026-03-31T11:00:00Z")),
]
"""The bucket and the timezone of a definition, and a time near bounds of such buckets."""

Fields = dict[str, Any]
Rows = list[Fields]


def _v(one: Fields) -> Decimal | None:
    text = one["payload"].get("v")
    return None if text is None else Decimal(text)


def _above(one: Fields) -> bool | None:
    value = _v(one)
    return None if value is None else value > 0


def _numbers(rows: Rows) -> list[Decimal]:
    return [value for value in map(_v, rows) if value is not None]


# SQL is three-valued: None is neither true nor false, and a condition holds where it is True.
WHERES: dict[str, Callable[[Fields], bool | None]] = {
    "true": lambda one: True,
    "event_type = 'a'": lambda one: one["event_type"] == "a",
    "payload->>'$.v' IS NOT NULL": lambda one: _v(one) is not None,
    "(payload->>'$.v')::DECIMAL(38, 6) > 0": _above,
    "NOT ((payload->>'$.v')::DECIMAL(38, 6) > 0)": lambda one: None if _v(one) is None else not _above(one),
    "event_type = 'a' OR (payload->>'$.v')::DECIMAL(38, 6) > 0": lambda one: one["event_type"] == "a" or _above(one),
}

VALUES: dict[str, Callable[[Rows], Decimal | None]] = {
    "count(*)": lambda rows: Decimal(len(rows)),
    "count(payload->>'$.v')": lambda rows: Decimal(len(_numbers(rows))),
    "count(DISTINCT event_type)": lambda rows: Decimal(len({one["event_type"] for one in rows})),
    "sum((payload->>'$.v')::DECIMAL(38, 6))": lambda rows: sum(_numbers(rows), Decimal()) if _numbers(rows) else None,
    "max((payload->>'$.v')::DECIMAL(38, 6)) - count(*)": lambda rows: (
        max(_numbers(rows)) - len(rows) if _numbers(rows) else None
    ),
    "count(*) FILTER (WHERE source = 's') * 2 + 1": lambda rows: Decimal(
        2 * sum(one["source"] == "s" for one in rows) + 1
    ),
}

numbers = st.decimals(-(10**14), 10**14, places=6, allow_nan=False).map(lambda number: format(number, "f"))
payloads: st.SearchStrategy[dict[str, str | None]] = st.one_of(
    st.just({}), st.just({"v": None}), numbers.map(lambda number: {"v": number})
)


@dataclass
class Case:
    place: tuple[str, str | None, int]
    texts: list[bytes]
    duplicates: set[int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    place, texts = draw(st.sampled_from(PLACES)), []
    for payload in draw(st.lists(payloads, max_size=12)):
        time = place[2] + draw(st.integers(-3 * HOUR, 3 * HOUR))
        fields = {
            "source": draw(st.sampled_from(["s", "q"])),
            "event_type": draw(st.sampled_from(["a", "b"])),
            "entity_id": draw(st.sampled_from(["x", "y", "é'"])),
            "event_time": full_instant(time),
        }
        text = json.dumps(event(payload, **fields))
        if (number := payload.get("v")) is not None and draw(st.booleans()):
            text = text.replace(f'"{number}"', number)  # a number rather than a string
        texts.append(text.encode())
    return Case(place, texts, draw(st.sets(st.integers(1, len(texts)))) if texts else set())


def expected(case: Case, name: str, where: str, value: str, window: Window, entities: list[str]) -> list[Computed]:
    groups: dict[tuple[int, str], Rows] = {}
    for seq, text in enumerate(case.texts, 1):
        one = json.loads(text, parse_float=str, parse_int=str)
        one["id"], time, entity_id = read_event(text).event_id, parse_instant(one["event_time"]), one["entity_id"]
        counts = seq not in case.duplicates and time in window and (not entities or entity_id in entities)
        if counts and WHERES[where](one) is True:
            unit, zone, _ = case.place
            start = time // HOUR * HOUR if zone is None else start_of(unit, zone, time)
            groups.setdefault((start, entity_id), []).append(one)
    found = []
    for (bucket, entity_id), rows in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1].encode())):
        digest = reduce(xor, (int.from_bytes(one["id"]) for one in rows))
        hashed = f"{digest:032x}"  # an event without a key is its content
        found.append(Computed(name, bucket, entity_id, VALUES[value](rows), len(rows), hashed, hashed))
    return found


@settings(max_examples=60, deadline=None)
@given(
    cases(),
    st.lists(st.tuples(st.sampled_from(list(WHERES)), st.sampled_from(list(VALUES))), min_size=1, max_size=3),
    st.tuples(st.integers(-4, 3), st.integers(1, 4)),
    st.lists(st.sampled_from(["x", "é'", "z"]), max_size=2),
    st.integers(1, 5),
)
def test_promise_6_values_are_those_of_all_counted_events(
    case: Case, chosen: list[tuple[str, str]], hours: tuple[int, int], entities: list[str], per_frame: int
) -> None:
    bucket, timezone, base = case.place
    window = Window(base + hours[0] * HOUR, base + (hours[0] + hours[1]) * HOUR)
    with tempfile.TemporaryDirectory() as folder:
        lines = raw_lines(case.texts)
        files = []
        for at in range(0, len(lines), per_frame):
            files.append(Path(folder, f"{at}.zst"))
            files[-1].write_bytes(frame(lines[at : at + per_frame]))
        skip = Path(folder, "skip.csv")
        skip.write_text("".join(f"{BATCH},{seq}\n" for seq in case.duplicates))
        inputs = Inputs(files, len(lines), skip if case.duplicates else None)
        metrics = [metric(value, where, bucket, f"m{n}", timezone) for n, (where, value) in enumerate(chosen)]
        found = compute(inputs, *metrics, window=window, entities=entities)
    assert found == [
        one
        for n, (where, value) in enumerate(chosen)
        for one in expected(case, f"m{n}", where, value, window, entities)
    ]
