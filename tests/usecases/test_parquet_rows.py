"""Rows of Parquet become records with the exact values, at any size of a block and after any crash."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import InputError
from pik.inputs import blocks as limits
from pik.inputs import parquet_rows
from pik.inputs.blocks import Block
from pik.inputs.source import file_source
from pik.model.layout import AUTO, PARQUET

LIMIT = 1 << 20


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def read(data: bytes, **options: Any) -> list[Block]:
    return list(parquet_rows.blocks(io.BytesIO(data), "t.parquet", PARQUET, max_line=LIMIT, **options))


def records(blocks: list[Block]) -> list[Any]:
    """The records in order, numbers as Decimals; a problem is its reason and its text."""
    found: list[Any] = []
    for block in blocks:
        lines = block.data.removesuffix(b"\n").split(b"\n")
        assert block.last_seq == block.first_seq + len(lines) - 1
        for seq, line in enumerate(lines, block.first_seq):
            problem = block.problems.get(seq)
            value = json.loads(line, parse_float=Decimal, parse_int=Decimal) if problem is None else problem
            found.append(value)
    return found


def plain(value: Any) -> Any:
    """The value as JSON has it, by Python alone."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float | Decimal):
        return Decimal(str(value))
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, datetime):
        text = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return f"{text.isoformat(timespec='microseconds')}000" + "Z" * (value.tzinfo is not None)
    if isinstance(value, time):
        return f"{value.isoformat(timespec='microseconds')}000"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value]


TEXT = st.text(max_size=6) | st.text('"\\\n\x01é', max_size=3)
MICROS = st.datetimes(datetime.fromisoformat("0001-01-02"), datetime.fromisoformat("9999-12-30"))
COLUMNS: dict[str, tuple[pa.DataType, Any]] = {
    "text": (pa.string(), TEXT),
    "large": (pa.large_string(), TEXT),
    "word": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["x", 'y"'])),
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "unsigned": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "decimal": (pa.decimal128(38, 9), st.decimals(-(10**20), 10**20, places=9)),
    "wide": (pa.decimal256(60, 30), st.decimals(-(10**20), 10**20, places=30)),
    "bool": (pa.bool_(), st.booleans()),
    "bytes": (pa.binary(), st.binary(max_size=5)),
    "day": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "local": (pa.timestamp("us"), MICROS),
    "instant": (pa.timestamp("us", "Europe/Berlin"), MICROS.map(lambda at: at.replace(tzinfo=UTC))),
    "nothing": (pa.null(), st.none()),
    "list": (pa.list_(pa.decimal128(10, 2)), st.lists(st.none() | st.decimals(-10, 10, places=2), max_size=3)),
    "pair": (pa.list_(pa.int8(), 2), st.lists(st.integers(0, 9), min_size=2, max_size=2)),
    "map": (pa.map_(pa.string(), pa.float64()), st.dictionaries(TEXT, st.integers(0, 9), max_size=3)),
    "numbered": (pa.map_(pa.int32(), pa.string()), st.dictionaries(st.integers(0, 9), TEXT, max_size=3)),
    "struct": (
        pa.struct({"a": pa.struct({"b": pa.list_(pa.struct({"c": pa.string()}))}), 'd"': pa.int32()}),
        st.fixed_dictionaries({
            "a": st.none() | st.fixed_dictionaries({
                "b": st.none() | st.lists(st.none() | st.fixed_dictionaries({"c": st.none() | TEXT}), max_size=2)}),
            'd"': st.none() | st.integers(0, 9),
        }),
    ),
}  # fmt: skip


