"""Tables with backslash escapes, or without quotes, are read as the databases meant that wrote them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import Invalid, UsageError
from pik.inputs import csv_rows
from pik.inputs.blocks import Block
from pik.inputs.mapping import RecordMapping
from pik.inputs.source import file_source
from pik.model.layout import AUTO, Layout, read_layout

LIMIT = 1 << 20
COLUMNS = ("id", "note", "at")


def layout(delimiter: str = "\t", columns: tuple[str, ...] = COLUMNS, **given: str) -> Layout:
    named = {"columns": ",".join(columns)} if columns else {}
    return read_layout({"input": "csv", "delimiter": delimiter, **named, **given})


UNQUOTED, ENCLOSED = layout(quote="none", escape="\\"), layout(",", quote='"', escape="\\")


def read(data: bytes, how: Layout, *, max_line: int = LIMIT) -> list[Block]:
    return list(csv_rows.blocks(io.BytesIO(data), "t", how, max_line=max_line))


def records(blocks: list[Block]) -> list[object]:
    """The records in order; a problem is its reason, a blank row None."""
    found: list[object] = []
    for block in blocks:
        for seq, line in enumerate(block.data.removesuffix(b"\n").split(b"\n"), block.first_seq):
            found.append(block.problems[seq].reason if seq in block.problems else json.loads(line) if line else None)
    return found


def notes(data: bytes, how: Layout) -> list[object]:
    """The column in the middle; "missing" where it is."""
    return [one.get("note", "missing") if isinstance(one, dict) else one for one in records(read(data, how))]


def test_copy_text_of_postgresql_is_read_as_it_was_in_the_table() -> None:
    """What PostgreSQL 15 wrote of these values."""
    rows = [
        (rb"tab\there", "tab\there"),
        (rb"line\nbreak", "line\nbreak"),
        (rb"back\\slash \\n \\N", r"back\slash \n \N"),
        (rb"\N", "missing"),
        (b'"quoted"', '"quoted"'),
        (b'"open', '"open'),
        (rb"\b\f\r\v|", "\b\f\r\v|"),
        (b"", ""),
        (rb"\\N", r"\N"),
        (rb"\\.", r"\."),
        (rb"ends \\", "ends \\"),
    ]
    data = b"".join(b"%d\t%s\t2026-03-02\n" % (number, written) for number, (written, _) in enumerate(rows))
    assert notes(data, UNQUOTED) == [value for _, value in rows]
    assert records(read(b"1\tx\ty\n\\.\n", UNQUOTED)) == [{"id": "1", "note": "x", "at": "y"}, None]
    assert notes(b"1|a\\|b|c\n", layout("|", quote="none", escape="\\")) == ["a|b"]


def test_an_outfile_of_mysql_is_read_as_it_was_in_the_table() -> None:
    data = b'1\tone\\\ntwo\\\tthree\t4\n5\t\\N\t6\n7\tC:\\\\new "x"\t8\n9\tno\\0thing\r!\t10\n'
    assert notes(data, UNQUOTED) == ["one\ntwo\tthree", "missing", 'C:\\new "x"', "no\0thing\r!"]
    data = b'"1","say \\"hi\\", ok\\\ntwo, \\\\n",3\n4,\\N,"5"\n"6","",7\n"8","a ""b""",9\n'
    assert notes(data, ENCLOSED) == ['say "hi", ok\ntwo, \\n', "missing", "", 'a "b"']
    windows = b"1\ta\\\r\nb\tc\r\n2\td\te\r\n"
    assert records(read(windows, UNQUOTED))[0] == {"id": "1", "note": "a\r\nb", "at": "c"}


def test_rows_of_mysql_batch_have_quotes_that_are_characters() -> None:
    data = b'1\t"quoted"\tx\n2\t"open\tx\n3\ta\\nb\\\\c\\td\tx\n4\tNULL\tx\n'
    given = layout(quote="none", escape="\\", null="NULL")
    assert notes(data, given) == ['"quoted"', '"open', "a\nb\\c\td", "missing"]
    raw = b'1\t"quoted"\tx\n2\t"open\tx\n3\ta\\nb\tC:\\x\n'
    assert notes(raw, layout(quote="none")) == ['"quoted"', '"open', "a\\nb"]


