"""Frames hold what the rows hold: numbers exactly, times to the nanosecond."""

from __future__ import annotations

from decimal import Decimal

import pandas
import polars
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pik as api
from pik.exporters import frames
from pik.exporters.frames import ArrowFrames
from pik.ports.frame import FrameColumn, Kind

DIGITS = 10**38 - 1
DECIMALS = st.none() | st.builds(lambda i, s: Decimal(f"{i}E-{s}"), st.integers(-DIGITS, DIGITS), st.integers(0, 38))


@given(st.lists(DECIMALS, max_size=30))
def test_decimals_are_exact_whatever_their_sizes(numbers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "CHUNK", 7)  # later chunks have larger numbers
        table = ArrowFrames().arrow([FrameColumn("n", Kind.DECIMAL)], [[number] for number in numbers])
    assert table.column("n").to_pylist() == numbers
    assert [table.schema.field("n").type.bit_width] == [128 if _fits(numbers) else 256]


def _fits(numbers):
    kept = [number.as_tuple() for number in numbers if number is not None]
    whole = max((len(one.digits) + one.exponent for one in kept), default=0)
    return max(whole, 0) + max((0, *(-one.exponent for one in kept))) <= 38


def test_numbers_that_no_decimal_holds_are_refused_with_what_holds_them():
    rows = [[Decimal(10) ** 60], [Decimal(1).scaleb(-30)]]
    with pytest.raises(api.UsageError, match="'n' has numbers of 61 digits before and 30 after") as raised:
        ArrowFrames().arrow([FrameColumn("n", Kind.DECIMAL)], rows)
    assert "iterate" in raised.value.hint
    with pytest.raises(api.UsageError, match="more than 38 digits, which a polars frame cannot hold"):
        ArrowFrames().polars([FrameColumn("n", Kind.DECIMAL)], [[Decimal(10) ** 60]])


def test_rows_as_frames(shop):
    with api.open() as store:
        events, diff = store.events(), store.diff()
        table = events.to_arrow()
        assert table.schema.field("event_time").type == pa.timestamp("ns", tz="UTC")
        assert table.column("event_time").cast(pa.int64()).to_pylist() == [row.event_time.nanos for row in events]
        assert table.num_rows == 5
        assert table.column_names == events.columns
        frame = diff.to_pandas()
        assert isinstance(frame, pandas.DataFrame)
        assert list(frame["delta"]) == [row.delta for row in diff]
        assert frame["inputs_before"].tolist() == [row.inputs_before for row in diff]
        assert frame["bucket"].iloc[0].value == next(iter(diff)).bucket.nanos
        assert diff.to_polars()["delta"].to_list() == [row.delta for row in diff]
        assert isinstance(events.to_polars(), polars.DataFrame)
        values = store.aggregates().to_polars()
        assert Decimal("123456789012345678.123456789012345678") in values["value"].to_list()
        counted = store.sql("SELECT 170141183460469231731687303715884105727 AS huge, now() > '2020-01-01' AS yes")
        assert counted.to_arrow().to_pylist() == [{"huge": Decimal(2**127 - 1), "yes": True}]


def test_an_empty_result_has_the_same_columns(shop):
    with api.open() as store:
        found = store.diff("b", "revenue")
        assert list(found) == []
        assert found.compared == 1
        assert found.to_arrow().schema == store.diff().to_arrow().schema.set(*_field(found, "current")).set(
            *_field(found, "recomputed")
        ).set(*_field(found, "delta"))


def _field(result, name):
    return result.columns.index(name), pa.field(name, pa.decimal128(38, 0))


def test_a_frame_that_is_not_installed_is_named_with_what_installs_it(shop, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "polars", None)
    with api.open() as store, pytest.raises(api.UsageError, match="polars is not installed") as raised:
        store.events().to_polars()
    assert raised.value.hint.startswith("pip install polars")
