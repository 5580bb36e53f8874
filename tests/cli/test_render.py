"""What commands show: exact for programs, harmless and complete for people, streamed for both."""

from __future__ import annotations

import csv
import io
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.cli.document import Column, Document, Table
from pik.cli.output import Output
from pik.cli.text import cells
from pik.cli.values import Bucket, Count, EventId, Instant, Json, Lag, Moment, Shown
from pik.config import Format
from pik.errors import Damaged
from pik.model.instant import displayed_in
from pik.model.window import Window
from pik.model.zone import load_zone

HOUR = 3_600_000_000_000


@dataclass(frozen=True)
class Row:
    event_id: str
    at: int
    lag: int | None
    value: object
    payload: bytes = b"{}"


COLUMNS = [
    Column("event_id"),
    Column("at", Instant),
    Column("lag", Lag),
    Column("value"),
    Column("payload", Json, detail=True),
]
EVIL = "a|b\x1b[31m\u202e\x9b\r\n<b>"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def shown(document: Document, form: str, width: int = 0) -> str:
        stream = Terminal() if width else io.StringIO()
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setenv("COLUMNS", str(width or 80))
        monkeypatch.setenv("NO_COLOR", "1")
        Output(Format(form)).show(document)
        return stream.getvalue()

    return shown


Show = Callable[..., str]


def document(*rows: Row, **settings: Any) -> Document:
    table = Table("events", COLUMNS, iter(rows), empty="no events in the window")
    return Document(head={"window": Window(0, HOUR), "read": Count(12345), "none": None}, tables=[table], **settings)


ROW = Row("ab", 1_500_000_000, -1_500_000, Decimal("123456789012345678.123456"), b'{"n": 1e1}')


def test_json_is_one_object_with_exact_numbers(show: Show) -> None:
    seen: list[Row] = []

    def rows() -> Iterator[Row]:
        for row in (ROW, Row("cd", 0, None, 10**30)):
            seen.append(row)
            yield row

    text = show(
        Document(
            head={"window": Window(0, HOUR), "read": Count(12345), "took": Lag(1)},
            tables=[Table("events", COLUMNS, rows())],
            tail=lambda: {"events": len(seen)},
        ),
        "json",
    )
    assert text == (
        '{"window":{"from":"1970-01-01T00:00:00Z","to":"1970-01-01T01:00:00Z"},\n"read":12345,\n"took_ms":0.000001,\n'
        '"events":[\n'
        '{"event_id":"ab","at":"1970-01-01T00:00:01.500Z","lag_ms":-1.5,"value":123456789012345678.123456,'
        '"payload":{"n": 1e1}},\n'
        '{"event_id":"cd","at":"1970-01-01T00:00:00Z","lag_ms":null,"value":1000000000000000000000000000000,'
        '"payload":{}}\n'
        '],\n"events":2}\n'
    )


@pytest.mark.parametrize("form", list(Format))
def test_what_fails_before_its_first_row_leaves_no_half_of_an_answer(form: str, show: Show) -> None:
    def rows() -> Iterator[Row]:
        if ROW.event_id:
            raise Damaged("the segment is gone")
        yield ROW

    with pytest.raises(Damaged):
        show(Document(head={"read": Count(1)}, tables=[Table("events", COLUMNS, rows())]), form)
    assert isinstance(sys.stdout, io.StringIO)
    assert sys.stdout.getvalue() == ""