def test_unload_of_redshift_and_snowflake_is_read_as_it_was_in_the_table() -> None:
    data = b"1|a\\|b|c\n2|one\\\ntwo\\\r\\\nthree|d\\\\\n3|it's|e\\\nf\n"
    assert records(read(data, layout("|", quote="none", escape="\\"))) == [
        {"id": "1", "note": "a|b", "at": "c"},
        {"id": "2", "note": "one\ntwo\r\nthree", "at": "d\\"},
        {"id": "3", "note": "it's", "at": "e\nf"},
    ]
    quoted = b'"1"|"say \\"hi\\" it\\\'s|"|"a\\\nb"\n'
    assert records(read(quoted, layout("|", escape="\\"))) == [{"id": "1", "note": 'say "hi" it\'s|', "at": "a\nb"}]


def test_a_row_that_no_database_writes_is_a_problem_of_its_own() -> None:
    last = {"id": "9", "note": "z", "at": "z"}
    for row, reason in (
        (b"1\t\\q\tx\n", r"the row is not CSV: \q is not an escape that is known (line 1)"),
        (b"1\t\\x41\tx\n", r"the row is not CSV: \x is not an escape that is known (line 1)"),
        (b"1\ta\\N\tx\n", r"the row is not CSV: \N is only a part of a cell (line 1)"),
        (b"1\ta\\\nb\n", "the row has 2 cells, the header 3 (line 1)"),
    ):
        assert records(read(row + b"9\tz\tz\n", UNQUOTED)) == [reason, last]
    other_end = r"the row is not CSV: the line ends in '\r\n', the first one in '\n' (line 2)"
    assert records(read(b"9\tz\tz\n1\ta\tb\r\n", UNQUOTED)) == [last, other_end]
    assert notes(b"1\ta\tb\\", UNQUOTED) == ["the row is not CSV: the input ends after an escape (line 1)"]
    for row, reason in (
        (b'1,"C:\\new",x\n', r"\n is not an escape that is known"),
        (b"1,a\\tb,x\n", r"\t is not an escape that is known"),
        (b'1,"\\N",x\n', r"\N is only a part of a cell"),
        (b'1,"a"b,x\n', "text follows a quoted cell"),
    ):
        assert notes(row, ENCLOSED) == [f"the row is not CSV: {reason} (line 1)"]
    unclosed = "a quoted cell does not end before the input does (line 1)"
    assert notes(b'1,"open,x\n2,y,z\n', ENCLOSED) == [unclosed, "y"]
    long = b"1\t" + b"x\\\n" * 40 + b"\ty\n"
    assert notes(long, UNQUOTED)[0] == "x\n" * 40
    cut = records(read(long + b"9\tz\tz\n8\t\\q\tz\n", UNQUOTED, max_line=60))
    assert cut[:2] == ["the row is longer than 60 bytes (line 1)", last]
    assert cut[2] == r"the row is not CSV: \q is not an escape that is known (line 43)"


