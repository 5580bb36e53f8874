"""docs/inputs.md: the times that it shows are read, and as it says."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest
from jmespath.functions import Functions

from pik.errors import Invalid
from pik.inputs.epochs import PLAUSIBLE
from pik.inputs.named_formats import NAMED
from pik.inputs.time_formats import TimeFormat
from pik.model.event import read_event
from pik.model.functions import USAGE, ValueFunctions
from pik.model.instant import format_instant, parse_event_time
from pik.model.jmes import MAX_DEPTH, MAX_LENGTH, MAX_MADE, Expression
from pik.model.place import Place
from pik.model.record_path import read_path
from tests.model.test_identity import line
from tests.support.docs.console import REPOSITORY

PAGE = (REPOSITORY / "docs/inputs.md").read_text(encoding="utf-8")
TIMES = sorted(set(re.findall(r"`(2026[-0-9]+[Tt ][^`]+)`", PAGE.partition("### Formats of times")[0])))
NAMED_ROWS = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
ISO = re.findall(r"^\| [^|]+ \| `(2026[^`]+)` \|", PAGE.partition("### ISO 8601")[2], re.MULTILINE)


@pytest.mark.parametrize("text", TIMES)
def test_each_time_is_read(text: str) -> None:
    assert len(TIMES) > 4
    assert format_instant(parse_event_time(text, None))[:16] == "2026-03-02T10:15"
    assert read_event(line(event_time=text)).event_time == parse_event_time(text, None)


def test_each_named_format_has_its_example() -> None:
    """tests/model/test_named_formats.py reads them."""
    assert {name: named.example for name, named in NAMED.items()} == NAMED_ROWS


def test_each_form_of_iso_8601_is_read_by_that_name_alone() -> None:
    assert len(ISO) == 7
    for text in ISO:
        for name in ("iso8601", "auto"):
            assert format_instant(TimeFormat(name)(text))[:10] in ("2026-01-31", "2026-02-01")
        with pytest.raises(Invalid, match="--time-format iso8601 reads it"):
            TimeFormat("rfc3339")(text)


@pytest.mark.parametrize("name", re.findall(r"`'?(epoch\w*|auto|rfc3339|%d/[^`']+)'?`", PAGE))
def test_each_time_format_is_one(name: str) -> None:
    TimeFormat(name)


def test_the_paths_and_expressions_of_documents_are_valid() -> None:
    rows = re.findall(r"^\| .* \| `'(\S+\[\])'` \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) > 5
    for path, expressions in rows:
        read_path(path)
        for expression in re.findall(r"`([^`]+)`", expressions):
            Expression(expression.replace("\\|", "|"), path, of_record=True)


def test_the_numbers_are_those_of_the_code() -> None:
    first, last = (format_instant(one)[:4] for one in (PLAUSIBLE[0], PLAUSIBLE[1] - 1))
    assert f"between {first} and {last}" in PAGE
    text = " ".join(PAGE.split())  # however its lines are broken
    assert f"at most {MAX_LENGTH:,} characters and {MAX_DEPTH} levels. Its result may be {MAX_MADE >> 20} MiB" in text


RECORD = json.loads(re.findall(r"```json\n(\{\"id\".*?)```", PAGE, re.DOTALL)[0])
EXAMPLES = re.findall(r"`([^`]+)` → `([^`]+)`", PAGE.replace("\\|", "|"))


@pytest.mark.parametrize(("expression", "value"), EXAMPLES)
def test_each_example_of_a_function_gives_what_it_says(expression: str, value: str) -> None:
    place = Place("logs/dt=2026-03-02/app.jsonl", 12)
    found = Expression(expression, "--map x", of_record=True).search(RECORD, 1000, place)
    assert found == json.loads(value, parse_float=Decimal)


def test_each_function_has_an_example() -> None:
    ours = set(ValueFunctions.FUNCTION_TABLE) - set(Functions.FUNCTION_TABLE)
    assert ours == {name for expression, _ in EXAMPLES for name in re.findall(r"(\w+)\(", expression)} | {"upper"}
    assert ours < set(USAGE)
