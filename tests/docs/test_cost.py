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
    assert len(EXAMPLES) == 15
    used = {name for _, formula, _ in EXAMPLES for name in re.findall(r"[a-z]+", formula)}
    assert used == set(PRICES)


@pytest.mark.parametrize(("what", "formula", "dollars"), EXAMPLES)
def test_a_result_is_that_of_its_formula(what: str, formula: str, dollars: str) -> None:
    exact = re.sub(r"[\d.]+", lambda number: f"Decimal('{number[0]}')", formula)
    cost = eval(exact, {"__builtins__": {}, "Decimal": Decimal, **PRICES})
    assert Decimal(cost).quantize(Decimal("0.01"), ROUND_HALF_UP) == Decimal(dollars), what
