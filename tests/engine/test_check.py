"""What a definition may say, and what is refused when it is applied, not at 03:00."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.errors import Invalid
from tests.support.raw_files import compute, event, metric, raw

ACCEPTED = [
    "count(*)",
    "count(*) -- with a comment",
    "SUM(seq) - COUNT(*)",
    "sum((payload->>'$.v')::DECIMAL(18, 2))",
    "sum(CAST(payload->>'v' AS DECIMAL(18, 2))) * 100",
    "count(DISTINCT entity_id)",
    "count(*) FILTER (WHERE seq > 3)",
    "count_if(payload->>'$.a' = 'b')",
    "countif(seq > 1)",
    "max(epoch_us(event_time))",
    "(sum(seq) / count(*))::DECIMAL(18, 6)",
    "CASE WHEN count(*) > 3 THEN coalesce(sum(seq), 0) ELSE 0 END",
    "bit_xor(seq)",
    "bool_and(seq > 1)::INTEGER",
    "sum(if(seq > 1, 1, 0))",
    "sum(len(list_filter([1, 2], lambda x: x > seq)))",
    "sum(json_array_length(payload->'$.items'))",
    "max((payload->>'$.a')::HUGEINT)",
    "(sum(seq) / nullif(count(*) - 1, 0))::DECIMAL(18, 6)",
    "CAST(100 * sum((payload->>'$.v')::DECIMAL(18, 2)) / sum(seq) AS DECIMAL(38, 10))",
    "sum(list_sum(list_transform((payload->'$.items')::JSON[], lambda x: (x->>'$.price')::DECIMAL(18, 2))))",
    "sum(list_sum((payload->'$.items')::VARCHAR[]::DECIMAL(18, 2)[]))",
    "count(*) FILTER (WHERE event_time > TIMESTAMP '2026-01-01' + INTERVAL 1 DAY AND source ILIKE '%shop%')",
    "sum(round((payload->>'$.v')::DECIMAL(18, 3), 2))",
    "sum(replace(payload->>'$.v', ',', '.')::DECIMAL(18, 2))",
    "sum(epoch_us(received_time) - epoch_us(event_time))",
    "epoch_us(max(payload->>'$.at')::TIMESTAMP)",
    "left(max(payload->>'$.at'), 4)::INTEGER",
    "count(*) FILTER (WHERE CAST(payload->>'$.at' AS TIMESTAMPTZ) >= '2026-03-01T06:00:00Z')",
    "count(*) FILTER (WHERE payload->>'$.at' >= '2026-03-01' AND payload->>'$.n' = '5' AND event_id < '8')",
    "max(len(extra::VARCHAR) + len(content_hash) + len(batch_id) + len(idempotency_key))",
]

REFUSED_VALUES = [
    ("", "invalid SQL expression"),
    ("count(*", "invalid SQL expression: syntax error"),
    ("'''", "invalid SQL expression"),
    ("count(*) /*", "invalid SQL expression"),
    ("count(*); SELECT 1", "more than one SQL expression"),
    ("count(*), sum(seq)", "more than one SQL expression"),
    ("count(*) AS n", "more than one SQL expression"),
    ("count(*) FROM event", "more than one SQL expression"),
    ("count(*) FROM read_text('/etc/passwd')", "more than one SQL expression"),
    ("count(*) WHERE true", "more than one SQL expression"),
    ("count(*) GROUP BY seq", "more than one SQL expression"),
    ("count(*) ORDER BY 1", "more than one SQL expression"),
    ("count(*) LIMIT 1", "more than one SQL expression"),
    ("count(*) UNION SELECT 1", "more than one SQL expression"),
    ("DISTINCT count(*)", "more than one SQL expression"),
    ("count(*)), (sum(seq)", "invalid SQL expression"),
    ("count(*); DROP TABLE event", "more than one SQL expression"),
    ("1", "no aggregate"),
    ("seq", "no aggregate"),
    ("length(source)", "no aggregate"),
    ("sum(seq) + seq", "column seq is used outside an aggregate"),
    ("CASE WHEN event_type = 'a' THEN count(*) END", "column event_type is used outside"),
    ("sum(amount)", "unknown column amount"),
    ("sum(rowid)", "unknown column rowid"),
    ("sum(payload.amount)", "payload.amount is not a column"),
    ("sum(event.seq)", "event.seq is not a column"),
    ("sum(payload->>'$.a')", "argument of sum is VARCHAR"),
    ("sum(payload->'$.a')", "argument of sum is JSON"),
    ("sum((payload->>'$.a')::DOUBLE)", "argument of sum is DOUBLE"),
    ("sum((payload->>'$.a')::DOUBLE)::DECIMAL(18, 2)", "argument of sum is DOUBLE"),
    ("sum((payload->>'$.a')::DOUBLE * 2)::DECIMAL(18, 2)", "argument of sum is DOUBLE"),
    ("sum(DISTINCT (payload->>'$.a')::FLOAT)::INTEGER", "argument of sum is FLOAT"),
    ("sum(seq / 2)::BIGINT", "argument of sum is DOUBLE"),
    ("sum(sqrt(seq))::BIGINT", "sqrt computes in floating point"),
    ("sum(seq::UHUGEINT)::HUGEINT", "argument of sum is UHUGEINT"),
    ("sum(event_time)", "argument of sum is TIMESTAMP"),
    ("sum(seq) FILTER (WHERE seq)", "FILTER of sum is BIGINT"),
    ("avg(seq)::DECIMAL(18, 2)", "avg adds in floating point"),
    ("mean(seq)", "mean adds in floating point"),
    ("fsum(seq)::BIGINT", "fsum adds in floating point"),
    ("stddev(seq)::BIGINT", "stddev computes in floating point"),
    ("product(seq)::BIGINT", "product computes in floating point"),
    ("sum((payload->>'$.l[*]')::DECIMAL(18, 2))", "takes a list for a number"),
    ("sum(list_sum(list_transform((payload->'$.l')::JSON[], x -> (x->>'n')::INT)))", "list_transform has no lambda"),
    ("count(*) FILTER (WHERE coalesce(payload->>'b', false))", "value: Cannot mix values"),
    ("count(payload->>'$.Price [EUR]')", "value: JSON path error"),
    ("first(seq)", "first takes whichever event comes first"),
    ("any_value(seq)", "any_value takes whichever"),
    ("arg_max(seq, event_time)", "arg_max takes whichever"),
    ("mode(seq)", "mode takes whichever"),
    ("len(list(seq))", "list keeps every value"),
    ("length(string_agg(source))", "string_agg keeps every value"),
    ("median(seq)::BIGINT", "median keeps every value"),
    ("quantile_disc(seq, 0.5)", "quantile_disc keeps every value"),
    ("approx_count_distinct(entity_id)", "approx_count_distinct approximates"),
    ("geomean(seq)::BIGINT", "geomean is a macro"),
    ("json_array_length(json_group_array(seq))", "json_group_array is a macro"),
    ("sum(seq ORDER BY seq)", "ORDER BY"),
    ("sum(sum(seq))", "sum contains another aggregate"),
    ("count(*) FILTER (WHERE sum(seq) > 1)", "count(*) contains another aggregate"),
    ("max(seq, 3)", "max takes one argument"),
    ("max(received_time - event_time)", "argument of max is INTERVAL"),
    ("length(max(source COLLATE nocase))", "collation"),
    ("bit_xor(event_id)", "argument of bit_xor is VARCHAR"),
    ("sum(seq) OVER ()", "window function"),
    ("row_number() OVER ()", "window function"),
    ("(SELECT count(*) FROM event)", "subquery"),
    ("count(*) + (SELECT 1)", "subquery"),
    ("count(*) + EXISTS (FROM read_text('/etc/passwd'))::INTEGER", "subquery"),
    ("count(*) + ?", "parameters"),
    ("count($name)", "parameters"),
    ("count(*) + #1", "named, not numbered"),
    ("count(COLUMNS(*))", "columns are named"),
    ("count(*) + grouping(seq)", "grouping()"),
    ("count(read_text('/etc/passwd'))", "read_text returns rows"),
    ("sum(unnest([1, 2]))", "unnest returns rows"),
    ("sum(nosuch(seq))", "unknown function nosuch"),
    ("main.sum(seq)", "main.sum is not a function"),
    ("seq.sum()", "seq.sum is not a function"),
    ("sum(random())", "random depends on when"),
    ("count(*) + epoch_us(now())", "now depends on when"),
    ("count(*) + epoch_us(current_timestamp)", "current_timestamp depends on when"),
    ("sum(extract(year FROM current_date))", "current_date depends on when"),
    ("count(*) + epoch_us(current_localtimestamp())", "current_localtimestamp depends on when"),
    ("max(extract(year FROM age(event_time)))", "age depends on when"),
    ("sum(hash(seq) % 7)", "hash depends on when"),
    ("count(*) + length(version())", "version depends on when"),
    ("length(current_setting('threads')) + count(*)", "current_setting depends on when"),
    ("sum(length(getvariable('x')))", "getvariable depends on when"),
    ("count(write_log('x'))", "write_log depends on when"),
    ("max(event_time)", "result is TIMESTAMP"),
    ("bool_or(seq > 1)", "result is BOOLEAN"),
    ("max(source)", "result is VARCHAR"),
    ("max(payload->>'$.a')::BIGINT", "max((payload ->> '$.a')) compares texts"),
    (
        "TRY_CAST(coalesce(nullif(min(trim(payload->>'$.a')), ''), '0') AS DECIMAL(9, 2))",
        "compares texts, and as a text",
    ),
    ("max(greatest(payload->>'$.a', payload->>'$.b')::BIGINT)", "compares texts"),
    ("count(*) FILTER (WHERE payload->>'$.a' >= '2026-03-01T06:00:00Z')", "'2026-01-31 08:00' is less than"),
    ("count(*) FILTER (WHERE trim(payload->>'$.a') BETWEEN '2026-03-01 06:00' AND '2026-04-01')", "compares texts"),
    ("count(*) FILTER (WHERE payload->>'$.a' > '5')", "compares texts, and as a text '10' is less than '9'"),
    ("count(*) FILTER (WHERE json_extract_string(payload, '$.a') BETWEEN '1.5' AND '20')", "compares texts"),
    ("max((payload->>'a')::DOUBLE)", "is DOUBLE, a floating-point number"),
    ("sum(seq) / 2", "divides in floating point"),
    ("[count(*)]", "result is BIGINT[]"),
    ("sum(seq) IN (1, 2)", "result is BOOLEAN"),
    ("sum(list_sum(list_filter([1], x -> x > seq)))", "list_filter has no lambda"),
    ("count(*)" + " + 1" * 2000, "invalid SQL expression: Max expression depth"),
    ("(" * 2000 + "count(*)" + ")" * 2000, "invalid SQL expression"),
]

REFUSED_WHERES = [
    ("", "invalid SQL expression"),
    ("amount > 1", "unknown column amount"),
    ("seq", "it is BIGINT, not BOOLEAN"),
    ("source", "it is VARCHAR, not BOOLEAN"),
    ("NULL", "it is NULL, not BOOLEAN"),
    ("count(*) > 1", "count(*) is an aggregate"),
    ("max(seq) = seq", "max is an aggregate"),
    ("avg(seq) > 1", "avg adds in floating point"),
    ("true; DROP TABLE event", "more than one SQL expression"),
    ("true) OR (true", "invalid SQL expression"),
    ("true UNION SELECT true", "more than one SQL expression"),
    ("seq > (SELECT 1)", "subquery"),
    ("seq IN (SELECT 1)", "subquery"),
    ("random() < 0.5", "random depends on when"),
    ("event_time > now() - INTERVAL 1 DAY", "now depends on when"),
    ("current_user = 'x'", "current_user depends on when"),
    ("read_blob('/etc/passwd') IS NULL", "read_blob returns rows"),
    ("seq > sum(seq) OVER ()", "window function"),
    ("event_time > 5", "Cannot compare values of type TIMESTAMP"),
    ("(payload->'$.a') > '5'", "compares texts, and as a text '10' is less than '9'"),
    ("json_extract(payload, '$.a') <= '.5e1'", "compares texts"),
    ("coalesce(trim(payload->>'$.a'), '0') > ' 5'", "compares texts"),
    ("replace(payload->>'$.a', ',', '') > '9'", "compares texts"),
    ("upper(substr(payload->>'$.a', 2)) BETWEEN '5' AND '50'", "compares texts"),
    ("((payload->>'$.a') || '') < '9'", "compares texts"),
    ("split_part(payload->>'$.a', ' ', 1) > 9", "takes a text for a number"),
    ("payload->>'$.a' > payload->>'$.b'", "compares texts"),
    ("payload->>'$.a' > 5", "((payload ->> '$.a') > 5) takes a text for a number"),
    ("payload->>'$.a' BETWEEN 1 AND 2.5", "takes a text for a number"),
    ("(payload->>'$.a') + 1 = 2", "takes a text for a number"),
    ("payload->>'$.a' + 1 = '2'", "->> binds after the operator to the right of it"),
    ("payload->'$.a' > '5'", "-> binds after the operator to the right of it"),
]


@pytest.mark.parametrize("value", ACCEPTED)
def test_an_accepted_value_computes(value: str, tmp_path: Path) -> None:
    one = metric(value)
    DuckEngine().check(one)
    (computed,) = compute(raw(tmp_path / "raw", [event()]), one)
    assert computed.inputs == 1
    assert computed.failure is None


@pytest.mark.parametrize(
    "where",
    [
        "event_type = 'a' AND payload->>'$.x' IS NOT NULL",
        "(payload->>'$.b')::BOOLEAN",
        "(payload->>'$.x')::VARCHAR <= (payload->>'$.x')::VARCHAR",
        "payload->>'$.x' <> payload->>'$.y' OR payload->>'$.x' > '2026-01-01' OR true",
        "source SIMILAR TO 'a.*' OR source LIKE 'b%' OR event_type IN ('c', 'd')",
        "event_time >= TIMESTAMP '2026-01-01' AND date_trunc('day', event_time) <> DATE '2026-01-02'",
        "true",
    ],
)
def test_an_accepted_where_selects(where: str, tmp_path: Path) -> None:
    one = metric(where=where)
    DuckEngine().check(one)
    assert all(computed.failure is None for computed in compute(raw(tmp_path / "raw", [event()]), one))


@pytest.mark.parametrize(("value", "reason"), REFUSED_VALUES, ids=lambda text: text[:40])
def test_refused_values(value: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        DuckEngine().check(metric(value, name="revenue"))
    assert reason in caught.value.message
    assert caught.value.message.startswith("metric revenue, value: ")
    assert caught.value.field == "value"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("where", "reason"), REFUSED_WHERES, ids=lambda text: text[:40])
def test_refused_wheres(where: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        DuckEngine().check(metric(where=where))
    assert reason in caught.value.message
    assert caught.value.field == "where"


@pytest.mark.parametrize(
    ("value", "alternative"),
    [
        ("sum(payload->>'$.a')", "sum(CAST((payload ->> '$.a') AS DECIMAL(18, 6)))"),
        ("sum((payload->>'$.a')::DOUBLE)", "sum(CAST((payload ->> '$.a') AS DECIMAL(18, 6)))"),
        ("sum((payload->>'$.a')::DOUBLE * 2)", "sum((CAST((payload ->> '$.a') AS DECIMAL(18, 6)) * 2))"),
        ("max(payload->>'$.a')", "max(CAST((payload ->> '$.a') AS DECIMAL(18, 6)))"),
        ("max(payload->>'$.a')::HUGEINT", "max(CAST((payload ->> '$.a') AS HUGEINT))"),
        ("max(payload->'$.a')::BIGINT", "max(CAST(payload ->> '$.a' AS BIGINT))"),
        (
            "max(greatest(payload->>'$.a', '5'))::BIGINT",
            "max(greatest(CAST((payload ->> '$.a') AS BIGINT), CAST('5' AS BIGINT)))",
        ),
        ("sum(list_sum(payload->>'$.l[*]'))", "sum(list_sum((payload->>'$.l[*]')::DECIMAL(18, 2)[]))"),
        ("max(event_time)", "epoch_us(max(event_time))"),
        ("sum(seq) / 2", "(sum(seq) / 2)::DECIMAL(18, 6)"),
        ("bool_or(seq > 1)", "(bool_or(seq > 1))::INTEGER"),
    ],
)
def test_alternatives_are_accepted(value: str, alternative: str) -> None:
    with pytest.raises(Invalid) as caught:
        DuckEngine().check(metric(value))
    assert caught.value.hint.endswith(alternative)
    DuckEngine().check(metric(alternative))


@pytest.mark.parametrize(
    ("value", "scale"),
    [
        ("count(*)", 0),
        ("sum(seq)", 0),
        ("sum((payload->>'$.a')::DECIMAL(18, 2))", 2),
        ("sum((payload->>'$.a')::DECIMAL(18, 2)) * 1.5", 3),
        ("(sum(seq) / count(*))::DECIMAL(18, 6)", 6),
        ("(sum(seq) / count(*))::DECIMAL(18, 0)", 0),
    ],
)
def test_the_scale_of_the_values_is_reported(value: str, scale: int) -> None:
    assert DuckEngine().check(metric(value)) == scale


def test_a_name_that_begins_with_a_dollar_is_written_as_the_hint_says() -> None:
    for wrong in (metric("sum((payload->>'$n')::INTEGER)"), metric(where="payload->>'$n' = '1'")):
        with pytest.raises(Invalid) as caught:
            DuckEngine().check(wrong)
        assert caught.value.hint == """a name that begins with $ has quotes in a path: '$."$n"'"""
    DuckEngine().check(metric("""sum((payload->>'$."$n"')::INTEGER)"""))


def test_an_unknown_column_is_reported_with_the_known_ones() -> None:
    with pytest.raises(Invalid) as caught:
        DuckEngine().check(metric("sum(amount)"))
    assert "event_id, content_hash, source" in caught.value.hint
    assert "payload->>'$.amount'" in caught.value.hint


def test_importing_is_cheap_and_an_engine_can_be_sent_to_a_worker() -> None:
    code = "import sys, pik.engine; assert 'duckdb' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert pickle.loads(pickle.dumps(DuckEngine(2))) == DuckEngine(2)