def test_other_formats_say_the_same(show: Show) -> None:
    assert json.loads(show(document(ROW), "jsonl"), parse_float=Decimal)["value"] == ROW.value
    header, row = csv.reader(io.StringIO(show(document(ROW), "csv"), newline=""))
    assert header == ["event_id", "at", "lag_ms", "value", "payload"]
    assert row == ["ab", "1970-01-01T00:00:01.500Z", "-1.5", "123456789012345678.123456", '{"n": 1e1}']
    assert show(document(ROW, tail={"next": "pik show ab"}), "md") == (
        "- **window**: [1970-01-01T00:00:00Z, 1970-01-01T01:00:00Z)\n- **read**: 12,345\n\n"
        "| event id | at | lag | value |\n| --- | --- | --: | --: |\n"
        "| ab | 1970-01-01T00:00:01.500Z | -1.5ms | 123456789012345678.123456 |\n\n- **next**: pik show ab\n"
    )
    assert show(document(ROW, tail={"next": "pik show ab"}), "table") == (
        "window  [1970-01-01T00:00:00Z, 1970-01-01T01:00:00Z)\nread    12,345\n\n"
        "event id  at                           lag                      value\n"
        "ab        1970-01-01T00:00:01.500Z  -1.5ms  123456789012345678.123456\n\n"
        "next  pik show ab\n"
    )


def test_nothing_found_is_shown_to_people_and_an_empty_list_to_programs(show: Show) -> None:
    assert show(document(), "table").endswith("\nno events in the window\n")
    assert show(document(), "md").endswith("\nno events in the window\n")
    assert json.loads(show(document(), "json"))["events"] == []
    assert show(document(), "jsonl") == ""
    assert show(document(), "csv") == "event_id,at,lag_ms,value,payload\r\n"


def test_fields_without_a_table(show: Show) -> None:
    fields = Document(
        head={"read": Count(1000), "lag": Lag(2_000_000), "reasons": {"x": 1}}, tail={"path": Path("a,b")}
    )
    assert json.loads(show(fields, "json")) == {"read": 1000, "lag_ms": 2, "reasons": {"x": 1}, "path": "a,b"}
    assert json.loads(show(fields, "jsonl")) == json.loads(show(fields, "json"))
    assert show(fields, "csv") == 'read,lag_ms,reasons,path\r\n1000,2,"{""x"":1}","a,b"\r\n'
    assert show(fields, "table") == "read     1,000\nlag      2ms\nreasons  x 1\n\npath  a,b\n"
    assert show(Document(), "json") == "{}\n"


def test_several_tables(show: Show, capsys: pytest.CaptureFixture[str]) -> None:
    def both() -> Document:
        return Document(tables=[Table("one", [Column("a")], [{"a": 1}]), Table("and_two", [Column("b")], [{"b": 2}])])

    assert json.loads(show(both(), "json")) == {"one": [{"a": 1}], "and_two": [{"b": 2}]}
    assert show(both(), "table") == "ONE\na\n1\n\nAND TWO\nb\n2\n"
    assert capsys.readouterr().err == ""
    assert show(both(), "csv") == "a\r\n1\r\n"
    assert capsys.readouterr().err == "csv has room for one only, not for and_two; --format json has all\n"


@pytest.mark.parametrize("form", ["table", "md"])
@pytest.mark.parametrize("width", [0, 40, 200])
def test_data_cannot_command_the_terminal(show: Show, form: str, width: int) -> None:
    text = show(
        Document(head={EVIL: EVIL, "many": [EVIL]}, tables=[Table("t", [Column("x")], [{"x": EVIL}])]), form, width
    )
    assert not set(text) & set("\x1b\x9b\r\u202e")
    assert "\\x1b" in text
    assert "\\u202e" in text


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_programs_get_data_as_it_is_but_a_terminal_does_not(show: Show, form: str) -> None:
    rows = [Row(EVIL, 0, 0, 0, b'"\xc2\x9b\xe2\x80\xae"')]
    piped, on_terminal = show(document(*rows), form), show(document(*rows), form, 200)
    assert "\x9b" in piped
    assert not set(on_terminal) & set("\x1b\x9b\u202e")
    if form == "jsonl":
        assert json.loads(piped) == json.loads(on_terminal)
        assert json.loads(piped)["event_id"] == EVIL
    if form == "csv":
        assert list(csv.reader(io.StringIO(piped, newline="")))[1][0] == EVIL