@settings(max_examples=40)
@given(st.data(), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_every_value_is_exact_and_a_crash_changes_nothing(
    data: st.DataObject, group: int, most: int, at_once: int, dictionary: bool
) -> None:
    names = data.draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5, unique=True))
    rows = data.draw(st.lists(st.fixed_dictionaries({n: st.none() | COLUMNS[n][1] for n in names}), max_size=8))
    listed = {n: [list(v.items()) if isinstance(v := row[n], dict) and n != "struct" else v for row in rows]
              for n in names}  # fmt: skip
    table = pa.table({name: pa.array(listed[name], COLUMNS[name][0]) for name in names})
    raw = parquet(table, row_group_size=group, use_dictionary=dictionary)
    expected = [{name: plain(row[name]) for name in names} for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "LINES", most)
        patch.setattr(parquet_rows, "ROWS", at_once)
        patch.setattr(limits, "BLOCK", 40)
        blocks = read(raw)
        assert records(blocks) == expected
        assert all(block.last_seq - block.first_seq < most and not block.problems for block in blocks)
    for number, block in enumerate(blocks, 1):  # with blocks of another size than those before the crash
        rest = read(raw, first_seq=block.last_seq + 1, offset=block.offset)
        assert records(rest) == records(blocks[number:])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_unit_have_nine_digits(unit: str) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    count = -5 * per_second - 1
    clock = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    table = pa.table({
        "t": pa.array([count], pa.timestamp(unit)),
        "u": pa.array([count], pa.timestamp(unit, "Asia/Tokyo")),
        "v": pa.array([3601 * per_second - 1], clock),
    })  # fmt: skip
    (row,) = records(read(parquet(table)))
    whole, part = divmod(count * (10**9 // per_second), 10**9)
    text = f"{(datetime.fromisoformat('1970-01-01') + timedelta(seconds=whole)).isoformat()}.{part:09}"
    assert (row["t"], row["u"]) == (text, text + "Z")
    assert row["v"] == f"01:00:00.{(per_second - 1) * 10**9 // per_second:09}"


def test_what_json_cannot_say_is_a_reject_with_its_reason_and_the_row() -> None:
    table = pa.table({
        "n": pa.array([1, 2, 3, 4, 5], pa.int8()),
        "f": [1.5, float("nan"), None, 2.5, 3.5],
        "l": [[{"x": 1.0}], [], [{"x": 1.0}, {"x": float("-inf")}], None, []],
        "t": pa.array([0, 1, 2, 10**15, 4], pa.timestamp("s")),
        "b": pa.array([b"ok", b"ok", b"ok", b"ok", b"\xff"]).view(pa.string()),
    })  # fmt: skip
    one, *others = records(read(parquet(table)))
    assert one == {"n": 1, "f": Decimal("1.5"), "l": [{"x": 1}], "t": "1970-01-01T00:00:00.000000000", "b": "ok"}
    assert [problem.reason for problem in others] == [
        "column f has NaN, which JSON does not",
        "column l has -Infinity, which JSON does not",
        "column t has a time before the year 1, after 9999, or that nanoseconds do not reach",
        "column b is not valid UTF-8",
    ]
    assert others[0].record.startswith(b'{"n":2,"f":NaN,"l":[],')
    assert [json.loads(problem.record.partition(b',"f"')[0] + b"}")["n"] for problem in others] == [2, 3, 4, 5]


@pytest.mark.parametrize("missing", [(), (None,)])
def test_old_timestamps_are_read_though_nanoseconds_of_64_bits_do_not_reach_them(missing: tuple[None, ...]) -> None:
    """9999-12-31 is how tables say that a row is valid for ever; as wrapped nanoseconds it would be 1816-03-29."""
    written = ("2026-01-31T10:00:00.123456", "9999-12-31T23:59:59.999999", "0001-01-01T00:00:00.000000")
    table = pa.table({"t": pa.array([*map(datetime.fromisoformat, written), *missing], pa.timestamp("us"))})
    found = records(read(parquet(table, use_deprecated_int96_timestamps=True)))
    assert found == [*({"t": f"{time}000"} for time in written), *({"t": None} for _ in missing)]
    nanos = pa.table({"t": pa.array([1, 2**62 + 1], pa.timestamp("ns"))})
    assert [one["t"][-9:] for one in records(read(parquet(nanos, use_deprecated_int96_timestamps=True)))] == [
        "000000001",
        "427387905",
    ]


def test_other_types_and_files_are_refused_or_read_as_they_are() -> None:
    number = UUID("12345678-1234-5678-1234-567812345678")
    storage = pa.array([number.bytes, None], pa.binary(16))
    table = pa.table({"u": pa.ExtensionArray.from_storage(pa.uuid(), storage)})
    assert records(read(parquet(table))) in ([{"u": str(number)}, {"u": None}],
                                             [{"u": b64encode(number.bytes).decode()}, {"u": None}])  # fmt: skip
    for bad, message in (
        (pa.table({"d": pa.array([1], pa.duration("s"))}), "column d is duration"),
        (pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), "two columns have the same name, 'a'"),
        (pa.table({}), "t.parquet has no columns"),
    ):
        with pytest.raises(InputError, match=message):
            read(parquet(bad))
    good = parquet(pa.table({"a": ["x" * 100] * 100}), compression="none", use_dictionary=False)
    for data in (b"PAR1", good[:-1], b"PAR1" + b"\0" * 50 + b"PAR1"):
        with pytest.raises(InputError, match=r"cannot be read as Parquet: (it begins|the list of its columns)"):
            read(data)
    flipped = parquet(pa.table({"a": list(range(5000))}), compression="snappy", use_dictionary=False)
    with pytest.raises(InputError, match=r"^t\.parquet, after row 0: the rows that follow are damaged$"):
        read(flipped[:60] + b"\xff" * 200 + flipped[260:])
    assert read(parquet(pa.table({"a": pa.array([], pa.int8())}))) == []


def test_promise_8_texts_that_are_short_in_the_file_because_they_repeat_make_no_large_block() -> None:
    words = pa.array([letter * 1000 for letter in "abc"])
    repeated = pa.DictionaryArray.from_arrays(pa.array([number % 3 for number in range(2000)], pa.int32()), words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK", 50_000)
        blocks = read(parquet(pa.table({"a": repeated})))
    assert max(len(block.data) for block in blocks) < 150_000
    assert [row["a"][0] for row in records(blocks)] == ["abc"[number % 3] for number in range(2000)]


def test_a_file_is_recognized_by_its_content_plain_or_compressed(tmp_path: Path) -> None:
    data = parquet(pa.table({"a": list(range(10))}))
    for name, stored in (("plain", data), ("gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(stored)
        with file_source(str(tmp_path / name)).open() as opened:
            assert opened.recognize(AUTO, mapped=True) == PARQUET
            assert records(list(opened.blocks(PARQUET, LIMIT, first_seq=9, offset=8))) == [{"a": 8}, {"a": 9}]


def test_pandas_is_not_imported_whatever_the_values_are(tmp_path: Path) -> None:
    """PyArrow would, for each value of Python that it is given: that takes as long as reading 100,000 rows."""
    table = pa.table(
        {
            "text": ['a"', "b", None],
            "number": [1.5, float("nan"), None],
            "at": [date(2026, 3, 2), date(2026, 3, 3), None],
            "list": [[1], [], None],
            "struct": [{"n": b"a"}, {"n": b""}, None],
        }
    )
    (tmp_path / "t.parquet").write_bytes(parquet(table))
    code = (
        "import sys; from pik.inputs import parquet_rows; from pik.model.layout import PARQUET; "
        "found = list(parquet_rows.blocks(open('t.parquet', 'rb'), 't', PARQUET, max_line=1000)); "
        "sys.exit('pandas' in sys.modules or len(found) != 1 or len(found[0].problems) != 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
