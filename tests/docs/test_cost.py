"""The arithmetic of docs/cost.md: each result is its formula's, with the prices of the page."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()
PRICES = {name: Decimal(price) for name, price in re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", PAGE, re.M)}
EXAMPLES = re.findall(r"^\| ([^|]+) \| `([^`|]+)` \| ([\d.]+) \|$", PAGE, re.M)


def test_the_tables_are_found() -> None:
    assert len(PRICES) == 15
    assert len(EXAMPLES) == 16
    used = {name for _, formula, _ in EXAMPLES for name in re.findall(r"[a-z]+", formula)}
    assert used == set(PRICES)


@pytest.mark.parametrize(("what", "formula", "dollars"), EXAMPLES)
def test_a_result_is_that_of_its_formula(what: str, formula: str, dollars: str) -> None:
    exact = re.sub(r"[\d.]+", lambda number: f"Decimal('{number[0]}')", formula)
    cost = eval(exact, {"__builtins__": {}, "Decimal": Decimal, **PRICES})
    assert Decimal(cost).quantize(Decimal("0.01"), ROUND_HALF_UP) == Decimal(dollars), what


ROUTES = re.findall(r"^\| ([a-z ]+[^|]*, `mode=\w+`) \| ([\d.]+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.M)
OF_ROUTES = {
    "one by one, `mode=sync`": (1, "a million events through the API, one by one"),
    "arrays of 100, `mode=sync`": (100, "a million events through the API, in arrays of 100"),
    "arrays of 100, `mode=async`": (100, "the same with `mode=async`, in arrays of 100"),
}


def test_what_each_route_takes_at_50_million_events_a_day() -> None:
    """From the examples: events of a request, write units and dollars of a million events."""
    assert [route for route, *_ in ROUTES] == list(OF_ROUTES)
    of = {what: (formula, Decimal(dollars)) for what, formula, dollars in EXAMPLES}
    second = Decimal(50_000_000) / 86_400
    for route, *shown in ROUTES:
        size, what = OF_ROUTES[route]
        formula, dollars = of[what]
        (units,) = re.findall(r"([\d.]+) \* wru", formula)
        requests = second / size
        found = f"{requests:.0f}" if size == 1 else f"{requests:.1f}"
        assert shown == [found, f"{second * Decimal(units):,.0f}", f"{1500 * dollars:,.0f}"], route
