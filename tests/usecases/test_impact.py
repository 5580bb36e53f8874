"""The impact of other deliveries on metrics: whose values are summed."""

from __future__ import annotations

import pytest

from pik.usecases.metrics.impact import adds_up


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("count(*)", True),
        ("sum((payload->>'v')::BIGINT)", True),
        ("SUM ((payload->>'a)b')::DECIMAL(18, 2))", True),
        ("count(*) FILTER (WHERE event_type IN ('a', 'b'))", True),
        ("count(DISTINCT entity_id)", False),
        ("sum(DISTINCT seq)", False),
        ("max(seq)", False),
        ("sum(seq) / count(*)", False),
        ("sum(seq) + min(seq)", False),
        ("sum(seq) FILTER (WHERE seq > 0) * 2", False),
        ("2 * sum(seq)", False),
        ("coalesce(sum(seq), 0)", False),
    ],
)
def test_only_one_sum_or_count_adds_up(value: str, expected: bool) -> None:
    assert adds_up(value) is expected
