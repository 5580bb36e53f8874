"""What `import pik` returns is what the command line's JSON has: one program, several faces."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from decimal import Decimal

import pytest

import pik as api


def plain(value):
    """A value of the API, or of JSON, so that equal ones are equal: numbers exact, times as text."""
    if is_dataclass(value) and not isinstance(value, api.Instant):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, api.Instant):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return Decimal(value)
    return value


def from_json(row, ours):
    """The fields of a row of JSON that the API has as well, as it has them."""
    found = {}
    for name, value in ours.items():
        other = row[name.replace("_ns", "_ms")]
        if name.endswith("_ns") and other is not None:
            other = Decimal(other) * 1_000_000
        found[name] = Decimal(other) if isinstance(value, Decimal) and other is not None else plain(other)
    return found


def expect_same(rows, listed, *, without=()):
    """The rows are those of the JSON, in every field that both have."""
    rows = [plain(row) for row in rows]
    assert len(rows) == len(listed)
    assert rows, "nothing is compared"
    for row, other in zip(rows, listed, strict=True):
        kept = {name: value for name, value in row.items() if name not in without}
        assert kept == from_json(other, kept)


@pytest.fixture
def store(shop):
    with api.open() as store:
        yield store


def test_events(shop, store):
    listed = shop("events", "--format", "json").json()["events"]
    ours = store.events()
    expect_same(ours, listed, without=("payload", "corrections", "not_counted"))
    assert [json.loads(row.payload, parse_float=str) for row in ours] == [row["payload"] for row in listed]
    newest = shop("events", "--newest", "--limit", "2", "--entity", "a", "--format", "json").json()
    found = store.events("a", newest=True, limit=2)
    expect_same(found, newest["events"], without=("payload", "corrections", "not_counted"))
    assert found.truncated == newest["truncated"] is True


def test_events_that_a_value_lacks(shop, store):
    listed = shop("events", "--not-counted", "revenue", "--format", "json").json()["events"]
    expect_same(store.events(not_counted="revenue"), listed, without=("payload", "corrections"))


def test_events_by_a_condition_a_batch_and_a_lag(shop, store):
    batch = shop("batches", "--format", "json").json()["batches"][0]["batch_id"]
    where = "(payload->>'v')::DECIMAL(38, 18) < 1"
    for options, arguments in (
        (("--where", where), {"where": where}),
        (("--batch", batch), {"batch": batch[:20]}),
        (("--min-lag", "2m"), {"min_lag": "2m"}),
    ):
        listed = shop("events", *options, "--format", "json").json()["events"]
        expect_same(store.events(**arguments), listed, without=("payload", "corrections", "not_counted"))


@pytest.mark.parametrize("kind", ["exact", "conflict"])
def test_duplicates(shop, store, kind):
    listed = shop("events", "--class", kind, "--format", "json").json()["events"]
    rows = list(store.deliveries(class_=kind))
    assert [(one.event_id, one.batch_id, one.seq) for one in rows] == [
        (one["event_id"], one["batch_id"], one["seq"]) for one in listed
    ]
    assert {(one.verdict, one.counts) for one in rows} == {(kind, False)}


def test_every_delivery(shop, store):
    counted = shop("status", "--format", "json").json()
    found = store.deliveries()
    assert [one.verdict for one in found].count("accepted") == len(list(store.events())) == 5
    assert len(list(found)) == 7, counted


def test_aggregates(shop, store):
    listed = shop("aggregates", "--format", "json").json()["aggregates"]
    expect_same(store.aggregates(), listed)
    versions = shop("aggregates", "--history", "--metric", "revenue", "--entity", "b", "--format", "json").json()
    expect_same(store.aggregates("b", "revenue", history=True), versions["aggregates"])


@pytest.mark.parametrize("explain", [False, True])
def test_differences(shop, store, explain):
    result = shop("diff", "aggregates", *["--explain"] * explain, "--format", "json").json()
    diff = store.diff(explain=explain)
    expect_same(diff, result["differences"], without=("causes", "event_ids"))
    causes = [
        [f"{one['cause']} {Decimal(one['share']):+f}" for one in row["causes"] or ()] for row in result["differences"]
    ]
    assert [list(row.causes) for row in diff] == causes
    assert (diff.compared, diff.metrics) == (result["compared"], result["metrics"])
    assert str(diff.known_until) == result["known_until"]


def test_lag(shop, store):
    listed = shop("lag", "--by", "hour", "--format", "json").json()
    found = store.lag(by="hour")
    expect_same(found.groups, listed["groups"], without=("at_ingest",))
    expect_same(found.histogram, listed["histogram"])
    assert found.all.events == listed["all"]["events"]


STATEMENT = """
SELECT entity_id, event_time, payload, lag_ns, count(*) OVER () AS n, CAST(1.10 AS DECIMAL(5, 2)) AS d, event_ns,
    1.5::DOUBLE AS f, [1, 2] AS l, true AS b, NULL AS nothing, DATE '2026-01-01' AS day
FROM events ORDER BY event_ns, entity_id
"""


def test_sql(shop, store):
    listed = shop("sql", STATEMENT, "--format", "json").json()
    found = store.sql(STATEMENT)
    assert found.columns == [one["name"] for one in listed["columns"]]
    for ours, theirs in zip(found, listed["rows"], strict=True):
        for name in ("entity_id", "n", "event_ns", "b", "nothing", "day"):
            assert ours[name] == theirs[name], name
        assert str(ours["event_time"]) == theirs["event_time"]
        assert ours["d"] == Decimal(theirs["d"]) == Decimal("1.10")
        assert Decimal(ours["lag_ns"]) == Decimal(theirs["lag_ns"])
        assert json.loads(ours["payload"], parse_float=str) == theirs["payload"]
    assert found.notes == ("approximate, of type DOUBLE: f",)
