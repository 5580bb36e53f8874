"""Parquet files: what DuckDB, pyarrow and pandas read out of them is what came in, to the nanosecond and the digit."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.errors import UsageError
from pik.exporters import exporter, parquet
from pik.model.batch import Verdict
from pik.model.delivery import Filter, parse_column, read_delivery
from pik.model.instant import parse_instant
from pik.model.window import ALL_TIME, Window
from pik.ports.exporter import COLUMNS, CORRECTED, Block, Layout
from tests.support.raw_lines import BATCH, INGESTED, block, line, record

TEXTS = [
    record('{"amount": 12345678901234567890.12, "n":1}', event_time="2026-01-01T00:00:00.000000001Z"),
    record('{"amount":"0.50","n":9223372036854775807}', received_time="2026-01-01T00:00:00Z", idempotency_key="k"),
    record('{"amount":1e2,"at":"2026-01-31T23:59:59.999999999Z"}', event_time="1677-09-22T00:00:00Z"),
    record("[]", event_time="2262-04-10T23:59:59.999999999Z", unknown={"é": 1}),
]
COLUMN_TEXTS = ["amount=amount:decimal(22,2)", "n=n:int64", "at=at:timestamp", "again=amount:string"]


def written(layout: Layout, raw: Block) -> dict[tuple[str, ...], bytes]:
    """The files of a layout, by partition."""
    made = exporter(layout)
    files: dict[tuple[str, ...], io.BytesIO] = {}
    sinks: dict[tuple[str, ...], Any] = {}
    for key, rows in made.cut(raw):
        if key not in sinks:
            files[key] = io.BytesIO()
            sinks[key] = made.sink(files[key])
        sinks[key].write(rows)
    for sink in sinks.values():
        sink.close()
    return {key: file.getvalue() for key, file in files.items()}


def rows(layout: Layout, raw: Block) -> list[dict[str, Any]]:
    return [row for data in written(layout, raw).values() for row in pq.read_table(io.BytesIO(data)).to_pylist()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    layout = Layout(Filter(), columns=tuple(map(parse_column, COLUMN_TEXTS)))
    path = tmp_path / "events.parquet"
    path.write_bytes(written(layout, block([line(text, seq) for seq, text in enumerate(TEXTS, 1)]))[()])
    return path


AMOUNTS = [Decimal("12345678901234567890.12"), Decimal("0.50"), Decimal("100.00"), None]


def instants() -> list[int]:
    return [read_delivery(line(text)).event_instant for text in TEXTS]


def test_pyarrow_reads_exact_values(file: Path) -> None:
    table = pq.read_table(file)
    assert tuple(table.column_names) == (*COLUMNS, *CORRECTED, "amount", "n", "at", "again")
    assert {str(table.schema.field(name).type) for name in ("event_time", "received_time", "ingest_time", "at")} == {
        "timestamp[ns, tz=UTC]"
    }
    assert [value.value for value in table.column("event_time")] == instants()
    assert [value.value for value in table.column("ingest_time")] == [INGESTED] * 4
    assert table.column("payload").to_pylist() == [bytes(read_delivery(line(text)).payload).decode() for text in TEXTS]
    assert table.column("extra").to_pylist() == [None, None, None, '{"unknown":{"é": 1}}']
    assert table.column("amount").to_pylist() == AMOUNTS
    assert table.column("n").to_pylist() == [1, 2**63 - 1, None, None]
    assert [value.value for value in table.column("at")][2] == parse_instant("2026-01-31T23:59:59.999999999Z")
    assert table.column("again").to_pylist() == ["12345678901234567890.12", "0.50", "100", None]
    assert pq.read_metadata(file).row_group(0).column(0).compression == "ZSTD"


def test_duckdb_reads_exact_values(file: Path) -> None:
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT epoch_ns(event_time), amount, n, seq, batch_id, idempotency_key, payload::JSON->>'amount',"
            " typeof(event_time) FROM read_parquet(?) ORDER BY seq",
            [str(file)],
        ).fetchall()
    assert [row[0] for row in found] == instants()
    assert [row[1] for row in found] == AMOUNTS
    assert [row[2:6] for row in found[:2]] == [(1, 1, BATCH, None), (2**63 - 1, 2, BATCH, "k")]
    assert found[0][7].startswith("TIMESTAMP")


def test_pandas_reads_exact_values(file: Path) -> None:
    frame = pd.read_parquet(file)
    assert [stamp.value for stamp in frame["event_time"]] == instants()
    assert str(frame["event_time"].dt.tz) == "UTC"
    assert list(frame["amount"])[:3] == AMOUNTS[:3]
    assert list(frame["seq"]) == [1, 2, 3, 4]
    assert frame["received_time"].isna().tolist() == [True, False, True, True]


VERDICTS = {2: Verdict.EXACT, 4: Verdict.CONFLICT}


def test_promise_4_duplicates_are_left_out_or_kept_apart() -> None:
    raw = block(
        [line(record(), seq) for seq in (4, 3, 2, 1)],
        [line(record(), seq) for seq in (2, 5)],
        verdicts=[VERDICTS, {5: Verdict.EXACT}],
    )
    assert [row["seq"] for row in rows(Layout(Filter()), raw)] == [3, 1, 2]
    every = rows(Layout(Filter(), include_duplicates=True), raw)
    assert [(row["seq"], row["delivery"]) for row in every] == [
        (4, "conflict"),
        (3, "accepted"),
        (2, Verdict.EXACT),
        (1, "accepted"),
        (2, "accepted"),
        (5, Verdict.EXACT),
    ]


@given(
    st.lists(st.tuples(*[st.sampled_from(["a", "b", "é"])] * 3, st.integers(0, 9)), min_size=1, max_size=8),
    st.builds(
        Filter,
        st.tuples(st.integers(0, 9), st.integers(1, 9)).map(
            lambda ends: Window(INGESTED + ends[0], INGESTED + ends[0] + ends[1])
        )
        | st.just(ALL_TIME),
        st.lists(st.sampled_from(["a", "b", "é", "z"]), max_size=2).map(tuple),
        st.none() | st.sampled_from(["a", "é"]),
        st.none() | st.sampled_from(["b", "z"]),
    ),
    st.sampled_from([(), ("event_date",), ("source",), ("event_type", "event_date", "source")]),
    st.sets(st.integers(1, 8)),
)
def test_what_is_selected_is_what_matches(
    events: list[tuple[str, str, str, int]], wanted: Filter, by: tuple[str, ...], duplicates: set[int]
) -> None:
    raw = [
        line(record(source=a, event_type=b, entity_id=c, event_time=f"2026-01-01T00:00:00.1234567{89 + at:02}Z"), seq)
        for seq, (a, b, c, at) in enumerate(events, 1)
    ]
    found = [
        (key, row["seq"])
        for key, data in written(
            Layout(wanted, partition_by=by), block(raw, verdicts=[dict.fromkeys(duplicates, Verdict.EXACT)])
        ).items()
        for row in pq.read_table(io.BytesIO(data)).to_pylist()
    ]
    expected = []
    for text in raw:
        delivery = read_delivery(text)
        key = tuple("2026-01-01" if name == "event_date" else getattr(delivery, name) for name in by)
        if wanted.matches(delivery) and delivery.seq not in duplicates:
            expected.append((key, delivery.seq))
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_what_is_not_recorded_yet_is_in_no_export(format_: Any) -> None:
    raw = block([line(record(), seq) for seq in (1, 2, 3)], verdicts=[{1: Verdict.UNRECORDED, 3: Verdict.EXACT}])
    for duplicates, expected in ((False, 1), (True, 2)):
        made = exporter(Layout(Filter(), format_, include_duplicates=duplicates))
        assert sum(len(found) for _, found in made.cut(raw)) == expected


def test_a_partition_does_not_repeat_its_values() -> None:
    data = written(Layout(Filter(), partition_by=("event_date", "source")), block([line(record())]))
    assert list(data) == [("2026-01-01", "web")]
    assert "source" not in pq.read_schema(io.BytesIO(data["2026-01-01", "web"])).names


def test_a_value_that_does_not_fit_names_event_and_column() -> None:
    raw = line(record('{"amount":1.005}'))
    layout = Layout(Filter(), columns=(parse_column("cents=amount:decimal(10,2)"),))
    with pytest.raises(
        UsageError, match=rf"--column cents: event {read_delivery(raw).event_id}: 1.005 is not a value of type decimal"
    ):
        list(exporter(layout).cut(block([raw])))


def test_row_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 8: rows wait for their row group up to a number of rows, and of bytes over all files together."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 10)
    many = [block([line(record(), seq)]) for seq in range(1, 36)]
    made = exporter(Layout(Filter()))
    file = io.BytesIO()
    sink = made.sink(file)
    for one in many:
        for _, found in made.cut(one):
            sink.write(found)
    sink.close()
    assert [pq.ParquetFile(file).metadata.row_group(at).num_rows for at in range(4)] == [10, 10, 10, 5]

    monkeypatch.setattr(parquet, "BUFFERED", 3000)
    made = exporter(Layout(Filter()))
    sinks = [made.sink(io.BytesIO()) for _ in range(4)]
    for at, one in enumerate(many):
        for _, found in made.cut(one):
            sinks[at % 4].write(found)
        assert sum(each.waiting_bytes for each in sinks) <= 3000  # type: ignore[attr-defined]
