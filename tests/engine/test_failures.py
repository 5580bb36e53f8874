"""A value that fails on the data keeps no other value from being computed, and says what is to blame."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.engine import DuckEngine, failure_sql
from pik.model.aggregate import BLAMED, NO_INPUTS, Computed, bucket_digests, digest_line
from pik.model.event import read_event
from pik.model.instant import DAY, parse_instant
from pik.model.window import ALL_TIME
from pik.ports.engine import Inputs
from tests.support.raw_files import compute, event, frame, metric, raw, raw_lines

DAY_ONE = parse_instant("2026-01-01T00:00:00Z")
NUMBER = "(payload->>'$.v')::DECIMAL(9, 2)"
GUARDED = "(payload->>'$.n')::INTEGER > 0"


def ids(*events: dict[str, object]) -> list[str]:
    """The ids of the events, in order of the ids."""
    return sorted(line[13:45].decode() for line in raw_lines(events))


def test_a_text_that_is_not_a_number_fails_its_own_value_only(tmp_path: Path) -> None:
    bad = event({"v": "twelve"}, entity_id="b")
    good = [event({"v": "12.50"}, entity_id=name) for name in ("a", "b", "c")]
    next_day = event({"v": "7"}, entity_id="b", event_time="2026-01-02T00:00:00Z")
    found = compute(
        raw(tmp_path / "r.zst", [bad, *good, next_day]), metric(f"sum({NUMBER})", name="revenue"), metric(name="events")
    )
    assert [(one.metric, one.bucket, one.entity_id, one.value, one.inputs) for one in found] == [
        ("events", DAY_ONE, "a", 1, 1),
        ("events", DAY_ONE, "b", 2, 2),
        ("events", DAY_ONE, "c", 1, 1),
        ("events", DAY_ONE + DAY, "b", 1, 1),
        ("revenue", DAY_ONE, "a", Decimal("12.5"), 1),
        ("revenue", DAY_ONE, "b", None, 2),
        ("revenue", DAY_ONE, "c", Decimal("12.5"), 1),
        ("revenue", DAY_ONE + DAY, "b", 7, 1),
    ]
    failures = [one.failure for one in found]
    assert failures[:5] + failures[6:] == [None] * 7
    assert failures[5] is not None
    assert (failures[5].events, list(failures[5].event_ids)) == (1, ids(bad))
    assert "twelve" in failures[5].reason
    assert "\n" not in failures[5].reason
    assert found[5].counted == found[1].counted


def test_a_failing_condition_blames_its_event_which_is_not_an_input(tmp_path: Path) -> None:
    events = [event({"n": "many"}, entity_id="a"), event({"n": 1}, entity_id="b"), event({"n": "x"}, entity_id="b")]
    found = compute(raw(tmp_path / "r.zst", events), metric(where=GUARDED))
    assert [(one.entity_id, one.value, one.inputs) for one in found] == [("a", None, 0), ("b", None, 1)]
    assert [list(one.failure.event_ids) for one in found if one.failure] == [ids(events[0]), ids(events[2])]
    assert found[0].counted == (0, NO_INPUTS, NO_INPUTS)
    assert found[0].failure is not None
    assert "many" in found[0].failure.reason


def test_a_failing_filter_and_a_failing_argument_blame_their_events(tmp_path: Path) -> None:
    events = [event({"n": "x", "v": 1}), event({"n": 1, "v": "y"}), event({"n": 0, "v": "z"}), event({"n": 2, "v": 2})]
    found = compute(raw(tmp_path / "r.zst", events), metric(f"sum({NUMBER}) FILTER (WHERE {GUARDED})"))
    assert found[0].failure is not None
    assert list(found[0].failure.event_ids) == ids(*events[:2]), "what the FILTER leaves out is not evaluated"


def test_an_expression_over_aggregates_blames_no_event(tmp_path: Path) -> None:
    events = [event({"v": v, "n": n}, entity_id=f"e{v}") for n, v in enumerate((0, 3, 3, 10**9))]
    number = "(payload->>'$.v')::BIGINT"
    ratio = metric(f"(count(*) // sum({number}))::INTEGER", name="ratio")
    narrow = metric(f"sum({number})::DECIMAL(9, 0)", name="narrow")
    found = compute(raw(tmp_path / "r.zst", events), narrow, ratio)
    assert [(one.metric, one.entity_id, one.value, one.failure is not None) for one in found] == [
        ("narrow", "e0", 0, False),
        ("narrow", "e1000000000", None, True),
        ("narrow", "e3", 6, False),
        ("ratio", "e0", None, True),
        ("ratio", "e1000000000", 0, False),
        ("ratio", "e3", 0, False),
    ]
    for failure in (found[1].failure, found[3].failure):
        assert failure is not None
        assert (failure.events, failure.event_ids) == (0, ())
        assert ("1000000000" if failure is found[1].failure else "zero") in failure.reason


def test_a_sum_of_too_many_digits_fails_and_one_that_only_passes_through_them_does_not(tmp_path: Path) -> None:
    nines = "9" * 36 + ".99"
    texts: dict[str, list[str | None]] = {
        "fits": [nines, nines, "-" + nines, "-" + nines, "0.25"],
        "over": [nines, "0.01"],
        "null": [None],
    }
    events = [event({"v": text, "n": n}, entity_id=name) for name, some in texts.items() for n, text in enumerate(some)]
    wide = [
        metric(f"sum((payload->>'$.v')::DECIMAL(38, {scale}))", name=f"s{scale}", where="entity_id = 'fits'")
        for scale in (0, 2)
    ]
    total = metric("sum((payload->>'$.v')::DECIMAL(38, 2))", name="total")
    distinct = metric("sum(DISTINCT (payload->>'$.v')::DECIMAL(38, 2))", name="unique")
    whole = metric("sum((payload->>'$.n')::HUGEINT * 170141183460469231731687303715884105727)", name="whole")
    found = {
        (one.metric, one.entity_id): one
        for one in compute(raw(tmp_path / "r.zst", events), *wide, total, distinct, whole)
    }
    assert found["s0", "fits"].value == 0
    assert found["s2", "fits"].value == Decimal("0.25")
    assert found["total", "fits"].value == found["unique", "fits"].value == Decimal("0.25")
    assert found["total", "null"].value is None
    assert found["total", "null"].failure is None
    for key in (("total", "over"), ("unique", "over")):
        failure = found[key].failure
        assert failure is not None
        assert (failure.reason, failure.events) == (failure_sql.REASONS[failure_sql.FailureKind.SUM], 0)
    assert found["whole", "over"].value == 2**127 - 1
    assert found["whole", "fits"].failure is not None


def test_a_few_of_many_events_are_named_and_all_are_counted(tmp_path: Path) -> None:
    bad = [event({"v": f"x{n}"}) for n in range(40)]
    good = [event({"v": n}, event_type="other") for n in range(3000)]
    found = compute(raw(tmp_path / "r.zst", [*good, *bad]), metric(f"sum({NUMBER})"))
    assert found[0].failure is not None
    assert found[0].failure.events == 40
    assert list(found[0].failure.event_ids) == ids(*bad)[:BLAMED]
    assert found[0].inputs == 3040


def test_what_the_engine_does_not_explain_has_a_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_sql, "EXPLAINED", 3)
    events = [event({"v": f"x{n}"}, entity_id=f"e{n}") for n in range(5)]
    found = compute(raw(tmp_path / "r.zst", events), metric(f"sum({NUMBER})"))
    reasons = [one.failure.reason for one in found if one.failure]
    assert all(f"x{n}" in reasons[n] for n in range(3))
    assert reasons[3:] == [failure_sql.REASONS[failure_sql.FailureKind.EVENTS]] * 2


def test_a_long_text_is_quoted_in_part(tmp_path: Path) -> None:
    found = compute(raw(tmp_path / "r.zst", [event({"v": "x" * 100_000})]), metric(f"sum({NUMBER})"))
    assert found[0].failure is not None
    assert len(found[0].failure.reason) < 400


def test_the_digest_of_a_bucket_with_a_failure_equals_none_of_values(tmp_path: Path) -> None:
    events = [event({"v": v}, entity_id=name) for name, v in (("a", "1"), ("b", "x"))]
    events.append(event({"v": 2}, entity_id="a", event_time="2026-01-02T00:00:00Z"))
    inputs = raw(tmp_path / "r.zst", events)
    metrics = [metric(f"sum({NUMBER})", name="revenue"), metric(name="events")]
    with DuckEngine().computation(inputs, metrics, ALL_TIME) as computation:
        digests = list(computation.digests())
        found = list(computation.rows(skipping=[("events", DAY_ONE), ("revenue", DAY_ONE + DAY)]))
        values = [one for one in computation.rows() if (one.metric, one.bucket) == ("revenue", DAY_ONE)]
    assert [(one.metric, one.bucket, one.aggregates) for one in digests] == [
        ("events", DAY_ONE, 2),
        ("events", DAY_ONE + DAY, 1),
        ("revenue", DAY_ONE, 2),
        ("revenue", DAY_ONE + DAY, 1),
    ]
    assert [(one.metric, one.bucket, one.entity_id, one.failure is None) for one in found] == [
        ("events", DAY_ONE + DAY, "a", True),
        ("revenue", DAY_ONE, "a", True),
        ("revenue", DAY_ONE, "b", False),
    ]
    for count in (1, 2):
        lines = [
            digest_line(one.entity_id, "1", one.inputs, one.input_ids.upper(), one.input_contents.upper())
            for one in values[:count]
        ]
        assert digests[2] not in bucket_digests("revenue", [(DAY_ONE, line, 0, 0, 0) for line in lines])


texts = st.sampled_from(["1", "2.5", "-7.25", "x", "", "1e3", "99999999", None])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), texts, texts), min_size=1, max_size=15), st.integers(1, 4))
def test_what_does_not_fail_is_as_if_nothing_had_failed(
    rows: list[tuple[str, str | None, str | None]], per_frame: int
) -> None:
    """Against Python: a group fails where one of its events does, and every other value is the right one."""

    def number(text: str | None) -> Decimal | None:
        if text is None:
            return None
        value = Decimal(text or "?") if text not in ("x", "") else None
        if value is None or abs(value) >= 10**7:
            raise ValueError(text)
        return value

    events = [event({"v": v, "n": n, "at": at}, entity_id=name) for at, (name, v, n) in enumerate(rows)]
    value = metric(f"sum({NUMBER})", where="(payload->>'$.n')::DECIMAL(9, 2) > 0", name="m")
    lines = raw_lines(events)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for at in range(0, len(lines), per_frame):
            files.append(Path(folder, f"{at}.zst"))
            files[-1].write_bytes(frame(lines[at : at + per_frame]))
        found = compute(Inputs(files, len(lines)), value, metric(name="n"))
    expected: list[tuple[str, Decimal | None, int, tuple[str, ...]]] = []
    for name in sorted({name for name, _, _ in rows}):
        numbers: list[Decimal | None] = []
        blamed, inputs = [], 0
        for one in (one for one in events if one["entity_id"] == name):
            try:
                condition = number(one["payload"]["n"])
                if condition is not None and condition > 0:
                    inputs += 1
                    numbers.append(number(one["payload"]["v"]))
            except (ValueError, ArithmeticError):
                blamed += ids(one)
        values = [one for one in numbers if one is not None]
        if inputs or blamed:
            total = None if blamed or not values else sum(values, Decimal())
            expected.append((name, total, inputs, tuple(sorted(blamed)[:BLAMED])))
    rows_found = [one for one in found if one.metric == "m"]
    assert [
        (one.entity_id, one.value, one.inputs, one.failure.event_ids if one.failure else ()) for one in rows_found
    ] == expected
    counts = [(one.entity_id, one.value) for one in found if one.metric == "n"]
    assert counts == [(name, Decimal(sum(row[0] == name for row in rows))) for name in sorted({row[0] for row in rows})]


def test_ids_are_those_that_pik_prints(tmp_path: Path) -> None:
    text = b'{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{"v":"x"}}'
    found: list[Computed] = compute(raw(tmp_path / "r.zst", [text]), metric(f"sum({NUMBER})"))
    assert found[0].failure is not None
    assert found[0].failure.event_ids == (read_event(text).event_id.hex(),)
