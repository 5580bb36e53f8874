"""How the values of a definition combine, or why they do not."""

from __future__ import annotations

import pytest

from pik.engine import DuckEngine
from pik.errors import Invalid
from pik.model.metric import Combination, Definition

AMOUNT = "(payload->>'$.v')::DECIMAL(18, 2)"


@pytest.mark.parametrize(
    ("value", "combination"),
    [
        ("count(*)", "sum"),
        ("count(idempotency_key)", "sum"),
        ("count_if(event_type = 'paid')", "sum"),
        (f"sum({AMOUNT})", "sum"),
        (
            f"sum({AMOUNT}) FILTER (WHERE event_type = 'paid') - sum({AMOUNT}) FILTER (WHERE event_type = 'refund')",
            "sum",
        ),
        (f"coalesce(sum({AMOUNT}), 0) + count(*)", "sum"),
        (f"-sum({AMOUNT})", "sum"),
        (f"sum({AMOUNT})::DECIMAL(38, 4)", "sum"),
        (f"min({AMOUNT})", "min"),
        (f"max({AMOUNT})::DECIMAL(18, 1)", "max"),
    ],
)
def test_sums_and_counts_add_up_and_min_and_max_combine(value: str, combination: str) -> None:
    assert DuckEngine().combination(Definition(name="m", value=value)) == Combination(combination)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("count(DISTINCT entity_id)", "may count one value in several"),
        (f"sum(DISTINCT {AMOUNT})", "may count one value in several"),
        (f"(sum({AMOUNT}) / count(*))::DECIMAL(18, 2)", "does not follow from those of its parts"),
        ("count(*) + 1", "1 would be added once for each value"),
        ("count(*) * 2", "does not follow from those of its parts"),
        (f"sum({AMOUNT})::DECIMAL(38, 1)", "rounds each value"),
        (f"max({AMOUNT}) - min({AMOUNT})", "is neither a sum nor a count"),
        ("bit_xor(seq)", "is neither a sum nor a count"),
        (f"abs(sum({AMOUNT}))", "does not follow from those of its parts"),
        (f"CASE WHEN count(*) > 1 THEN sum({AMOUNT}) END", "does not follow from those of its parts"),
        (f"coalesce(sum({AMOUNT}), 5)", "does not follow from those of its parts"),
    ],
)
def test_others_are_refused_with_the_reason(value: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        DuckEngine().combination(Definition(name="m", value=value))
