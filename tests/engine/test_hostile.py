"""Definitions that would take minutes, gigabytes or for ever are refused when applied; what is accepted is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.engine import DuckEngine, duck, sandbox
from pik.engine.sandbox import LONGEST
from pik.errors import EngineError, Invalid
from pik.ports.engine import Inputs
from tests.support.raw_files import compute, event, metric, raw

TEXT = "payload->>'$.t'"
LIST = "(payload->'$.l')::VARCHAR[]"
HOSTILE = [
    # widths and repetitions
    "max(length(printf('%1000000000d', seq)))",
    "max(length(format('{:1000000000}', seq)))",
    "max(length(lpad(source, 1000000000, 'x')))",
    "max(length(rpad(source, 1000000000, 'x')))",
    "max(length(repeat(source, 1000000000)))",
    "max(length(repeat(repeat(repeat('x', 1000), 1000), 1000)))",
    "max(len(repeat([1], 1000000000)))",
    "max(length(bar(1, 0, 1, 1000000000)))",
    "max(length(to_base(9223372036854775807, 2, 1000000000)))",
    "max(length(space(1000000000)))",
    # ranges
    "sum(len(range(1000000000)))",
    "sum(len(range(seq * 1000000)))",
    "sum(len(generate_series(1, 10000000000)))",
    "sum(list_sum(range(1000000000)))",
    "sum(len(generate_series(TIMESTAMP '1900-01-01', TIMESTAMP '2200-01-01', INTERVAL 1 MICROSECOND)))",
    "sum(unnest(range(1000000000)))",
    "sum(len([x for x in range(1000000000)]))",
    # lists of lists
    f"sum(len(list_transform({LIST}, lambda x: list_transform({LIST}, lambda y: x || y))))",
    f"sum(len(list_transform(list_transform({LIST}, lambda x: [x, x]), lambda x: [x, x])))",
    f"sum(len(list_transform({LIST}, lambda x: concat(x, x, x, x))))",
    f"sum(len(list_transform({LIST}, lambda x: x || x)))",
    f"sum(len(list_transform({LIST}, lambda x: concat_ws(x, x, x))))",
    f"max(length(list_reduce({LIST}, lambda a, b: a || b || a)))",
    f"sum(len(list_concat({LIST}, {LIST})))",
    f"sum(len(flatten([{LIST}, {LIST}])))",
    f"sum(len(list_sort({LIST})))",
    f"sum(len(list_resize({LIST}, 1000000000)))",
    f"sum(len(list_pack({LIST})))",
    f"sum(list_aggregate({LIST}, 'count'))",
    f"sum(len(list_distinct({LIST})))",
    f"sum(len(list_intersect({LIST}, {LIST})))",
    f"sum(list_cosine_distance({LIST}::BIGINT[], {LIST}::BIGINT[])::BIGINT)",
    f"sum(len(list_grade_up({LIST})))",
    f"sum(len(list_zip({LIST}, {LIST})))",
    f"sum(len(array_to_string({LIST}, repeat('x', 1000000))))",
    "sum(len([1]::INTEGER[100000]))",
    "sum(len(map([1], [2])))",
    "count(struct_pack(a := payload, b := payload))",
    # texts that grow
    f"max(length(replace({TEXT}, 'a', '{'a' * 100}')))",
    f"max(length(replace({TEXT}, '', {TEXT})))",
    f"max(length(replace(source, source, {TEXT})))",
    f"max(length(regexp_replace({TEXT}, '', '{'a' * 100}', 'g')))",
    f"max(length(regexp_replace({TEXT}, '(.*)', '\\1\\1\\1', 'g')))",
    f"max(length(translate({TEXT}, 'a', 'b')))",
    f"max(length(hex({TEXT})))",
    f"max(length(to_base64({TEXT}::BLOB)))",
    f"max(length(url_encode({TEXT})))",
    f"max(length(string_split({TEXT}, '')::VARCHAR))",
    f"sum(len(regexp_extract_all({TEXT}, '')))",
    f"sum(len(regexp_split_to_array({TEXT}, '')))",
    "max(length(json_pretty(payload)))",
    "max(length(json_group_structure(payload)))",
    'max(length(json_transform(payload, \'{"a": "INTEGER[1000]"}\')::VARCHAR))',
    # patterns
    f"count(*) FILTER (WHERE regexp_matches({TEXT}, {TEXT}))",
    f"count(*) FILTER (WHERE {TEXT} SIMILAR TO source)",
    f"count(*) FILTER (WHERE regexp_matches({TEXT}, '{'(a{1000}){1000}' * 3}'))",
    f"count(*) FILTER (WHERE {TEXT} LIKE source)",
    f"count(*) FILTER (WHERE {TEXT} LIKE '%a%a%a%a%a%a%a%_b')",
    f"count(*) FILTER (WHERE {TEXT} NOT LIKE '_%_%_%_%_%_%_%_%b')",
    f"count(*) FILTER (WHERE {TEXT} ILIKE '%a%a%a%a%a%a%a%b')",
    f"count(*) FILTER (WHERE {TEXT} NOT ILIKE '%a%b%c')",
    f"count(*) FILTER (WHERE {TEXT} LIKE '%a%' ESCAPE 'b')",
    f"count(*) FILTER (WHERE {TEXT} GLOB '*a*a*a*a*a*a*b')",
    f"count(*) FILTER (WHERE '{'a' * 5000}' LIKE '%{'a%' * 20}_b')",
    # quadratic and worse
    f"max(levenshtein({TEXT}, {TEXT}))",
    f"max(damerau_levenshtein({TEXT}, {TEXT}))",
    f"max(jaro_similarity({TEXT}, {TEXT})::INTEGER)",
    "max(170!)",
    "max(factorial(1000000000))",
    "sum(2 ** 1000000000)",
    # size and depth
    "count(*)" + " + 1" * 2000,
    "(" * 2000 + "count(*)" + ")" * 2000,
    "count(*) FILTER (WHERE seq IN (" + ", ".join(map(str, range(100_000))) + "))",
    f"max(length('{'x' * 100_000}'))",
    "count(*) FILTER (WHERE " + " OR ".join(["seq = 1"] * 2000) + ")",
    "max(length(concat(" + ", ".join(["payload::VARCHAR"] * 100) + ")))",
    "max(length(" + " || ".join(["payload::VARCHAR"] * 100) + "))",
    "sum(len(json_extract(payload, '$.**.**.**.**')))",
    "sum(len(payload->'$..a..b'))",
    "(sum(seq) / 3)::DECIMAL(38, 38)",
    # rows and the outside
    "count(*) FILTER (WHERE sleep_ms(100000) IS NULL)",
    "sum((SELECT count(*) FROM range(1000000000)))",
    "sum((WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t))",
    "count(list(payload))",
    "length(string_agg(payload::VARCHAR))",
    "len(histogram(seq))",
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda text: text[:50])
def test_a_hostile_definition_is_refused(value: str) -> None:
    with pytest.raises(Invalid):
        DuckEngine().check(metric(value))


def test_an_array_of_fixed_size_is_refused_for_its_type_before_one_is_made() -> None:
    with pytest.raises(Invalid, match=r"is INTEGER\[100000\], a type that a metric cannot use"):
        DuckEngine().check(metric("sum(len([1]::INTEGER[100000]))"))


@pytest.mark.parametrize("where", [f"{TEXT} ILIKE '%a%a%b'", f"{TEXT} LIKE source", "length(repeat(source, 9999)) > 1"])
def test_a_hostile_condition_is_refused(where: str) -> None:
    with pytest.raises(Invalid):
        DuckEngine().check(metric(where=where))


def slow(tmp_path: Path) -> tuple[str, Inputs]:
    """A metric that takes a second or more, and raw to compute it from."""
    events = [event({"l": list(range(400)), "n": n}) for n in range(3_000)]
    value = f"sum(list_sum(list_transform({LIST}, lambda x: (x::BIGINT * 7) % 11)))"
    return value, raw(tmp_path / "r.zst", events, per_frame=500)


def test_a_computation_that_takes_too_long_is_stopped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value, inputs = slow(tmp_path)
    monkeypatch.setattr(sandbox, "SCAN_SECONDS", 0.01)
    monkeypatch.setattr(sandbox, "DELIVERY_SECONDS", 0)
    with pytest.raises(EngineError, match=r"computing m from 3,000 deliveries took more than 0 s and was stopped"):
        compute(inputs, metric(value), threads=1)


def test_a_check_that_takes_too_long_is_stopped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "SELECT sum(a.range * b.range) FROM range(100000) a, range(100000) b"
    monkeypatch.setattr(sandbox, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(duck, "check_definition", lambda db, _definition: db.execute(endless))
    with pytest.raises(EngineError, match=r"checking the metric m took more than 0 s"):
        DuckEngine().check(metric("sum(7)"))  # which no other test asks about


def test_a_computation_that_needs_too_much_memory_and_disk_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MEMORY_MB", 100)
    monkeypatch.setattr(sandbox, "DISK_LIMIT", "1MB")
    events = [event({"t": f"{n:0200d}" * 20}) for n in range(30_000)]
    with pytest.raises(EngineError, match="need more memory than the engine has") as raised:
        compute(raw(tmp_path / "r.zst", events), metric("count(DISTINCT payload)"), threads=1)
    assert "--metric NAME" in raised.value.hint
    assert "TMPDIR" in raised.value.hint


def test_what_is_long_and_harmless_is_accepted() -> None:
    harmless = [
        "count(*) FILTER (WHERE seq IN (" + ", ".join(map(str, range(1000))) + "))",
        f"count(*) FILTER (WHERE {TEXT} ILIKE '%refund%' AND {TEXT} LIKE '%a%b%c%' AND {TEXT} NOT LIKE '%_x%')",
        f"count(*) FILTER (WHERE regexp_matches({TEXT}, '^(re)?fund', 'i') AND source SIMILAR TO '(a|b)+')",
        f"max(length(regexp_replace(replace({TEXT}, ',', '.'), '[^0-9]', '', 'g')))",
        "count(DISTINCT source || '/' || event_type || '/' || (payload->>'$.kind'))",
        "count(*) FILTER (WHERE json_exists(payload, '$.refund'))",
    ]
    assert all(len(value) < LONGEST for value in harmless)
    for value in harmless:
        assert DuckEngine().check(metric(value)) == 0
