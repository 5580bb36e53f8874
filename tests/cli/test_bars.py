"""Counts as bars: never longer than what they stand for, with their scale; and rows that a terminal only names."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.cli.bars import axis, bar, spark
from pik.cli.commands.inspect.groups import with_hours_without
from pik.cli.document import Column, Document, Fold, Table
from pik.cli.output import Output
from pik.cli.values import Count
from pik.config import Format
from pik.usecases.inspect.count_events import EventGroup

from .test_render import Terminal


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch):
    """Shows a table on a terminal of that width, or without one."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("TERM", "xterm")

    def shown(table: Table, width: int = 0, form: str = "table") -> list[str]:
        stream = Terminal() if width else io.StringIO()
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setenv("COLUMNS", str(width or 80))
        Output(Format(form)).show(Document(tables=[table]))
        return stream.getvalue().splitlines()

    return shown


def _table(*counts: int) -> Table:
    rows = [{"id": f"row{number}", "n": count} for number, count in enumerate(counts)]
    return Table("t", [Column("id"), Column("n", Count, bar=True)], rows)


def test_bars_have_a_scale_and_only_zero_has_none(show) -> None:
    assert show(_table(1000, 500, 1, 0), 32) == [
        "id        n  0             1,000",
        "row0  1,000  ███████████████████",
        "row1    500  █████████▌",
        "row2      1  ▏",
        "row3      0",
    ]
    assert show(_table(8, 4))[0] == f"id    n  0{' ' * 28}8"
    assert show(_table(8, 4), form="md")[2:] == [f"| row0 | 8 | {'█' * 30} |", f"| row1 | 4 | {'█' * 15} |"]
    assert show(_table(8, 4), form="md")[0] == "| id | n | 0 to 8 |"
    assert show(_table(8, 4), form="csv") == ["id,n", "row0,8", "row1,4"]


def test_there_are_no_bars_without_room_for_them_or_a_known_scale(show) -> None:
    for counts, width in (((8, 4), 15), ((8,), 80), ((0, 0), 80), ((1,) * 600, 80)):
        assert not [line for line in show(_table(*counts), width) if "█" in line or "0 " in line[8:]]


@pytest.mark.parametrize(("name", "value"), [("LC_ALL", "C"), ("LC_ALL", "de_DE.ISO-8859-1"), ("TERM", "linux")])
def test_a_terminal_that_may_lack_blocks_gets_ascii_and_a_pipe_gets_blocks(
    name: str, value: str, show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert show(_table(8, 4), 19)[1:] == ["row0  8  ##########", "row1  4  #####"]
    assert "█" in show(_table(8, 4))[1]


@given(st.integers(1, 10**12).flatmap(lambda most: st.tuples(st.integers(0, most), st.just(most))), st.integers(1, 60))
def test_a_bar_is_as_long_as_its_share_rounded_up_to_an_eighth(numbers: tuple[int, int], width: int) -> None:
    value, most = numbers
    drawn = bar(value, most, width, io.StringIO())
    eighths = 8 * drawn.count("█") + (" ▏▎▍▌▋▊▉".index(drawn[-1]) if drawn[-1:] not in ("", "█") else 0)
    assert (eighths - 1) * most < value * width * 8 <= eighths * most
    assert len(drawn) <= width


def test_an_axis_is_as_wide_as_its_bars() -> None:
    assert axis("12", 10) == "0       12"
    assert axis("1,234,567,890", 10) == "0 to 1,234,567,890"


def test_hours_without_events_are_seen() -> None:
    groups = [EventGroup(f"2026-03-02T{hour:02}:00:00Z", 7) for hour in (1, 2, 4, 9)]
    rows = [(row.group[11:13], row.events, getattr(row, "text", None)) for row in with_hours_without(groups)]
    assert rows == [
        ("01", 7, None),
        ("02", 7, None),
        ("03", 0, None),
        ("04", 7, None),
        ("05", 0, "(4 hours without)"),
        ("09", 7, None),
    ]


def test_promise_9_folded_rows_are_named_and_elsewhere_whole(show) -> None:
    fold = Fold("nothing found by", lambda row: row["id"] if row["n"] == 0 else None)

    def table(*counts: int) -> Table:
        rows = [{"id": f"row{number}", "n": count} for number, count in enumerate(counts)]
        return Table("t", [Column("id"), Column("n")], iter(rows), fold=fold)

    assert show(table(3, 0, 0), 80) == [
        "id    n", "row0  3", "nothing found by: row1, row2 (a pipe or --format json shows all)"
    ]  # fmt: skip
    assert show(table(0, 0), 80) == ["nothing found by: row0, row1 (a pipe or --format json shows all)"]
    assert show(table(3, 0)) == ["id    n", "row0  3", "row1  0"]


def test_a_line_of_characters_shows_every_number_and_which_are_0() -> None:
    assert spark([0, 1, 50, 100], io.StringIO()) == "·▁▄█"
    assert spark([], io.StringIO()) == ""
    assert spark([0, 0], io.StringIO()) == "··"


def test_without_block_characters_a_line_is_of_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    assert spark([0, 1, 50, 100], Terminal()) == ".159"