def test_a_markdown_cell_stays_a_cell_of_plain_text(show: Show) -> None:
    cell = "a|b `c` <img src=x> **d** [e](http://f) \\"
    text = show(Document(tables=[Table("t", [Column("x")], [{"x": cell}])]), "md").splitlines()[-1]
    assert text == "| a\\|b \\`c\\` \\<img src=x> \\*\\*d\\*\\* [e]\\(http\\://f) \\\\ |"


WIDE = Table(
    "t",
    [Column("id"), Column("text", wrap=True)],
    [{"id": "i" * 32, "text": "some words " * 9 + "some words"}, {"id": "j", "text": "x"}],
)


def test_free_text_is_broken_to_fit_the_terminal(show: Show) -> None:
    lines = show(Document(tables=[WIDE]), "table", 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("i" * 32 + "  some words some words")
    assert lines[2].startswith(" " * 34 + "some words")
    assert "".join("".join(line[34:] for line in lines[1:-1]).split()) == "somewords" * 10
    assert lines[-1] == "j" + " " * 33 + "x"


NOTE = "(a wider terminal, a pipe or --format json shows all)"
MANY = Table(
    "t",
    [Column("id"), Column("b", drop=1), Column("c"), Column("d", drop=3), Column("e", drop=2)],
    [{name: f"{name}{number}" + "x" * 8 for name in ("id", "b", "c", "d", "e")} for number in range(3)],
)


@pytest.mark.parametrize(
    ("width", "there", "left_out"),
    [
        (60, "id b c d e", ""),
        (57, "id b c e", "d"),
        (40, "id b c", "d, e"),
        (30, "id c", "b, d, e"),
        (20, "id", "b, c, d, e"),
        (5, "id", "b, c, d, e"),
    ],
)
def test_promise_9_columns_without_room_are_left_out_by_their_rank_and_named(
    show: Show, width: int, there: str, left_out: str
) -> None:
    text = show(Document(tables=[MANY]), "table", width)
    assert text.splitlines()[0].split() == there.split()
    if width > 5:
        assert text.splitlines()[3].split() == [f"{name}2" + "x" * 8 for name in there.split()]
    note = "".join(text.splitlines()[4:])
    assert note.replace(" ", "") == (f"noroomfor:{left_out}{NOTE}".replace(" ", "") if left_out else "")
    assert show(Document(tables=[MANY]), "table").splitlines()[0].split() == ["id", "b", "c", "d", "e"]


def test_a_table_is_never_a_field_a_line(show: Show) -> None:
    for width in range(1, 120):
        lines = show(Document(tables=[WIDE]), "table", width).splitlines()
        assert lines[0].split()[0] == "id"
        assert not [line for line in lines if line.startswith("text ") and "some" in line]


@pytest.mark.parametrize("width", [0, 200])
def test_on_a_terminal_what_all_rows_share_is_shown_once(show: Show, width: int) -> None:
    rows = [{"id": number, "kind": "exact", "reason": None, "n": number % 2} for number in range(3)]
    table = Document(tables=[Table("t", [Column("id"), Column("kind"), Column("reason"), Column("n")], rows)])
    expected = "same in all rows: kind exact, reason -\nid  n\n 0  0\n 1  1\n 2  0\n"
    piped = "id  kind   reason  n\n 0  exact  -       0\n 1  exact  -       1\n 2  exact  -       0\n"
    assert show(table, "table", width) == (expected if width else piped)
    assert "| exact |" in show(table, "md", width)
    alone = Document(tables=[Table("t", [Column("id"), Column("kind")], rows[:1])])
    assert show(alone, "table", width) == "id  kind\n 0  exact\n"
    equal = Document(tables=[Table("t", [Column("kind"), Column("reason")], rows)])
    assert show(equal, "table", 200) == "same in all rows: reason -\nkind\nexact\nexact\nexact\n"


def test_what_only_the_first_rows_share_is_not_shown_for_all(show: Show) -> None:
    rows = [{"id": number, "kind": "exact"} for number in range(600)] + [{"id": 600, "kind": "conflict"}]
    text = show(Document(tables=[Table("t", [Column("id"), Column("kind")], rows)]), "table", 80)
    assert "same in all rows" not in text
    assert text.splitlines()[-1].split() == ["600", "conflict"]


def test_ids_buckets_and_clocks_are_short_on_a_terminal_only(show: Show) -> None:
    day, columns = 24 * HOUR, [Column("event_id", EventId), Column("bucket", Bucket), Column("at", Moment)]

    def cells_of(buckets: list[int], width: int, form: str = "table") -> list[list[str]]:
        rows = [{"event_id": f"{n:02x}" * 16, "bucket": one, "at": n * 1_500_000_001} for n, one in enumerate(buckets)]
        return [line.split() for line in show(Document(tables=[Table("t", columns, rows)]), form, width).splitlines()]

    assert cells_of([day, 2 * day], 100)[2] == ["01" * 8, "1970-01-03", "1970-01-01T00:00:01Z"]
    assert [row[1] for row in cells_of([day, 2 * day + HOUR], 100)[1:]] == ["1970-01-02T00:00Z", "1970-01-03T01:00Z"]
    with displayed_in(load_zone("Europe/Berlin")):
        assert cells_of([day, 2 * day], 100)[2] == ["01" * 8, "1970-01-03T01:00+01:00", "1970-01-01T01:00:01+01:00"]
        long = "1970-01-01T01:00:01.500000001+01:00"
        assert cells_of([day, 2 * day], 0)[2][1:] == ["1970-01-03T01:00:00+01:00", long]
    whole = ["01" * 16, "1970-01-03T00:00:00Z", "1970-01-01T00:00:01.500000001Z"]
    assert cells_of([day, 2 * day], 0)[2] == whole
    assert [word for word in cells_of([day, 2 * day], 0, "md")[3] if word != "|"] == whole
    assert json.loads(
        show(Document(tables=[Table("t", columns, [{"event_id": "a" * 32, "bucket": day, "at": 1}])]), "json", 100)
    ) == {"t": [{"event_id": "a" * 32, "bucket": "1970-01-02T00:00:00Z", "at": "1970-01-01T00:00:00.000000001Z"}]}


def test_ids_that_begin_alike_are_not_one_value(show: Show) -> None:
    rows = [{"event_id": "0" * 31 + last, "n": 1} for last in "12"]
    text = show(Document(tables=[Table("t", [Column("event_id", EventId), Column("n")], rows)]), "table", 80)
    assert text == f"same in all rows: n 1\nevent id\n{'0' * 16}\n{'0' * 16}\n"


def test_a_bucket_after_those_that_were_measured_is_never_shortened_to_another_one(show: Show) -> None:
    rows = [{"bucket": 24 * HOUR * number} for number in range(600)] + [{"bucket": HOUR}]
    text = show(Document(tables=[Table("t", [Column("bucket", Bucket)], rows)]), "table", 80)
    assert text.splitlines()[-1] == "1970-01-01T01:00Z"


LONG = {"id": "i" * 32, "why": "because " * 5 + "because!", "line": "日" * 60}
OTHER = {"id": "j" * 32, "why": "why", "line": "short"}
CUT = Table("rows", [Column("id"), Column("why", cut=30), Column("line", cut=20)], [LONG, OTHER])


def test_text_that_may_be_cut_keeps_a_row_on_one_line(show: Show) -> None:
    for width, why, line in (
        (204, "because " * 5 + "because!", "日" * 60),
        (114, "because " * 5 + "because!", "日" * 14 + "…"),
        (98, "because " * 5 + "b…", "日" * 9 + "…"),
        (86, "because " * 3 + "becau…", "日" * 9 + "…"),
    ):
        lines = show(Document(tables=[CUT]), "table", width).splitlines()
        assert lines[1].split() == ["i" * 32, *why.split(), line]
        assert lines[2].endswith("short")
        cut = [name for name, text in (("why", why), ("line", line)) if text.endswith("…")]
        said = f"cut: {', '.join(cut)} (a wider terminal, a pipe or --format json shows all)"
        assert lines[3:] == ([said] if cut else [])
        assert max(map(cells, lines)) <= width
    assert "日" * 60 in show(Document(tables=[CUT]), "table")
    assert json.loads(show(Document(tables=[CUT]), "json"))["rows"][0] == LONG


def test_another_text_for_people_than_for_programs(show: Show) -> None:
    rows = [{"id": 1, "changes": Shown([1, 2], "a: 1\nb\x1b: 2"), "n": 7}]
    table = Document(tables=[Table("rows", [Column("id"), Column("changes"), Column("n")], rows)])
    assert show(table, "table") == "id  changes   n\n 1  a: 1      7\n    b\\x1b: 2\n"
    assert json.loads(show(table, "json"))["rows"] == [{"id": 1, "changes": [1, 2], "n": 7}]
    assert "| a: 1<br>b\\\\x1b: 2 |" in show(table, "md")
    fields = Document(head={"aggregates": Shown(None, "not checked")})
    assert show(fields, "table") == "aggregates  not checked\n"
    assert json.loads(show(fields, "json")) == {"aggregates": None}


def test_fields_are_broken_between_words_and_commands_are_not(show: Show) -> None:
    batch = {"batch_id": "B" * 26, "source": "a file.jsonl", "state": "COMPLETE"}
    fields = Document(head={"last": batch, "next": "pik replay --all --from 2026-01-01 --to 2026-01-02 --reason x"})
    for width in range(45, 80):
        lines = show(fields, "table", width).splitlines()
        assert any(line.split()[-1] == "COMPLETE" for line in lines[:-1])
        assert all(len(line) <= width for line in lines[:-1])
        assert all(line.startswith("      ") for line in lines[1:-1])
        assert lines[-1].endswith("--reason x")


def test_several_values_of_a_field_are_broken_each_by_itself(show: Show) -> None:
    told = ["one thing that is wrong with it", "another one, and it is wrong as well"]
    fields = Document(head={"unhealthy": Shown(told, "\n".join(told))})
    lines = show(fields, "table", 45).splitlines()
    assert all(line.startswith("           ") for line in lines[1:])
    assert " ".join(line[11:] for line in lines) == " ".join(told)


def test_a_pipe_has_no_width(show: Show) -> None:
    assert len(show(Document(tables=[WIDE]), "table").splitlines()) == 3


class _Nowhere(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


@pytest.mark.parametrize("form", list(Format))
def test_promise_8_rows_are_streamed(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Memory is bounded: a hundred times the rows take no more of it."""

    def rows(number: int) -> Iterator[Row]:
        for n in range(number):
            yield Row(f"{n:064d}", n, n, n)

    def peak(number: int) -> int:
        tracemalloc.start()
        Output(Format(form)).show(Document(tables=[Table("events", COLUMNS, rows(number))]))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    monkeypatch.setattr("sys.stdout", _Nowhere())
    peak(10)
    assert peak(8_000) < 1.5 * peak(1_000) + 200_000


def test_rows_after_those_that_were_measured_are_shown_whole(show: Show) -> None:
    rows = [{"x": "short"}] * 600 + [{"x": "much longer than any before"}]
    assert show(Document(tables=[Table("t", [Column("x")], rows)]), "table", 80).splitlines()[-1] == rows[-1]["x"]


def test_columns_are_as_wide_as_what_they_hold(show: Show) -> None:
    rows = [{"a": "日本", "b": "x"}, {"a": "e\u0301", "b": "x"}]
    lines = show(Document(tables=[Table("t", [Column("a"), Column("b")], rows)]), "table").splitlines()
    assert lines == ["a     b", "日本  x", "e\u0301     x"]
