"""`pik diff aggregates --against FILE`: numbers of a warehouse, a ledger or a dashboard against those of raw."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pik.usecases.metrics import candidates

METRICS = """
[[metric]]
name = "revenue"
value = "sum((payload->>'v')::DECIMAL(18, 2))"
[[metric]]
name = "best"
value = "max((payload->>'v')::DECIMAL(18, 2))"
bucket = "1h"
"""
EVENTS = [  # entity, time, value
    ("a", "2026-01-01T01:00:00Z", "1.50"),
    ("a", "2026-01-01T23:00:00Z", "2.25"),
    ("b", "2026-01-01T05:30:00Z", "0.1"),
    ("b", "2026-01-01T05:40:00Z", "0.2"),
    ("a", "2026-01-02T00:00:00Z", "10"),
    ("ç,x", "2026-01-03T12:00:00Z", "99999999999999.99"),
]
LEDGER = """\
Day,customer,revenue
2026-01-01,a,3.75
2026-01-01,b,0.30
2026-01-02,a,10.00
2026-01-03,"ç,x",99999999999999.99
"""


@pytest.fixture
def shop(pik: Callable[..., Any]) -> Callable[..., Any]:
    def line(entity: str, time: str, value: str) -> str:
        event = {"source": "web", "event_type": "paid", "entity_id": entity, "event_time": time}
        return json.dumps(event)[:-1] + f', "payload": {{"v": {value}}}}}\n'

    Path("events.jsonl").write_text("".join(line(*each) for each in EVENTS))
    Path("metrics.toml").write_text(METRICS)
    assert pik("ingest", "events.jsonl").code == 0
    assert pik("metrics", "apply", "metrics.toml").code == 0
    return pik


def truth() -> dict[tuple[str, str], Decimal]:
    """The revenue of (day, entity), from the events in plain Python."""
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for entity, time, value in EVENTS:
        sums[time[:10], entity] += Decimal(value)
    return dict(sums)


def against(pik: Callable[..., Any], text: str | bytes, *options: str, name: str = "ledger.csv") -> Any:
    Path(name).write_bytes(text.encode(errors="surrogateescape") if isinstance(text, str) else text)
    result = pik("diff", "aggregates", "--against", name, *options, "--format", "json")
    found = json.loads(result.out, parse_float=Decimal) if result.out else None
    return result, found


def rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    names = ("op", "metric", "bucket", "entity_id", "current", "recomputed", "delta")
    return [tuple(row[name] for name in names) for row in found["differences"]]


def test_equal_numbers_are_no_difference_and_what_was_taken_is_printed(shop: Callable[..., Any]) -> None:
    result, found = against(shop, LEDGER)
    assert (result.code, found["compared"], found["differences"]) == (0, len(truth()), [])
    taken = found["against"]
    assert (taken["bucket"], taken["entity"], taken["value_columns"]) == (
        "Day",
        "customer",
        [{"metric": "revenue", "column": "revenue"}],
    )
    assert (taken["numbers"], taken["of_entities"], taken["first"], taken["last"]) == (
        4,
        3,
        "2026-01-01T00:00:00Z",
        "2026-01-03T00:00:00Z",
    )
    shown = shop("diff", "aggregates", "--against", "ledger.csv")
    assert "bucket=Day, entity=customer, revenue=revenue" in shown.out
    assert "4 numbers of 3 entities" in shown.out


def test_each_difference_is_right_minus_left_and_a_row_that_one_side_lacks_is_a_row(shop: Callable[..., Any]) -> None:
    text = "day;customer;net\n2026-01-01;a;3.7\n2026-01-01;b;0.3\n2026-01-03;ç,x;99999999999999.98\n2026-01-04;d;7\n"
    result, found = against(shop, text, "--value", "revenue=net", "--stats")
    assert result.code == 1
    file = {
        ("2026-01-01", "a"): "3.7",
        ("2026-01-01", "b"): "0.3",
        ("2026-01-03", "ç,x"): "99999999999999.98",
        ("2026-01-04", "d"): "7",
    }
    expected = []
    for day, entity in sorted(truth().keys() | file.keys()):
        left = Decimal(file[day, entity]) if (day, entity) in file else None
        right = truth().get((day, entity))
        if left != right:
            op = "+" if left is None else "-" if right is None else "~"
            delta = None if left is None or right is None else right - left
            expected.append((op, "revenue", f"{day}T00:00:00Z", entity, left, right, delta))
    assert rows(found) == expected
    assert found["stats"] == {"equal": 1, "other_inputs": 0, "tolerated": 0, "changed": 2, "added": 1, "removed": 1}
    assert all(row["inputs_before"] is None for row in found["differences"])


@pytest.mark.parametrize("rest", [(), ("--as-of", "2020-01-01"), ("--assume", "shift=1d,entity=a")])
def test_an_unchanged_file_differs_exactly_where_the_scenario_does(
    shop: Callable[..., Any], rest: tuple[str, ...]
) -> None:
    result, found = against(shop, LEDGER, *rest)
    if rest == ():
        assert result.code == 0
    elif "--as-of" in rest:
        assert result.code == 2  # nothing was recorded by then, so no key is on both sides
        assert "no number of ledger.csv is one that the store has" in result.err
    else:
        moved = [("+", "revenue", "2026-01-03T00:00:00Z", "a", None, Decimal("10.00"), None)]
        assert [row for row in rows(found) if row[0] == "+"] == moved


def test_tolerances_hold_for_the_numbers_of_a_file(shop: Callable[..., Any]) -> None:
    text = LEDGER.replace("0.30", "0.31").replace("10.00", "10.02")
    assert against(shop, text, "--tolerance", "0.01")[1]["different"] == 1
    assert against(shop, text, "--tolerance", "2e-2")[0].code == 0
    assert against(shop, text, "--tolerance", "revenue=5%")[0].code == 0


def test_window_and_entities_cut_both_sides_and_say_so(shop: Callable[..., Any]) -> None:
    result, found = against(shop, LEDGER, "--from", "2026-01-02", "--to", "2026-01-03")
    assert (result.code, found["compared"], found["against"]["left_out"]) == (0, 1, 3)
    assert "3 numbers of ledger.csv outside the window or the entities left out" in result.err
    result, found = against(shop, LEDGER, "--entity", "b")
    assert (result.code, found["compared"]) == (0, 1)
    result, found = against(shop, "day,customer,revenue\n2026-01-02,a,10\n")
    assert [row[0] for row in rows(found)] == ["+", "+", "+"]
    assert "3 values of the store before or after those of ledger.csv" in result.err
    assert "--from 2026-01-02T00:00:00Z --to 2026-01-03T00:00:00Z" in result.err


def test_every_format_gives_the_same_result(shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = LEDGER.replace("3.75", "3.74")
    expected = rows(against(shop, wrong)[1])
    lines = [line.split(",", 1) for line in wrong.splitlines()[1:]]
    table = [(day, *rest.replace('"', "").rsplit(",", 1)) for day, rest in lines]
    tsv = "day\tuser_id\trevenue\n" + "".join("\t".join(row) + "\r\n" for row in table)
    jsonl = "".join(
        f'{{"date": "{day}T00:00:00Z", "entity": {json.dumps(entity)}, "revenue": {value}, "x": 1e400}}\n'
        for day, entity, value in table
    )
    assert rows(against(shop, tsv, name="l.tsv")[1]) == expected
    assert rows(against(shop, "\ufeff" + tsv, name="l.tsv")[1]) == expected
    assert rows(against(shop, jsonl, name="l.jsonl")[1]) == expected
    assert rows(against(shop, gzip.compress(jsonl.encode()), name="l.gz")[1]) == expected
    for encoding in ("utf-16", "utf-16-be"):
        assert rows(against(shop, tsv.encode(encoding), name="l.txt")[1]) == expected
    for spelled in ("%d.%m.%Y", "%d-%b-%Y", '"%B %d, %Y"', '"%b %d, %Y, 12:00 AM"', "%d.%m.%Y 00:00"):
        days_as = "".join(f"{date.fromisoformat(day):{spelled}},{rest}\n" for day, rest in lines)
        assert rows(against(shop, wrong.splitlines()[0] + "\n" + days_as)[1]) == expected
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("ledger/l.csv", wrong)
    found = against(shop, archive.getvalue(), name="l.zip")[1]
    assert (rows(found), found["against"]["file"]) == (expected, "l.zip")
    inside = ",\n".join(jsonl.splitlines())
    assert rows(against(shop, f'{{"count": 4, "data": [{inside}]}}', name="l.json")[1]) == expected
    days = pa.array([row[0] for row in table]).cast(pa.date32())
    for bucket in (days, days.cast(pa.timestamp("us")), days.cast(pa.timestamp("ns", "Europe/Berlin"))):
        values = pa.array([Decimal(row[2]) for row in table], pa.decimal128(20, 4))
        parquet.write_table(
            pa.table({"day": bucket, "entity": [row[1] for row in table], "revenue": values}), "l.parquet"
        )
        assert rows(against(shop, Path("l.parquet").read_bytes(), name="l.parquet")[1]) == expected
    Path("l.tsv").write_text(tsv)
    for data in (tsv.encode(), Path("l.parquet").read_bytes(), archive.getvalue()):
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        with open(reading) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            piped = shop("diff", "aggregates", "--against", "-", "--format", "json")
        assert rows(json.loads(piped.out, parse_float=Decimal)) == expected


def test_an_entity_that_is_a_number_has_the_text_that_events_have(pik: Callable[..., Any]) -> None:
    """However it is spelled: a column of ids with gaps is one of doubles to many tools."""
    numbers = "501", "1234567890123456789012"
    given = ("--map", "source='s'", "--map", "event_type='t'", "--map", "entity_id=id", "--map", "event_time=t")
    Path("e.jsonl").write_text("".join(f'{{"id":{one},"t":"2026-01-01T10:00:00Z"}}\n' for one in numbers))
    assert pik("ingest", "e.jsonl", *given, "--map", "payload=@").code == 0
    ledger = "".join(f'{{"day":"2026-01-01","id":{one}.0,"event_count":1}}\n' for one in numbers)
    result, found = against(pik, ledger, "--metric", "event_count", name="l.jsonl")
    assert (result.code, found["compared"]) == (0, 2)
    columns = {"day": ["2026-01-01"], "id": pa.array([501], pa.float64()), "event_count": [1]}
    parquet.write_table(pa.table(columns), "l.parquet")
    result, found = against(pik, Path("l.parquet").read_bytes(), "--entity", "501", name="l.parquet")
    assert (result.code, found["compared"]) == (0, 1)


@pytest.mark.parametrize("old", [False, True], ids=["64 bits", "96 bits"])
def test_a_bucket_beyond_nanoseconds_is_named_as_it_stands_there(shop: Callable[..., Any], old: bool) -> None:
    days = pa.array(["2026-01-01", "9999-12-31"]).cast(pa.timestamp("us"))
    columns = {"day": days, "entity": ["a", "a"], "revenue": [1, 2]}
    parquet.write_table(pa.table(columns), "l.parquet", use_deprecated_int96_timestamps=old)
    result, _ = against(shop, Path("l.parquet").read_bytes(), name="l.parquet")
    assert (result.code, "l.parquet, row 2: day: '9999-12-31 00:00:00" in result.err) == (2, True)


def test_a_parquet_column_of_doubles_is_taken_as_shortest_decimals_and_said_so(shop: Callable[..., Any]) -> None:
    columns = {"day": ["2026-01-01"], "entity": ["b"], "revenue": pa.array([0.1 + 0.2], pa.float64())}
    parquet.write_table(pa.table(columns), "l.parquet")
    result, found = against(shop, Path("l.parquet").read_bytes(), "--entity", "b", name="l.parquet")
    [row] = rows(found)
    assert row[4] == Decimal("0.30000000000000004")
    assert found["against"]["approximate"] == ["revenue"]
    assert "revenue is floating point" in result.err
    columns["revenue"] = pa.array([0.5], pa.float32())
    parquet.write_table(pa.table(columns), "l.parquet")
    result, _ = against(shop, Path("l.parquet").read_bytes(), name="l.parquet")
    assert (result.code, "column revenue is float" in result.err) == (2, True)


def test_the_output_of_pik_aggregates_is_such_a_file(shop: Callable[..., Any]) -> None:
    shop("replay", "--all", "--promote", "--yes", "--reason", "r")
    for name in ("csv", "jsonl"):
        exported = shop("aggregates", "--format", name).out
        result, found = against(shop, exported, name=f"a.{name}")
        assert (result.code, found["different"], found["against"]["metric"]) == (0, 0, "metric")
        values = len(truth()) * 2 + 5  # revenue and event_count of a day, best of an hour
        assert found["compared"] == found["against"]["numbers"] == values


def test_hours_are_compared_with_hours(shop: Callable[..., Any]) -> None:
    text = """\
