"""Values made of parts: whatever the parts are, they are those of the whole, in every detail."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pik.engine import DuckEngine
from pik.engine.sandbox import AGGREGATES
from pik.errors import Damaged, EngineError
from pik.model.aggregate import BucketDigest, Computed
from pik.model.instant import HOUR, full_instant
from pik.model.metric import Definition, Per
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Inputs
from tests.support.raw_files import BATCH, event, frame, metric, raw, raw_lines

ENGINE = DuckEngine(2)

WIDE, NARROW, WHOLE = (f"(payload->>'$.v')::DECIMAL({digits})" for digits in ("38, 6", "18, 2", "38, 0"))
INTEGER = "(payload->>'$.n')::INTEGER"
HUGE = f"{INTEGER}::HUGEINT * 85070591730234615865843651857942052864"  # 2^126
NUMBERS = {WIDE: "{}", NARROW: "{}", WHOLE: "{}", INTEGER: "{}", HUGE: "{}"}
RANKED = {
    **NUMBERS,
    "payload->>'$.t'": "length({})",
    "payload->'$.j'": "length({}::VARCHAR)",
    "event_time": "epoch_us({})",
    "event_time::DATE": "date_diff('day', DATE '2026-01-01', {})",
    "event_time::TIMESTAMPTZ": "epoch_us({})",
    f"{INTEGER} > 0": "{}::INTEGER",
}
COUNTED = (*RANKED, "received_time - event_time", "list_value(payload->'$.j', payload->'$.t')", "[event_type, source]")

OPERANDS: dict[str, dict[str, str]] = {
    "count_star": {"": "{}"},
    "count": dict.fromkeys((*COUNTED, "NULL", "payload->>'$.t'"), "{}"),
    **{name: {f"{INTEGER} > 0": "{}"} for name in ("count_if", "countif")},
    "sum": {**NUMBERS, f"{INTEGER} > 0": "{}"},
    **dict.fromkeys(("min", "max"), RANKED),
    **{name: {INTEGER: "{}", HUGE: "{}"} for name in ("bit_and", "bit_or", "bit_xor")},
    **{name: {f"{INTEGER} > 0": "{}::INTEGER"} for name in ("bool_and", "bool_or")},
}
"""What each aggregate may be over, with how a number is made of the result."""

FILTERS = ("", " FILTER (WHERE event_type = 'a')", f" FILTER (WHERE {INTEGER} >= 0)")

AGGREGATED = [
    shown.format(f"{name.removesuffix('_star')}({'DISTINCT ' * distinct}{operand or '*'}){condition}")
    for name, operands in OPERANDS.items()
    for (operand, shown), distinct, condition in product(operands.items(), (False, True), FILTERS)
    if operand or not distinct
]

AROUND = [
    f"sum({WIDE}) - coalesce(sum(DISTINCT {WIDE}), 0)",
    f"(sum({WIDE}) / count({WIDE}))::DECIMAL(38, 6)",
    f"(sum({INTEGER}) / sum(DISTINCT {INTEGER}))::DECIMAL(18, 3)",
    f"greatest(max({INTEGER}), count(DISTINCT event_type)) * 2 + 1",
    f"CASE WHEN count(*) > 1 THEN sum({NARROW}) END",
    f"sum({INTEGER})::DECIMAL(3, 0)",
    "count(DISTINCT batch_id || seq::VARCHAR)",
    "1000 // count(*)",
]

CONDITIONS = [None, "event_type = 'a'", f"{INTEGER} > 0", "payload->>'$.t' IS NOT NULL"]

digits = st.integers(-(10**24), 10**24).map(lambda number: f"{number // 10**6}.{abs(number) % 10**6:06}")
wide = st.sampled_from(["9" * 36 + ".99", "-" + "9" * 36 + ".99", "99999999999999999999999999999999.999999"])
payloads = st.fixed_dictionaries(
    {},
    optional={
        "v": st.one_of(digits, digits, st.sampled_from(["0.10", "0.1", "-5", "x", None]), wide),
        "n": st.one_of(st.integers(-4, 4), st.integers(-4, 4), st.sampled_from(["many", None, "", 2**31 - 1, "7"])),
        "t": st.sampled_from(["", "NULL", "a, b", "it's", "[x]", "é\n", None]),
        "j": st.sampled_from([None, 1, "1", [1, "x, y"], {"a": None}, [], True, "NULL"]),
    },
)


@dataclass
class Case:
    lines: list[bytes]
    parts: list[int]
    duplicates: set[int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    events = []
    for payload in draw(st.lists(payloads, max_size=14)):
        hours = draw(st.integers(-30, 30))  # around 1970
        fields = {
            "source": draw(st.sampled_from("sq")),
            "event_type": draw(st.sampled_from("ab")),
            "entity_id": draw(st.sampled_from(["x", "y", "é'"])),
            "event_time": full_instant(hours * HOUR + draw(st.integers(0, 2))),
            "received_time": full_instant(40 * HOUR + draw(st.integers(0, 1)) * 720 * HOUR),
        }
        events.append(event(payload, **fields))
    count = len(events)
    parts = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    return Case(raw_lines(events), parts, draw(st.sets(st.integers(1, count), max_size=2)) if count else set())


@st.composite
def definitions(draw: st.DrawFn) -> list[Definition]:
    bucket, per = draw(st.sampled_from(["1h", "1d", "7d"])), draw(st.sampled_from([Per.ENTITY, Per.ENTITY, Per.ALL]))
    values = draw(st.lists(st.sampled_from(AGGREGATED + AROUND * 5), min_size=1, max_size=4))
    made = [metric(value, draw(st.sampled_from(CONDITIONS)), bucket, f"m{n}") for n, value in enumerate(values)]
    return [structs.replace(one, per=per) for one in made]


Found = tuple[list[BucketDigest], list[Computed]]


def of_parts(
    parts: Sequence[Inputs], metrics: Sequence[Definition], window: Window, folder: Path, *entities: str
) -> Found:
    files = []
    for number, part in enumerate(parts):
        files.append(folder / f"{'-'.join(map(str, map(hash, entities)))}{number}.parquet")
        ENGINE.partial(part, metrics, window, files[-1], entities)
    with ENGINE.merge(files[::-1], metrics) as merged:
        return list(merged.digests()), list(merged.rows())


def of_whole(inputs: Inputs, metrics: Sequence[Definition], window: Window = ALL_TIME) -> Found:
    with ENGINE.computation(inputs, metrics, window) as computation:
        return list(computation.digests()), list(computation.rows())


def check_parts(case: Case, metrics: Sequence[Definition], window: Window, per_frame: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        skip = folder / "skip.csv"
        skip.write_text("".join(f"{BATCH},{seq}\n" for seq in case.duplicates))
        parts = []
        for part in range(4):
            lines = [line for line, own in zip(case.lines, case.parts, strict=True) if own == part]
            files = []
            for at in range(0, len(lines), per_frame):
                files.append(folder / f"{part}-{at}.zst")
                files[-1].write_bytes(frame(lines[at : at + per_frame]))
            parts.append(Inputs(files, len(lines), skip))
        whole = Inputs([file for part in parts for file in part.files], len(case.lines), skip)
        expected = of_whole(whole, metrics, window)
        assert of_parts(parts, metrics, window, folder) == expected
        if metrics[0].per == Per.ENTITY:
            apart = [row for some in (["x"], ["y", "é'"]) for row in of_parts(parts, metrics, window, folder, *some)[1]]
            assert sorted(apart, key=lambda row: (row.metric, row.bucket, row.entity_id)) == expected[1]


windows = st.sampled_from([ALL_TIME, ALL_TIME, Window(-7 * 24 * HOUR, 0)])


@settings(max_examples=25, deadline=None)
@given(cases(), definitions(), windows, st.integers(1, 5))
def test_promise_6_parts_make_the_values_of_the_whole(
    case: Case, metrics: list[Definition], window: Window, per_frame: int
) -> None:
    check_parts(case, metrics, window, per_frame)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(cases(), definitions(), windows, st.integers(1, 5))
def test_promise_6_parts_make_the_values_of_the_whole_deep(
    case: Case, metrics: list[Definition], window: Window, per_frame: int
) -> None:
    check_parts(case, metrics, window, per_frame)


def test_every_aggregate_is_among_the_definitions() -> None:
    assert set(OPERANDS) == AGGREGATES


@pytest.mark.slow
@pytest.mark.parametrize("at", range(0, len(AGGREGATED), 30))
def test_each_definition_is_made_of_parts(at: int) -> None:
    """All that the aggregates may be over, with and without DISTINCT and FILTER."""
    events = [
        event(
            {"v": f"{n - 7}{n:020}.{n:06}", "n": n % 5 - 2, "t": texts[n % 4], "j": [n % 3, None, "x, y"][: n % 4]},
            event_type="ab"[n % 2],
            entity_id="xy"[n // 15],
            event_time=full_instant((n - 15) * HOUR),
            received_time=full_instant(40 * HOUR + n % 2 * 720 * HOUR),
        )
        for texts in [["", "NULL", "it's", None]]
        for n in range(30)
    ]
    parts = [n % 4 for n in range(30)]
    metrics = [metric(value, name=f"m{n:03}") for n, value in enumerate(AGGREGATED[at : at + 30])]
    check_parts(Case(raw_lines(events), parts, {3, 17}), metrics, ALL_TIME, 3)


def test_a_part_with_fewer_lines_than_raw_should_have_is_damaged(tmp_path: Path) -> None:
    part = raw(tmp_path / "r.zst", [event(), event({"n": 1})])
    with pytest.raises(Damaged):
        ENGINE.partial(Inputs(part.files, 3), [metric()], ALL_TIME, tmp_path / "p")
    with pytest.raises(Damaged):
        ENGINE.partial(Inputs([], 1), [metric()], ALL_TIME, tmp_path / "p")


def test_files_of_other_metrics_are_not_merged(tmp_path: Path) -> None:
    ENGINE.partial(raw(tmp_path / "r.zst", [event()]), [metric()], ALL_TIME, tmp_path / "p")
    with pytest.raises(EngineError), ENGINE.merge([tmp_path / "p"], [metric("max(1)")]):
        pass
