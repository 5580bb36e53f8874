"""Texts and values as people see them, and numbers as programs do."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.cli.config import Format
from pik.cli.document import Document
from pik.cli.output import Output
from pik.cli.text import broken, cells
from pik.cli.values import Count, Lag, data, words
from pik.model.instant import ALL_TIME
from pik.model.visible import visible, visible_json

from .test_render import Terminal


@given(st.lists(st.text("abc日", min_size=1, max_size=12), min_size=1), st.integers(24, 40))
def test_a_word_that_fits_a_line_is_not_broken(parts: list[str], width: int) -> None:
    assert " ".join(broken(" ".join(parts), width)) == " ".join(parts)


@given(st.text())
def test_visible_text_is_one_line_without_controls(text: str) -> None:
    shown = visible(text)
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in shown)
    assert len(shown.splitlines()) <= 1


@given(st.dictionaries(st.text(), st.text()))
def test_json_made_visible_is_the_same(value: dict[str, str]) -> None:
    text = visible_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not set(text) & set("\x7f\x9b\u202e\u2028")


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z", "M"])), st.integers(2, 30))
def test_broken_text_is_whole_and_fits(text: str, width: int) -> None:
    lines = broken(text, width)
    assert "".join(lines) == text
    assert all(cells(line) <= width for line in lines)


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_lag_is_exact_milliseconds(nanos: int) -> None:
    text = bytes(data(Lag(nanos))).decode()
    assert Decimal(text) * 1_000_000 == nanos
    assert "E" not in text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9))
def test_a_decimal_is_the_number_it_is(value: Decimal) -> None:
    assert Decimal(bytes(data(value)).decode()) == value


def test_words_for_people() -> None:
    values: tuple[object, ...] = (
        None,
        True,
        False,
        Count(1234567),
        Lag(-200_000_000_000),
        ALL_TIME,
        [],
        ["a", 1],
        {"a": Lag(1)},
        Path("x"),
        {"left": "i", "right": [Decimal("0.10"), None]},
    )
    assert [words(value) for value in values] == [
        "-", "yes", "no", "1,234,567", "-3m 20s", "all time", "-", "a, 1", "a 1ns", "x",
        "left i, right 0.10, -",
    ]  # fmt: skip


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, no_color, bold in ((True, "", True), (True, "1", False), (False, "", False)):
        stream = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setenv("TERM", "xterm")
        Output(Format.TABLE).show(Document(head={"a": 1}))
        assert ("\x1b[1m" in stream.getvalue()) is bold