hour,entity,total
2026-01-01 01:00,a,1.5
2026-01-01 05:00,b,0.2
2026-01-01T23:00:00Z,a,2.25
2026-01-02,a,10
2026-01-03 13:00+01:00,"ç,x",99999999999999.99
"""
    result, found = against(shop, text, "--metric", "best")
    assert (result.code, found["compared"]) == (0, 5)
    result, _ = against(shop, text.replace("05:00", "05:30"), "--metric", "best")
    assert result.code == 2
    assert "line 3: hour: 2026-01-01T05:30:00Z is not the start of a bucket of best" in result.err


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("day,entity,revenue\n2026-01-01,A,1\n", "did you mean 'a'? --key bucket=COLUMN,entity=COLUMN names"),
        ('[{"x": 1}, {"of": {"rows": [{"x": 1}]}}]', "jq -c '.[] | del(.of.rows) + .of.rows[]? | [paths"),
        ('{"d": [{"on": {}, "g": [{"x": 1}]}], "m": [{}]}', "jq -c '.d[] | del(.g) + .g[]?' "),
        ('{"d": [{"k": "x"}], "rows": [{"g": [{"value": 1}]}, {}]}', "jq -c '.rows[] | [paths(scalars) as $p | "),
        ('{"values": [["day", "revenue"], ["2026-01-01", "1"]]}', "jq -c '.values | .[0] as $names | .[1:][] | "),
        (
            json.dumps({"daily": {"day": ["2026-01-01"] * 10, "revenue": [1] * 10}}),
            "jq -c '.daily | map_values(arrays)",
        ),
    ],
)
def test_rows_in_lists_get_the_fields_of_what_is_around_them(shop: Callable[..., Any], text: str, hint: str) -> None:
    result, _ = against(shop, text)
    assert hint in json.loads(result.err)["hint"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("day,entity,revenue\n", "has a header and no rows"),
        ('day,entity,revenue\n2026-01-01,a,3.75\n2026-01-02,a,"1,234"\n', "line 3: revenue: '1,234' is not a number"),
        ("day,entity,revenue\n2026-01-01,a,NaN\n", "line 2: revenue: 'NaN' is not a number"),
        ("day,entity,revenue\n2026-01-01,a,1e99\n2026-01-01,b,1_0\n", "line 3: revenue: '1_0' is not a number"),
        ("day,entity,revenue\n2026-01-01,a\n", "the row has 2 cells, the header 3 (line 2)"),
        ("day,entity,revenue\n31.02.2026,a,1\n", "line 2: day: '31.02.2026' is not"),
        ("month,entity,revenue\n\"January, 2026\",a,1\n", "'January, 2026' is a month, and the buckets of revenue are"),
        ("day,entity,revenue\n2026-01-01T24:00:00Z,a,1\n", "impossible time of day"),
        ("month,entity,revenue\n2026-01,a,1\n", "'2026-01' is a month, and the buckets of revenue are not months"),
        ("day,entity,revenue\n,a,1\n", "line 2: day: the bucket is empty"),
        ("day,entity,revenue\n2026-02-30,a,1\n", "line 2: day: '2026-02-30' is not a date"),
        ("day,entity,revenue\n2026-01-01,,1\n", "line 2: entity: the entity is empty"),
        ("day,entity,revenue\n2026-01-01,a,1\n\n2026-01-01,b,1\n2026-01-01,a,2\n",
         "line 5: revenue of 'a' in 2026-01-01T00:00:00Z is already"),
        ("day,entity,revenue\n2026-01-01,zz,1\n", "no number of ledger.csv is one that the store has"),
        ("day,entity,revenue\n2026-01-01,a,\n", "has no number of revenue"),
        ("when,entity,revenue\n2026-01-01,a,1\n", "has no column with a usual name of the bucket"),
        ("day,entity,Net\n2026-01-01,a,1\n", "has no column named as a metric"),
        ("day,entity,revenue,Revenue,REVENUE\n2026-01-01,a,1,1,1\n", "has no column"),
        ("day,entity,revenue\n2026-01-01,caf\udce9,1\n", "is not UTF-8: line 2"),
        ("day,entity,\x01\udc81\udc8d\udce9\n1,2,3\n", "is not text: line 1 is of no known encoding"),
        ("PK\x03\x04rest", "it is cut or damaged"),
        ("a\0b\x01", "is a binary file"),
        ("SQLite format 3\0", "looks like a SQLite database"),
        ('day,entity,revenue\n2026-01-01,"a,1\n', "a quoted cell does not end"),
        ('{"columns": ["day", "revenue"], "rows": [["2026-01-01", 1]]}', "are lists of values, not objects"),
        ('{"meta": [{"name": "day"}, {"name": "revenue"}], "data": [["2026-01-01", 1]]}', "data[], are lists"),
        (json.dumps({"sums": {f"k{n}": {"day": f"2026-01-1{n}", "revenue": n} for n in range(10)}}),
         "an object whose values, in sums, are the records"),
        ('{"data": [{"day": 1}], "meta": [{"day": 2}]}', "several lists: data[] (1), meta[] (1)"),
        ('[{"entity": 1}]', "has no column with a usual name of the bucket"),
        ('[{"day": "2026-01-01", "entity": "a", "revenue": 1}, {"day" 1}]', "record 2: the record is not JSON"),
        ('[{"day": "2026-01-01", "entity": "a", "revenue": 1},', "ends inside its JSON array"),
        ('{"day": "2026-01-01", "entity": "a", "revenue": 1}\n{"day": \n', "line 2: the line is not JSON"),
        ('{"day": "2026-01-01", "entity": "a", "revenue": 1},\n' * 2, "JSON lines with a comma after each"),
        ("day,entity,revenue\n2026-01-01,a,N/A\n", "'N/A' is not a number such as -1234.50; the cell is empty where"),
        ("sep=,\nday,entity,revenue\n2026-01-01,a,1\n", "looks like CSV after 1 other line"),
        (" day | entity | revenue \n-----+--------+---------\n 1 | a | 1\n", "looks like a table drawn for people"),
        ('{"day": "2026-01-01", "entity": "a", "revenue": true}\n', "line 1: revenue: true is not a number"),
        ('{"day": {"$date": "2026-01-01T00:00:00Z"}, "entity": "a", "revenue": 1}\n', "line 1: day is an object"),
        ('{"day": "2026-01-01", "entity": "a", "revenue": [1]}\n', "line 1: revenue is a list"),
        ("[]", "has no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_an_error_that_names_the_line(shop: Callable[..., Any], text: str, message: str) -> None:
    if "REVENUE" in text:
        text, message = text.replace(",revenue", ""), "has 2 columns named 'revenue'"
        text = text.replace("1,1,1", "1,1")
    result, _ = against(shop, text)
    assert (result.code, result.out) == (2, "")
    error = json.loads(result.err)
    assert message in error["error"]
    assert "ledger.csv" in error["error"]
    assert "pik ingest" not in (error.get("hint") or "")  # it is not to be ingested


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("day,entity,revenue\n46083,a,1\n", "46083 is 2026-03-02 as a day of a spreadsheet; a bucket is a date"),
        ("day,entity,revenue\n1772409600000,a,1\n", "1772409600000 is 2026-03-02T00:00:00Z as a time since 1970; "),
        (
            "day,entity,revenue\n1/31/2026,a,1\n",
            r"the month comes first: sed -E 's#([0-9]+)[-/]([0-9]+)[-/]([0-9]{4})#\3-\1-\2#' ledger.csv | pik ",
        ),
        (
            "day,entity,revenue\n1/31/26,a,1\n",
            r"the month comes first: sed -E 's#([0-9]+)[/.]([0-9]+)[/.]([0-9]{2})#20\3-\1-",
        ),
        ("day,entity,revenue\n01-02-2026,a,1\n", r"where the day comes first (else \3-\1-\2): sed -E "),
        (
            "day,entity,revenue\n2026-01-01,a,1\n\nFilters:\n",
            "correct the row; or, if the table ends above it: head -n 3 ledger.csv | pik diff aggregates ",
        ),
        (
            "+-----+---+\n| day | x |\n+-----+---+\n",
            "its rows as CSV: psql --csv, sqlite3 -csv -header, duckdb -csv, or ",
        ),
        ("day,entity,revenue\n   \n2026-01-01,,1\n", "leave out rows of no entity"),
        ("day,revenue\n2026-01-01,1\n", "it has two columns; totals over all entities are compared with a metric"),
        ('{"day": "2026-01-01", "entity": ["a"], "revenue": 1}\n', "with the fields of its objects as columns: jq"),
    ],
)
def test_a_hint_says_what_a_cell_is(shop: Callable[..., Any], text: str, hint: str) -> None:
    assert json.loads(against(shop, text)[0].err)["hint"].startswith(hint)


@pytest.mark.parametrize(
    ("delimiter", "cells", "plain"),
    [
        (";", ["1.709", '"1.709,13"', "-5,5", "(12,5)", "7"], ["1709", '"1709.13"', "-5.5", "-12.5", "7"]),
        (",", ['"1,709.13"', "(5)", "7"], ['"1709.13"', "-5", "7"]),
        (",", ['"709,1"', '"(1.709.000,5)"', "7"], ['"709.1"', '"-1709000.5"', "7"]),
        ("\t", ["(5)", "0.5"], ["-5", "0.5"]),
        (",", ['"1,709"', "5"], None),
    ],
)
def test_numbers_as_people_write_them_are_refused_with_what_makes_plain_ones(
    shop: Callable[..., Any], delimiter: str, cells: list[str], plain: list[str] | None
) -> None:
    def table(values: list[str]) -> str:
        rows = [["day", "entity", "revenue"], *(["2026-01-01", f"e{n}", one] for n, one in enumerate(values))]
        return "".join(delimiter.join(row) + "\n" for row in rows)

    result, _ = against(shop, table(cells))
    hint = json.loads(result.err)["hint"]
    if plain is None:
        assert hint.startswith("numbers have a point before their fraction")
        return
    done = subprocess.run(
        ["bash", "-c", hint[hint.index("perl") :].split(" ledger.csv | pik ")[0]],
        input=table(cells), capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert done.stdout == table(plain)


def test_a_value_that_names_no_metric_of_the_comparison_is_refused(shop: Callable[..., Any]) -> None:
    result, _ = against(shop, LEDGER, "--metric", "revenue", "--value", "Revenue=net")
    error = json.loads(result.err)
    assert error["error"] == "--value Revenue=net: 'Revenue' is not a metric of this comparison"
    assert error["hint"] == "--value revenue=net"


@pytest.mark.parametrize(("around", "between"), [("[]", ",\n"), ("", " "), ("", "\n\n")])
def test_json_is_read_however_it_is_laid_out(shop: Callable[..., Any], around: str, between: str) -> None:
    record = '{"day":\n"2026-01-01", "entity": ENTITY, "revenue": 1234567890123456789.125}'
    rows = [record.replace("ENTITY", entity) for entity in ('"a"', "1.10", "5.0")]
    result, _ = against(shop, around[:1] + between.join(rows) + around[1:], name="ledger.json")
    assert result.code == 1
    listed = json.loads(result.out, parse_float=str)["differences"]
    found = {row["entity_id"]: row["current"] for row in listed if row["current"] is not None}
    assert found == dict.fromkeys(("a", "1.1", "5"), "1234567890123456789.125")


def test_the_fields_of_objects_become_columns_by_what_the_hint_says(shop: Callable[..., Any]) -> None:
    rows = [{"key": {"day": "2026-01-01", "entity": "a"}, "sum": {"revenue": 1}, "n": 1}]
    for text in (json.dumps(rows), "\n".join(map(json.dumps, rows)), json.dumps({"by": {"buckets": rows}})):
        result, _ = against(shop, text)
        flat, again = json.loads(result.err)["hint"].split("as columns: ")[1].split(" | pik ")
        assert "--against -" in again
        done = subprocess.run(["bash", "-c", flat], capture_output=True, check=True)
        assert json.loads(done.stdout) == {"key.day": "2026-01-01", "key.entity": "a", "sum.revenue": 1, "n": 1}
    days = [{"day": "2026-01-01", "rows": [{"entity": "a", "revenue": 1}]}]
    hint = json.loads(against(shop, json.dumps(days))[0].err)["hint"].split("as columns: ")[1].split(" | pik ")[0]
    done = subprocess.run(["bash", "-c", hint], capture_output=True, check=True)
    assert json.loads(done.stdout) == {"day": "2026-01-01", "entity": "a", "revenue": 1}
    points: object = [{"target": "a", "tags": {"x": 1}, "datapoints": [[3.75, 1767225600], [None, 1767312000]]}]
    nested: object = {"data": {"result": [{"metric": "a", "values": [[1767225600000, "3.75"]]}]}}
    for series, rest in (
        (points, {"target": "a", "tags": {"x": 1}, "c1": 3.75}),
        (nested, {"metric": "a", "c2": "3.75"}),
    ):
        result, _ = against(shop, json.dumps(series))
        named = json.loads(result.err)["hint"].split("names: ")[1].split(" | pik ")[0]
        done = subprocess.run(["bash", "-c", named], capture_output=True, check=True)
        assert json.loads(done.stdout.splitlines()[0]) == rest | {"time": "2026-01-01T00:00:00Z"}
    result, _ = against(shop, "entity,2026-01-01,2026-01-02\na,1,2\n")
    assert "UNPIVOT" in json.loads(result.err)["hint"]


def test_a_minus_of_typographers_is_read_and_entities_that_look_the_same_are_named(
    shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, found = against(shop, LEDGER.replace("3.75", "\u22123.75").replace("ç", "c\u0327"))
    assert [row[4] for row in rows(found)] == [Decimal("-3.75"), Decimal("99999999999999.99"), None]
    assert "looks the same and is two entities: 'c\\u0327,x' and '\\xe7,x'" in result.err
    result, _ = against(shop, LEDGER.replace("ç", "c\u0327"), "--entity", "c\u0327,x", "--entity", "ç,x")
    assert (result.code, ", in another Unicode form" in result.err) == (2, True)
    monkeypatch.setattr(candidates, "OFFSETS", range(-1, 2))
    tried = [shop("explain", "revenue", "a", "2026-01-02", "--expect", f"{minus}10.00").out for minus in "\u2212-"]
    assert tried[0] == tried[1] != ""


def test_wrong_options_are_usage_errors(shop: Callable[..., Any]) -> None:
    Path("ledger.csv").write_text(LEDGER)
    for options, message in (
        (("--key", "bucket=Day"), "add --against"),
        (("--against", "none.csv"), "there is no file none.csv"),
        (("--against", "."), "is a directory"),
        (("--against", "ledger.csv", "--key", "day=Day"), "--key: invalid 'day=Day'"),
        (("--against", "ledger.csv", "--key", "bucket=nope"), "has no column 'nope'"),
        (("--against", "ledger.csv", "--value", "revenue"), "--value: invalid 'revenue'"),
        (("--against", "ledger.csv", "--value", "none=revenue"), "there is no metric 'none'"),
        (("--against", "ledger.csv", "--from", "2027-01-01"), "has no number"),
    ):
        result = shop("diff", "aggregates", *options)
        assert (result.code, message in result.err) == (2, True), (options, result.err)
