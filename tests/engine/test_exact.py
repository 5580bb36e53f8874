"""Every operator, cast and function of numbers that a definition may use, against Python's exact arithmetic."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.engine import DuckEngine
from pik.engine.sandbox import OPERATORS, SCALARS
from pik.errors import Invalid
from tests.support.raw_files import compute, event, metric, raw

A, B = "(payload->>'$.a')", "(payload->>'$.b')"
WIDE = Context(prec=200)


def rounded(value: Fraction, digits: int) -> Fraction:
    """Half away from zero."""
    scaled = abs(value) * Fraction(10) ** digits + Fraction(1, 2)
    whole = scaled.numerator // scaled.denominator
    return Fraction(-whole if value < 0 else whole) / Fraction(10) ** digits


def cut(value: Fraction, digits: int = 0) -> Fraction:
    """Towards zero."""
    whole = int(abs(value) * Fraction(10) ** digits)
    return Fraction(-whole if value < 0 else whole) / Fraction(10) ** digits


def remainder(a: Fraction, b: Fraction) -> Fraction:
    """With the sign of a."""
    return a - b * cut(a / b)


def quotient(digits: int) -> Callable[[Fraction, Fraction], Fraction]:
    return lambda a, b: rounded(a / b, digits)


D = f"{A}::DECIMAL(24, 6)"
E = f"{B}::DECIMAL(24, 3)"
N, J = f"{A}::BIGINT", f"{B}::BIGINT"
Both = Callable[[Fraction, Fraction], Fraction]
FORMS: dict[str, Both] = {
    f"max({A}::DECIMAL(38, 12))": lambda a, b: rounded(a, 12),
    f"max({A}::DECIMAL(30, 2))": lambda a, b: rounded(a, 2),
    f"max({A}::HUGEINT)": lambda a, b: rounded(a, 0),
    f"max({D}::DECIMAL(30, 2))": lambda a, b: rounded(rounded(a, 6), 2),
    f"max({D})::DECIMAL(38, 1)": lambda a, b: rounded(rounded(a, 6), 1),
    f"max({D}::BIGINT)": lambda a, b: rounded(rounded(a, 6), 0),
    f"max({D} + {E})": lambda a, b: rounded(a, 6) + rounded(b, 3),
    f"max({D} - {E})": lambda a, b: rounded(a, 6) - rounded(b, 3),
    f"max({A}::DECIMAL(22, 6) * {B}::DECIMAL(16, 0))": lambda a, b: rounded(a, 6) * rounded(b, 0),
    f"max({D} * 3 - {J})": lambda a, b: rounded(a, 6) * 3 - rounded(b, 0),
    f"max({N} * {J}::HUGEINT)": lambda a, b: rounded(a, 0) * rounded(b, 0),
    f"max({N} // nullif({J}, 0))": lambda a, b: cut(rounded(a, 0) / rounded(b, 0)),
    f"max({N} % nullif({J}, 0))": lambda a, b: remainder(rounded(a, 0), rounded(b, 0)),
    f"max({D} % nullif({E}, 0))": lambda a, b: remainder(rounded(a, 6), rounded(b, 3)),
    f"max(mod({D}, nullif({E}, 0)))": lambda a, b: remainder(rounded(a, 6), rounded(b, 3)),
    f"max(round({D}, 2))": lambda a, b: rounded(rounded(a, 6), 2),
    f"max(round({D}))": lambda a, b: rounded(rounded(a, 6), 0),
    f"max(round({N}, -2))": lambda a, b: rounded(rounded(a, 0), -2),
    f"round(sum({D}), 4)": lambda a, b: rounded(rounded(a, 6), 4),
    f"max(trunc({D}))": lambda a, b: cut(rounded(a, 6)),
    f"max(trunc({D}, 2))": lambda a, b: cut(rounded(a, 6), 2),
    f"max(floor({D}))": lambda a, b: Fraction(rounded(a, 6).__floor__()),
    f"max(ceil({D}))": lambda a, b: Fraction(rounded(a, 6).__ceil__()),
    f"max(ceiling({D}))": lambda a, b: Fraction(rounded(a, 6).__ceil__()),
    f"max(abs({D}))": lambda a, b: abs(rounded(a, 6)),
    f"max(sign({D}))": lambda a, b: Fraction((rounded(a, 6) > 0) - (rounded(a, 6) < 0)),
    f"max(-{D})": lambda a, b: -rounded(a, 6),
    f"max(greatest({D}, {E}))": lambda a, b: max(rounded(a, 6), rounded(b, 3)),
    f"max(least({D}, {E}, 5))": lambda a, b: min(rounded(a, 6), rounded(b, 3), Fraction(5)),
    f"max(if({D} > {E}, {D}, {J}))": lambda a, b: rounded(a, 6) if rounded(a, 6) > rounded(b, 3) else rounded(b, 0),
    f"count(*) FILTER (WHERE {D} BETWEEN {E} AND 1000 OR {D} IN (1, 2.5))": lambda a, b: Fraction(
        rounded(b, 3) <= rounded(a, 6) <= 1000 or rounded(a, 6) in (1, Fraction(5, 2))
    ),
    f"sum(list_sum(['1.5', {A}]::DECIMAL(30, 4)[]))": lambda a, b: Fraction(3, 2) + rounded(a, 4),
    f"(sum({A}::DECIMAL(38, 6)) / nullif(sum({B}::DECIMAL(38, 3)), 0))::DECIMAL(38, 6)": lambda a, b: rounded(
        rounded(a, 6) / rounded(b, 3), 6
    ),
    f"(sum({A}::DECIMAL(38, 2)) / nullif(sum({J}), 0))::DECIMAL(38, 9)": lambda a, b: rounded(
        rounded(a, 2) / rounded(b, 0), 9
    ),
    f"(sum({N}) / nullif(sum({E}), 0))::DECIMAL(38, 0)": lambda a, b: rounded(rounded(a, 0) / rounded(b, 3), 0),
    f"(100 * max({E}) / (count(*) + 6))::DECIMAL(30, 1)": lambda a, b: rounded(100 * rounded(b, 3) / 7, 1),
}

digits = st.integers(-(10**15), 10**15).flatmap(
    lambda number: st.integers(0, 12).map(lambda scale: Decimal(number).scaleb(-scale))
)
halves = st.integers(-(10**7), 10**7).flatmap(
    lambda number: st.integers(0, 7).map(lambda scale: Decimal(10 * number + 5).scaleb(-scale - 1))
)
numbers = st.one_of(digits, halves, st.sampled_from([Decimal("1.005"), Decimal(0), Decimal("9007199254740993")]))
texts = st.tuples(numbers, st.booleans()).map(lambda one: format(one[0], "E" if one[1] else "f"))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=8, max_size=30))
def test_every_form_is_exact(pairs: list[tuple[str, str]]) -> None:
    events = [event({"a": a, "b": b}, entity_id=f"e{at:03}") for at, (a, b) in enumerate(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        found = compute(
            raw(Path(folder, "r.zst"), events), *(metric(value, name=f"m{at:03}") for at, value in enumerate(FORMS))
        )
    assert len(found) == len(pairs) * len(FORMS)
    for one in found:
        value, form = list(FORMS.items())[int(one.metric[1:])]
        a, b = pairs[int(one.entity_id[1:])]
        assert one.failure is None, (value, a, b, one.failure)
        try:
            expected = form(Fraction(a), Fraction(b))
        except ZeroDivisionError:
            assert one.value is None, (value, a, b, one.value)
            continue
        assert one.value is not None, (value, a, b)
        assert Fraction(one.value) == expected, (value, a, b, one.value)


wide = st.integers(-(10**37), 10**37).flatmap(
    lambda number: st.integers(0, 8).map(lambda s: Decimal(number).scaleb(-s))
)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(wide, numbers), st.one_of(wide, numbers)), min_size=1, max_size=30), st.integers(0, 9)
)
def test_a_quotient_of_many_digits_is_exact_or_fails(pairs: list[tuple[Decimal, Decimal]], scale: int) -> None:
    events = [
        event({"a": format(a, "f"), "b": format(b, "f")}, entity_id=f"e{at:03}") for at, (a, b) in enumerate(pairs)
    ]
    x, y = "TRY_CAST(payload->>'$.a' AS DECIMAL(38, 2))", "TRY_CAST(payload->>'$.b' AS DECIMAL(38, 4))"
    definition = metric(f"(sum({x}) / sum({y}))::DECIMAL(38, {scale})")
    with tempfile.TemporaryDirectory() as folder:
        found = compute(raw(Path(folder, "r.zst"), events), definition)
    for one in found:
        a, b = (Fraction(number) for number in pairs[int(one.entity_id[1:])])
        a, b = rounded(a, 2), rounded(b, 4)
        if one.value is not None:
            assert Fraction(one.value) == rounded(a / b, scale)
        elif one.failure is not None:
            assert b == 0 or max(abs(a) * 10**4, abs(b) * 10 ** (4 + scale), abs(a / b) * 10**scale) > 10**36
        else:
            assert max(abs(a) * 10**2, abs(b) * 10**4) >= 10**37, "one of the two casts gives NULL"


def test_every_function_of_numbers_is_tried() -> None:
    tried = " ".join(FORMS)
    for name in SCALARS["numbers"].split():
        assert f"{name}(" in tried
    for operator in OPERATORS - set("& | << >> ~ || -> ->> ~~ !~~ ~~* !~~*".split()):
        assert operator in tried


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("max(round((payload->>'$.a')::DECIMAL(9, 3) / 2, 2))::DECIMAL(9, 2)", "divides in floating point"),
        ("coalesce((sum(seq) / 2)::DECIMAL(9, 2), 0)", "divides in floating point"),
        ("TRY_CAST(sum(seq) / 2 AS DECIMAL(9, 2))", "divides in floating point"),
        ("(sum(seq) / 2)::BIGINT", "divides in floating point"),
        ("count(*) FILTER (WHERE seq / 2 > 1)", "divides in floating point"),
        ("sum((payload->'$.a')::DECIMAL(9, 2))", "reads a JSON number through floating point"),
        ("sum(TRY_CAST(payload->'$.a' AS BIGINT))", "reads a JSON number through floating point"),
        ("sum(list_sum((payload->'$.a')::BIGINT[]))", "reads a JSON number through floating point"),
        ("sum((extra->>'$.a')::DECIMAL(9, 2))", "a number of extra"),
        ("count(*) FILTER (WHERE payload->>'$.a' = 5.4)", "takes a text for a number"),
        ("count(*) FILTER (WHERE payload->>'$.a' IN (5, 6))", "takes a text for a number"),
        ("count(*) FILTER (WHERE (payload->'$.a') > 5)", "takes a text for a number"),
        ("count(*) FILTER (WHERE seq > '5.4')", "takes a text for a number"),
        ("count(nullif(payload->>'$.a', 0))", "takes a text for a number"),
        ("count(CASE payload->>'$.a' WHEN 5 THEN 1 END)", "takes a text for a number"),
        ("sum(seq + '5.4')", "takes a text for a number"),
        ("sum(list_sum(list_transform([1, 2], lambda x: x // 2.5)))", "is DOUBLE"),
        ("count(*) FILTER (WHERE (payload->>'$.a')::DOUBLE > 0.5)", "is DOUBLE"),
        ("sum(seq * 1e3)", "is DOUBLE"),
        ("sum(floor(seq))", "is DOUBLE"),
        ("sum((payload->>'$.a')::DECIMAL(9, 2) // 2)", "is DOUBLE"),
        ("max((payload->>'$.a')::DECIMAL(38, 2) % (payload->>'$.b')::DECIMAL(38, 9))", "is DOUBLE"),
        ("sum(seq ** 2)", "** computes in floating point"),
        ("sum(pow(seq, 2))", "pow computes in floating point"),
        ("max(epoch(event_time))::BIGINT", "epoch computes in floating point"),
        ("count(DISTINCT seq::UHUGEINT)", "UHUGEINT"),
        ("count(DISTINCT seq::BIT)", "a type that a metric cannot use"),
        ("count(DISTINCT {'a': seq})", "not among the functions"),
    ],
)
def test_what_loses_digits_is_refused(value: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        DuckEngine().check(metric(value))
    assert reason in caught.value.message


def test_what_loses_digits_is_refused_in_where_too() -> None:
    with pytest.raises(Invalid, match="takes a text for a number"):
        DuckEngine().check(metric(where="payload->>'$.a' = 0.5"))


def test_a_denominator_of_zero_fails_and_nullif_makes_it_no_value(tmp_path: Path) -> None:
    events = [event({"o": o, "v": v}, entity_id=name) for name, o, v in (("a", 7, 100), ("b", 0, 0), ("c", 1, 40))]
    orders, visits = "sum((payload->>'$.o')::BIGINT)", "sum((payload->>'$.v')::BIGINT)"
    found = compute(
        raw(tmp_path / "r.zst", events),
        metric(f"({orders} / {visits})::DECIMAL(18, 6)", name="bare"),
        metric(f"({orders} / nullif({visits}, 0))::DECIMAL(18, 6)", name="safe"),
    )
    assert [one.value for one in found] == [Decimal("0.07"), None, Decimal("0.025")] * 2
    assert [one.failure and one.failure.reason for one in found] == [None, "its denominator is 0", None, *[None] * 3]
