"""Texts and values as people see them, and numbers as programs do."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.cli.colour import ROLES, When, use_colours
from pik.cli.commands.inspect.groups import GROUPED
from pik.cli.document import Column, Document, Field, Rows, Table
from pik.cli.output import Output
from pik.cli.text import broken, cells
from pik.cli.values import Count, Entity, Lag, data, words
from pik.config import Format
from pik.model.visible import visible, visible_json
from pik.model.window import ALL_TIME
from tools.gen_json import schemas

from .test_render import Terminal


@given(st.lists(st.text("abc日", min_size=1, max_size=12), min_size=1), st.integers(24, 40))
def test_a_word_that_fits_a_line_is_not_broken(parts: list[str], width: int) -> None:
    assert " ".join(broken(" ".join(parts), width)) == " ".join(parts)


@given(st.text())
def test_visible_text_is_one_line_without_controls(text: str) -> None:
    shown = visible(text)
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in shown)
    assert len(shown.splitlines()) <= 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("u-4", "u-4"),
        ("u 4", "u 4"),
        ("u-4 ", r"u-4\x20"),
        ("  u-4", r"\x20\x20u-4"),
        ("u-4\xa0", r"u-4\xa0"),
        ("u\xa04\u2009", r"u\xa04\u2009"),
        ("\u3000u-4\u200b", r"\u3000u-4\u200b"),
        ("10\u202f000\u2009€", r"10\u202f000\u2009€"),
        ("a\u3164\u2800b", r"a\u3164\u2800b"),
        ("山田\u3000太郎 é", "山田\u3000太郎 é"),
        (" ", r"\x20"),
        ("", ""),
    ],
)
def test_values_that_differ_in_white_space_look_different(value: str, shown: str) -> None:
    assert words(value) == shown
    assert words(Entity(value)) == (shown or "(all)")


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


def shown(document: Document, monkeypatch: pytest.MonkeyPatch, *, terminal: bool = True, width: int = 80) -> str:
    """The document as a table, with the escapes of colours as <1>, <31> and so on, their ends as </>."""
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("COLUMNS", str(width))
    Output(Format.TABLE).show(document)
    return re.sub("\x1b\\[([0-9]+)m", lambda found: "</>" if found[1] == "0" else f"<{found[1]}>", stream.getvalue())


@pytest.mark.parametrize(
    ("when", "terminal", "no_color", "term", "coloured"),
    [
        ("auto", True, "", "xterm", True),
        ("auto", True, "1", "xterm", False),
        ("auto", True, "", "dumb", False),
        ("auto", False, "", "xterm", False),
        ("always", False, "1", "dumb", True),
        ("never", True, "", "xterm", False),
    ],
)
def test_colours_only_on_a_terminal_that_wants_them(
    when: str, terminal: bool, no_color: str, term: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    use_colours(When(when))
    try:
        text = shown(Document(head={"failed": 1}), monkeypatch, terminal=terminal)
    finally:
        use_colours(When.AUTO)
    assert text == ("<1>failed</>  <31>1</>\n" if coloured else "failed  1\n")


def test_colours_mean_a_difference_a_conflict_or_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zero means nothing, and widths are those of the text."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    columns = [Column("metric"), Column("delta", Decimal), Column("kind"), Column("failed", Count)]
    rows = [
        {"metric": "delta", "delta": Decimal("-1.5"), "kind": "exact", "failed": 0},
        {"metric": "failed", "delta": Decimal(0), "kind": "conflict", "failed": 12},
    ]
    head = {"duplicates": {"exact": 1, "conflict": Count(2)}, "rejected": 0, "state": "PARTIAL"}
    assert shown(Document(head=head, tables=[Table("t", columns, rows)]), monkeypatch) == (
        "<1>duplicates</>  exact 1, <35>conflict 2</>\n"
        "<1>rejected  </>  0\n"
        "<1>state     </>  <31>PARTIAL</>\n\n"
        "<1>metric  delta  kind      failed</>\n"
        "delta    <33>-1.5</>  exact          0\n"
        "failed      0  <35>conflict</>      <31>12</>\n"
    )
    assert "\x1b" not in shown(Document(tables=[Table("t", columns, rows)]), monkeypatch, terminal=False)


def test_each_name_that_has_a_colour_is_that_of_a_field_or_column() -> None:
    def of(parts: Iterable[Field | Rows]) -> Iterator[str]:
        for part in parts:
            yield part.name
            yield from of(part.columns if isinstance(part, Rows) else getattr(part.kind, "fields", ()))

    assert set(ROLES) <= {name for schema in schemas() for name in of(schema.parts)}


def test_a_sentence_is_broken_at_spaces_and_a_path_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    rule, path = "the same source and the same entity at another time", "/a/very/long/path/with/many/more/names"
    lines = shown(Document(head={"rule": rule, "file": path}), monkeypatch, width=30).splitlines()
    assert lines == ["rule  the same source and the", "      same entity at another", "      time", f"file  {path}"]


@pytest.mark.parametrize(("group", "shown"), [('"u-4 "', r"u-4\x20"), ('"u\u00a04"', r"u\xa04"), ("4.0", "4.0")])
def test_groups_by_a_path_do_so_too(group: str, shown: str) -> None:
    [column] = (column for column in GROUPED if column.name == "value")
    assert column.text is not None
    assert column.text(SimpleNamespace(group=group)) == shown