def postgresql(cell: str | None) -> str:
    special = {"\\": r"\\", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
    return r"\N" if cell is None else "".join(special.get(one, one) for one in cell)


def mysql(cell: str | None) -> str:
    return r"\N" if cell is None else re.sub(r"[\\\t\n]", r"\\\g<0>", cell).replace("\0", r"\0")


def enclosed(cell: str | None) -> str:
    return r"\N" if cell is None else '"' + re.sub(r'[\\"\n]', r"\\\g<0>", cell).replace("\0", r"\0") + '"'


cells = st.none() | st.text(
    st.sampled_from('\\\\\t\n\r",N0nt.x é\0\v') | st.characters(exclude_categories=["Cs"]), max_size=8
)


@settings(max_examples=100)
@given(st.lists(st.tuples(cells, cells, st.just("end")), max_size=8), st.integers(1, 3),
       st.sampled_from([(postgresql, "\t"), (mysql, "\t"), (enclosed, ",")]), st.booleans())  # fmt: skip
def test_every_value_comes_back_at_any_border_of_blocks_and_after_any_crash(
    rows: list[tuple[str | None, ...]], lines: int, producer: tuple[Callable[[str | None], str], str], header: bool
) -> None:
    write, delimiter = producer
    how = layout(delimiter, () if header else COLUMNS, escape="\\", **({} if write is enclosed else {"quote": "none"}))
    text = "".join(delimiter.join(map(write, row)) + "\n" for row in ([COLUMNS] if header else []) + rows)
    data = text.encode()
    expected = [{n: cell for n, cell in zip(COLUMNS, row, strict=True) if cell is not None} for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_rows, "LINES", lines)
        blocks = read(data, how)
        assert records(blocks) == expected
        for number, block in enumerate(blocks, 1):
            start = {"first_seq": block.last_seq + 1, "offset": block.offset}
            assert list(csv_rows.blocks(io.BytesIO(data), "t", how, max_line=LIMIT, **start)) == blocks[number:]


def test_a_cell_that_may_be_cut_is_not_accepted_unless_an_option_says_how_it_is_read() -> None:
    cut = b"1,a,one\\\ntwo\n2,b,c\\\\\n"
    plain, none = layout(","), layout(",", escape="none")
    reason = r"a line ends in a backslash: --escape '\' reads it as an escape, --escape none as a character (line 1)"
    assert records(read(cut, plain))[0] == reason
    assert records(read(cut, none))[0] == {"id": "1", "note": "a", "at": "one\\"}
    assert records(read(cut, layout(",", escape="\\")))[0] == {"id": "1", "note": "a", "at": "one\ntwo"}
    assert records(read(cut, plain))[2] == {"id": "2", "note": "b", "at": "c\\\\"}
    assert records(read(b'1,"a\\\nb",c\n', plain)) == [reason]
    assert r"the header 3; --escape '\' reads it as an escape" in str(records(read(b"1,a\\,b,c\n", plain))[0])
    lost = b'1\t"open\tx\n2\tshut"\tx\n'
    how = read_layout({"input": "tsv", "columns": "id,note,at"})
    assert "--quote none reads them so, --quote '\"' as one row" in str(records(read(lost, how))[0])
    assert notes(lost, layout(quote="none")) == ['"open', 'shut"']
    assert notes(lost, layout(quote='"')) == ["open\tx\n2\tshut"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("id\tnote\tat\n1\t\\N\tx\n2\tb\ty\n", r"--quote none --escape '\'"),
        ("id\tnote\tat\n1\ta\\nb \\\\\tx\n2\tb\ty\n", r"--quote none --escape '\'"),
        ("id,note,at\n1,a\\\nb,x\n2,b,y\n", r"--quote none --escape '\'"),
        ('id,note,at\n"1","a \\"b\\", c","x"\n"2","b","y"\n', r"--escape '\'"),
        ('id\tnote\tat\n1\t"a" b\tx\n2\t"c"\ty\n', "--quote none"),
        ('id\tnote\tat\n1\t"a"\tx\n2\t"""c"" d"\ty\n', ""),
        ('id,note,at\n1,C:\\new,x\n2,"b, c",\\N\n', ""),
        ('id\tnote\tat\n1\t"{""p"": ""C:\\\\n""}"\tx\n2\t"{}"\ty\n', ""),
    ],
)
def test_what_the_first_rows_show_is_named_and_nothing_is_read_before_it_is_said(
    tmp_path: Path, text: str, options: str
) -> None:
    *_, last, _ = text.split("\n")
    (tmp_path / "t.txt").write_text(text + f"{last}\n" * 3)
    fields = {
        "source": "'s'",
        "event_type": "'t'",
        "entity_id": "id",
        "event_time": "'2026-01-01T00:00:00Z'",
        "payload": "@",
    }
    with file_source(str(tmp_path / "t.txt")).open() as opened:
        found = opened.recognize(AUTO, mapped=True)
        shown = opened.with_dialect(found)
        assert str(Layout(quote=shown.quote, escape=shown.escape)) == options
        if not options:
            opened.expect_fields(found, RecordMapping(fields))
            return
        with pytest.raises(UsageError) as error:
            opened.expect_fields(found, RecordMapping(fields))
        assert options in error.value.hint
        opened.expect_fields(shown, RecordMapping(fields))


def test_options_that_mean_nothing_are_refused() -> None:
    for options, message in (
        ({"quote": "'"}, 'quote "\'": unknown'),
        ({"escape": "x"}, "escape 'x': unknown"),
        ({"input": "json", "escape": "\\"}, "escape is for tables, not for json"),
        ({"delimiter": "n", "escape": "\\"}, "delimiter 'n' does not go with an escape"),
    ):
        with pytest.raises(Invalid, match=re.escape(message)):
            read_layout(options)
    assert str(UNQUOTED).endswith(r"""--columns id,note,at --quote none --escape '\'""")
