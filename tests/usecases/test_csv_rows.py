"""Rows of CSV and TSV become records with the texts that stand in them, at any size of a block and after any crash."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import InputError, Invalid, UsageError
from pik.inputs import csv_rows
from pik.inputs.blocks import Block
from pik.inputs.mapping import RecordMapping
from pik.inputs.source import file_source
from pik.model.layout import AUTO, InputFormat, Layout, read_layout

CSV = Layout(InputFormat.CSV)
LIMIT = 1 << 20


def read(data: bytes, layout: Layout = CSV, *, max_line: int = LIMIT) -> list[Block]:
    return list(csv_rows.blocks(io.BytesIO(data), "t.csv", layout, max_line=max_line))


def records(blocks: Sequence[Block]) -> list[object]:
    """The records in order; a problem is its reason and its text, a blank row is None."""
    found: list[object] = []
    for block in blocks:
        for seq, line in enumerate(block.data.removesuffix(b"\n").split(b"\n"), block.first_seq):
            problem = block.problems.get(seq)
            found.append((problem.reason, problem.record.decode()) if problem else json.loads(line) if line else None)
        assert block.last_seq == block.first_seq + block.data.count(b"\n") - 1
    return found


cells = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)


@settings(max_examples=60)
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), max_size=8)),
       st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 3))  # fmt: skip
def test_every_cell_is_the_text_that_stands_there_and_a_crash_changes_nothing(
    rows: list[list[str]], delimiter: str, end: str, bom: bool, lines: int
) -> None:
    header = [f"column {number}" for number in range(len(rows[0]) if rows else 1)]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([header, *rows])
    data = (b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode()
    layout = Layout(InputFormat.CSV, delimiter=delimiter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_rows, "LINES", lines)
        blocks = read(data, layout)
        assert records(blocks) == [dict(zip(header, row, strict=True)) for row in rows]
        for number, block in enumerate(blocks, 1):
            start = {"first_seq": block.last_seq + 1, "offset": block.offset}
            resumed = csv_rows.blocks(io.BytesIO(data), "t.csv", layout, max_line=LIMIT, **start)
            assert list(resumed) == blocks[number:]


MIXED = b'a,b\n1,2\n3\n\n4,"x\ny",5\n6,"7"8\n9,\xff\n10,"11\r\n12"\n13,"14\n15,16\n'


def test_a_row_that_is_not_like_the_header_is_kept_with_its_reason_its_line_and_its_text() -> None:
    assert records(read(MIXED.replace(b"\xff", b"8"))) == [
        {"a": "1", "b": "2"},
        ("the row has 1 cell, the header 2 (line 3)", "3"),
        None,
        ("the row has 3 cells, the header 2 (line 5)", '4,"x\ny",5'),
        ("the row is not CSV: text follows a quoted cell (line 7)", '6,"7"8'),
        {"a": "9", "b": "8"},
        {"a": "10", "b": "11\r\n12"},
        ("a quoted cell does not end before the input does (line 11)", '13,"14'),
        {"a": "15", "b": "16"},
    ]
    assert [problem.record for block in read(MIXED) for problem in block.problems.values()][3] == b"9,\xff"


def test_a_row_of_delimiters_alone_is_blank_and_one_of_quoted_empty_cells_is_not() -> None:
    data = b'a;b;c\r\n1;2;3\r\n;;\r\n"";;\r\n;\r\n4;;\r\n;;;'
    four, empty = {"a": "4", "b": "", "c": ""}, {"a": "", "b": "", "c": ""}
    layout = Layout(InputFormat.CSV, delimiter=";")
    assert records(read(data, layout)) == [{"a": "1", "b": "2", "c": "3"}, None, empty, None, four, None]
    assert records(read(b'a\n""\n')) == [{"a": ""}]


def test_a_quote_that_is_never_closed_takes_its_own_line_and_no_more() -> None:
    rows = "".join(f"{number},x\n" for number in range(40))
    data = f'a,b\n0,"open\n{rows}'.encode()
    problem, *others = records(read(data, max_line=60))
    assert problem == ("a quoted cell does not end within 60 bytes (line 2)", '0,"open')
    assert others == [{"a": str(number), "b": "x"} for number in range(40)]
    long, after = records(read(b"a,b\n1," + b"y" * 500 + b"\n2,z\n", max_line=60))
    assert long == ("the line is longer than 60 bytes (line 2)", "1," + "y" * 59)
    assert after == {"a": "2", "b": "z"}


def test_a_carriage_return_alone_does_not_end_a_row_and_the_reason_says_so() -> None:
    returned = "the row has a carriage return without a line feed, outside of quotes (line 2)"
    assert records(read(b'a,b\n1,x\ry\n2,"x\ry"\n3,"x\r"y\n')) == [
        (returned, "1,x\ry"),
        {"a": "2", "b": "x\ry"},
        ("the row is not CSV: text follows a quoted cell (line 4)", '3,"x\r"y'),
    ]
    with pytest.raises(InputError, match="the header is not a row of CSV: the row has a carriage return") as error:
        read(b"a,b\r1,2\r")
    assert error.value.hint == "tr '\\r' '\\n' < FILE | pik ingest -"


def test_a_quote_that_is_escaped_as_mysql_does_is_named() -> None:
    (problem,) = read(b'a,b\n1,"say \\"hi\\", ok"\n')[0].problems.values()
    assert problem.reason.endswith("; --escape '\\' reads it as an escape (line 2)")
    assert records(read(b"a,b\n2,C:\\x\n")) == [{"a": "2", "b": "C:\\x"}]


def test_a_cell_may_be_missing_and_columns_may_be_named() -> None:
    data = b"1,\n\\N,x\n"
    one, other = {"n": "1", "t": ""}, {"n": "\\N", "t": "x"}
    for null, found in ((None, [one, other]), ("", [{"n": "1"}, other]), ("\\N", [one, {"t": "x"}])):
        assert records(read(data, Layout(InputFormat.CSV, columns=("n", "t"), null=null))) == found


def test_a_header_that_names_two_columns_alike_is_refused() -> None:
    with pytest.raises(InputError, match="two columns have the same name, 'a'"):
        read(b"a,b,a\n1,2,3\n")
    assert read(b"") == read(b"a,b\n") == []


def test_columns_at_either_end_may_have_no_name_and_blank_rows_may_come_before_the_header() -> None:
    assert records(read(b",,,\n,a,,\n,1,2,\n")) == [{"": "", "a": "1", "_2": "2", "_3": ""}]


def test_a_mapping_of_other_columns_is_refused_where_there_is_no_row(tmp_path: Path) -> None:
    fields = {"source": "'s'", "event_type": "'t'", "entity_id": "who", "event_time": "at", "payload": "@"}
    for text, is_right in (
        ("at;who\n", True),
        ("at;whom\n", False),
        ('{"at": "' + "x" * 999 + '"}', False),
        ("", True),
    ):
        (tmp_path / "t.csv").write_text(text)
        with file_source(str(tmp_path / "t.csv")).open() as opened:
            layout = Layout(InputFormat.CSV, delimiter=";")
            if is_right:
                opened.expect_fields(layout, RecordMapping(fields))
            else:
                with pytest.raises(UsageError, match="have no field who") as error:
                    opened.expect_fields(layout, RecordMapping(fields))
                assert len(error.value.hint) < 250


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_names_of_columns_may_have_units_and_letters_of_another_encoding(tmp_path: Path, encoding: str) -> None:
    rows = "Übersicht;Betrag (€);Temp. [°C]\n" + "1;1.012,50;7\n" * 3
    (tmp_path / "t.csv").write_bytes(rows.encode(encoding))
    with file_source(str(tmp_path / "t.csv")).open() as opened:
        layout = opened.recognize(AUTO, mapped=True)
        assert layout == Layout(InputFormat.CSV, delimiter=";")
        if encoding == "utf-8":
            assert len(opened.sample(layout, 1 << 20)) == 3
        else:
            with pytest.raises(UsageError, match="is not UTF-8: line 1") as error:
                opened.sample(layout, 1 << 20)
            assert "--encoding cp1252" in error.value.hint


@pytest.mark.parametrize(
    ("encoding", "text", "other"),
    [
        ("cp1252", "größer, Zoë, 5 €", ""),
        ("cp1250", "Łódź", "cp1252 reads it as '1;£ódŸ'"),
        ("cp1251", "Дата операции", ""),
        ("koi8_r", "Дата операции", ""),
        ("cp1253", "Όνομα", ""),
        ("cp932", "注文の日時、カフェ", ""),
        ("cp932", "2026年3月9日", ""),
        ("gb18030", "支付宝交易记录明细查询", ""),
        ("euc_kr", "서울", "gb18030"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t"])
def test_the_encodings_that_a_text_may_be_in_are_named_with_what_it_is_in_each(
    tmp_path: Path, name: str, encoding: str, text: str, other: str
) -> None:
    (tmp_path / name).write_bytes(f"1;{text}\n2;{text}\n3;{text}\n".encode(encoding))
    with (
        file_source(str(tmp_path / name)).open() as opened,
        pytest.raises(UsageError, match="is not UTF-8: line 1") as error,
    ):
        opened.recognize(AUTO, mapped=True)
    assert f"--encoding {encoding} reads it as '1;{text}'" in error.value.hint
    assert f"--encoding {other}" in error.value.hint
    assert ("cp1252" in error.value.hint) == ("cp1252" in (encoding + other))


def test_compressed_data_without_its_beginning_is_not_a_text_in_some_encoding(tmp_path: Path) -> None:
    """As the second part of what `split` makes of an archive."""
    part = gzip.compress(b"".join(hashlib.sha256(b"%d" % number).hexdigest().encode() for number in range(200)))[999:]
    (tmp_path / "x.gz.ab").write_bytes(part.replace(b"\0", b""))
    with file_source(str(tmp_path / "x.gz.ab")).open() as opened, pytest.raises(UsageError) as error:
        opened.recognize(AUTO, mapped=True)
    assert error.value.message.endswith("is not text: line 1 is of no known encoding")
    assert "--encoding" not in error.value.hint


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "latin-1"])
def test_text_in_another_encoding_is_read_when_it_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes("id,name\n1,Zoë\n2,Ümit\n".encode(encoding))
    with file_source(str(tmp_path / "t.csv")).open() as opened:
        layout = opened.recognize(read_layout({"encoding": encoding}), mapped=True)
        assert layout == Layout(InputFormat.CSV, encoding=encoding)
        found = records(list(opened.blocks(layout, LIMIT)))
    assert found == [{"id": "1", "name": "Zoë"}, {"id": "2", "name": "Ümit"}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input": "xml"}, "input xml: unknown format"),
        ({"input": "jsonl", "null": ""}, "null is for tables, not for jsonl"),
        ({"delimiter": '"'}, "delimiter '\"': expected a character"),
        ({"delimiter": "ab"}, "delimiter 'ab': expected a character"),
        ({"input": "tsv", "delimiter": ","}, "delimiter ',' is not that of tsv"),
        ({"columns": "a,b,a"}, "columns: 'a' comes twice"),
        ({"encoding": "klingon"}, "encoding klingon: unknown encoding"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid) as error:
        read_layout(given)
    assert message in error.value.message
    assert read_layout({"input": "auto"}) == AUTO
