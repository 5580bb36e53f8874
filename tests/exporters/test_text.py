"""JSON lines and CSV."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any

import duckdb
import pytest
import zstandard

from pik.exporters import exporter
from pik.model.batch import Verdict
from pik.model.delivery import Filter, parse_column
from pik.ports.exporter import COLUMNS, CORRECTED, Block, Layout
from tests.support.raw_lines import BATCH, block, line, record

from .test_parquet import TEXTS, VERDICTS, written

COLUMNS_OF_OWN = tuple(map(parse_column, ["amount=amount:decimal(22,2)", "at=at:timestamp", "note=note:string"]))


def only(layout: Layout, raw: Block) -> bytes:
    (data,) = written(layout, raw).values()
    return data


def test_a_json_line_is_the_raw_line() -> None:
    raw = [line(text, seq, b'{"o":1}') for seq, text in enumerate(TEXTS, 1)]
    assert only(Layout(Filter(), "jsonl", "none"), block(raw)) == b"".join(one + b"\n" for one in raw)


def test_json_lines_end_with_the_extracted_columns() -> None:
    layout = Layout(Filter(), "jsonl", "none", include_duplicates=True, columns=COLUMNS_OF_OWN)
    text = only(layout, block([line(text, seq) for seq, text in enumerate(TEXTS, 1)], verdicts=[VERDICTS])).decode()
    assert text.splitlines()[0].endswith(
        ',"delivery":"accepted","amount":12345678901234567890.12,"at":null,"note":null}'
    )
    assert [json.loads(one)["delivery"] for one in text.splitlines()] == ["accepted", "exact", "accepted", "conflict"]
    assert json.loads(text.splitlines()[2])["at"] == "2026-01-31T23:59:59.999999999Z"


def test_csv_is_that_of_rfc_4180() -> None:
    raw = [
        line(record('{"amount":1.5,"note":"a \\"b\\",\\n"}', entity_id='x,"y"', idempotency_key="k"), 1),
        line(record('{"note":""}', unknown=1), 2),
        line(record('{"amount":-3}'), 3),
    ]
    data = only(Layout(Filter(), "csv", "none", columns=COLUMNS_OF_OWN), block(raw, verdicts=[{3: Verdict.EXACT}]))
    assert data.count(b"\r\n") == 3
    header, first, second = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    assert header == [*COLUMNS, *CORRECTED, "amount", "at", "note"]
    found = dict(zip(header, first, strict=True))
    assert found["entity_id"] == 'x,"y"'
    assert (found["event_time"], found["received_time"]) == ("2026-01-01T00:00:00.000000000Z", "")
    assert (found["batch_id"], found["seq"], found["idempotency_key"]) == (BATCH, "1", "k")
    assert found["payload"] == '{"amount":1.5,"note":"a \\"b\\",\\n"}'
    assert (found["amount"], found["at"], found["note"]) == ("1.50", "", 'a "b",\n')
    assert dict(zip(header, second, strict=True))["extra"] == '{"unknown":1}'
    assert data.endswith(b',,,""\r\n'), "an empty text is not nothing"


def test_csv_leaves_out_what_the_partition_contains() -> None:
    layout = Layout(Filter(), "csv", "none", partition_by=("source", "event_date"))
    files = written(layout, block([line(record()), line(record(source="ü/=,"), 2)]))
    assert list(files) == [("web", "2026-01-01"), ("ü/=,", "2026-01-01")]
    assert "source" not in files["web", "2026-01-01"].decode().splitlines()[0].split(",")


def test_duckdb_reads_them(tmp_path: Any) -> None:
    for name, format_ in (("e.csv", "csv"), ("e.jsonl", "jsonl")):
        layout = Layout(Filter(), format_, "none", columns=COLUMNS_OF_OWN[:1])  # type: ignore[arg-type]
        (tmp_path / name).write_bytes(only(layout, block([line(text, seq) for seq, text in enumerate(TEXTS, 1)])))
    with duckdb.connect() as connection:
        query = f"SELECT seq, event_time::VARCHAR, payload FROM read_csv('{tmp_path}/e.csv', all_varchar=true)"
        found = connection.execute(query).fetchall()
        assert found[0][:2] == ("1", "2026-01-01T00:00:00.000000001Z")
        assert found[3][2] == "[]"
        assert connection.execute(f"SELECT max(seq) FROM '{tmp_path}/e.jsonl'").fetchall() == [(4,)]


@pytest.mark.parametrize(("compression", "suffix"), [("gzip", ".csv.gz"), ("zstd", ".csv.zst"), ("none", ".csv")])
def test_compressed_files_hold_the_same(compression: Any, suffix: str) -> None:
    layout = Layout(Filter(), "csv", compression)
    assert exporter(layout).suffix == suffix
    data = only(layout, block([line(record())]))
    if compression == "gzip":
        data = gzip.decompress(data)
    elif compression == "zstd":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    assert data == only(Layout(Filter(), "csv", "none"), block([line(record())]))
