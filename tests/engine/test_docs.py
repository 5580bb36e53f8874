"""docs/metrics.md says what is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.engine.sandbox import AGGREGATES, COLUMN_TYPES, SCALARS
from pik.errors import Invalid
from pik.usecases.metrics.definition_file import read_definition
from tests.support.raw_files import metric

TEXT = Path(__file__).parents[2].joinpath("docs", "metrics.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
REFUSED = re.findall(r"^\| `(.+?)` \| .+? \| (?:`(.+?)` )?\|$", TEXT.split("## What is refused")[1], re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_can_be_applied(example: str) -> None:
    table = tomllib.loads(example)
    for one in table.get("metric", [table]):
        DuckEngine().check(read_definition(one, "docs/metrics.md"))


@pytest.mark.parametrize(("value", "instead"), REFUSED, ids=lambda text: text[:40])
def test_what_is_refused_and_what_to_write_instead(value: str, instead: str) -> None:
    with pytest.raises(Invalid):
        DuckEngine().check(metric(value))
    if instead:
        DuckEngine().check(metric(instead))


def test_nothing_is_left_out() -> None:
    assert len(EXAMPLES) == 4
    assert len(REFUSED) == TEXT.split("## What is refused")[1].count("\n| `")
    columns = re.findall(r"^\| `(\w+)` \| `([A-Z]+)` \|", TEXT, re.MULTILINE)
    assert columns == list(COLUMN_TYPES.items())
    for name in AGGREGATES - {"count_star", "countif"}:
        assert f"`{name}`" in TEXT
    functions = TEXT.split("### Operators and functions")[1].split("## What is refused")[0]
    for kind, names in SCALARS.items():
        assert f"| {kind} | {', '.join(f'`{name}`' for name in names.split())} |" in functions
