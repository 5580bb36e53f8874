"""What writes does what the commands do, and only in a store that was opened for it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

import pik as api
from tests.api.conftest import EXACT, line
from tests.api.test_same_numbers import expect_same, plain


def test_a_store_is_read_only_unless_asked_otherwise(shop, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ".pik" / "raw").rglob("*")}
    with api.open() as store:
        plan = store.replay(all=True)
        run = store.run(shop("runs", "list", "--format", "json").json()["runs"][0]["run_id"])
        for write, what in (
            (lambda: store.ingest("events.jsonl"), "ingest"),
            (plan.run, "run"),
            (run.promote, "promote"),
            (run.rollback, "rollback"),
        ):
            with pytest.raises(api.UsageError, match=f"{what} writes, and the store was opened to be read only") as no:
                write()
            assert "writable=True" in no.value.hint
    assert len(shop("runs", "list", "--format", "json").json()["runs"]) == 1
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / ".pik" / "raw").rglob("*")}


def test_from_files_to_numbers_and_back(pik, tmp_path):
    (tmp_path / "one.jsonl").write_text(line(1, "a", "1.5") + line(2, "b", EXACT) + "not JSON\n")
    (tmp_path / "two.csv").write_text("shop,who,at,v\nweb,a,2026-01-01T05:00:00,3\n")
    with api.open("made", create=True, actor="ana@example.com") as store:
        found = list(store.ingest("one.jsonl"))
        assert [(one.read, one.accepted, one.rejected, one.outcome) for one in found] == [(3, 2, 1, "ingested")]
        assert next(iter(store.ingest(tmp_path / "one.jsonl"))).outcome == "already ingested"
        assert next(iter(store.ingest("one.jsonl", again=True))).exact == 2
        fields = {"source": "shop", "event_type": "'paid'", "entity_id": "who", "event_time": "at", "payload": "@"}
        mapped = store.ingest(["two.csv"], map=fields, timezone="Europe/Berlin")
        assert [str(one.first_event) for one in mapped] == ["2026-01-01T04:00:00Z"]
        plan = store.replay(all=True, reason="INC-42")
        assert (plan.events_matched, plan.buckets) == (3, 2)
        within = store.replay("a", from_="2026-01-01T03:00:00Z", to="2026-01-01T05:00:00Z")
        assert [str(one) for one in within.window] == ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]
        run = plan.run()
        assert (run.state, run.counts["new"]) == ("COMPLETED", 2)
        assert list(store.aggregates()) == []
        assert {(row.op, row.entity_id, row.recomputed) for row in run.diff()} == {
            ("+", "a", Decimal(2)),
            ("+", "b", Decimal(1)),
        }
        assert run.promote() == api.Promotion(moved=2, already=0, conflicts=0)
        assert run.promote().already == 2
        assert list(store.diff()) == []
        assert {(row.actor, row.reason) for row in store.aggregates()} == {("ana@example.com", "INC-42")}
        assert run.rollback("wrong").moved == 2
        assert list(store.aggregates()) == []
        assert run.run_id in repr(run)
        assert "COMPLETED" in run._repr_html_()
    listed = pik("history", "--store", "made", "--format", "json").json()["history"]
    assert {"promote", "rollback", "run", "batch"} <= {one["what"] for one in listed}
    assert {one["actor"] for one in listed} == {"ana@example.com"}


def test_what_cannot_be_read_or_is_not_selected(shop, tmp_path):
    (tmp_path / "empty.parquet").write_bytes(b"PAR1")
    with api.open(writable=True) as store:
        for write, kind, message in (
            (lambda: store.ingest("absent.jsonl"), api.UsageError, "there is no file absent.jsonl"),
            (lambda: store.ingest("empty.parquet"), api.InputError, "empty.parquet was refused"),
            (lambda: store.ingest("events.jsonl", mapping="nonsense"), api.UsageError, "nonsense"),
            (lambda: store.ingest("events.jsonl", input="xml"), api.UsageError, "xml"),
            (lambda: store.ingest("events.jsonl", on_conflict="ignore"), api.UsageError, "on_conflict"),
            (lambda: store.replay(), api.UsageError, "nothing selected to replay"),
            (lambda: store.replay("a", all=True), api.UsageError, "exclude each other"),
            (lambda: store.replay("nobody"), api.NothingSelected, "nobody"),
            (lambda: store.replay(all=True, metric="revenu"), api.NotFound, "revenu"),
            (lambda: store.run("01ZZ"), api.NotFound, "01ZZ"),
            (lambda: store.diff(run="01ZZ"), api.NotFound, "01ZZ"),
            (lambda: store.explain("revenue", "nobody", "2026-01-01"), api.NothingSelected, "nobody"),
            (lambda: store.explain("revenue", "a", "the first"), api.UsageError, "bucket: "),
            (lambda: store.explain("revenue", "a", "2026-01-01", as_of="soon"), api.UsageError, "as_of: "),
        ):
            with pytest.raises(kind, match=message) as raised:
                write()
            assert raised.value.hint or kind is api.InputError, message


def test_a_comparison_of_other_sides(shop):
    run = shop("runs", "list", "--format", "json").json()["runs"][0]["run_id"]
    batch = shop("batches", "--format", "json").json()["batches"][-1]["batch_id"]
    with open("ledger.csv", "w") as ledger:
        ledger.write("day,customer,revenue\n2026-01-01,a,5\n")
    cases: Any = (
        (("--right", "current", "--left", f"run:{run}"), {"right": "current", "left": f"run:{run}"}),
        (("--assume", f"without-batch={batch}"), {"assume": f"without-batch={batch}"}),
        (("--left", "file:ledger.csv"), {"left": "file:ledger.csv"}),
        (("--as-of", "2030-01-01", "--tolerance", "0.1"), {"as_of": "2030-01-01", "tolerance": "0.1"}),
    )
    for options, arguments in cases:
        listed = shop("diff", "aggregates", *options, "--format", "json")
        with api.open() as store:
            ours = store.diff(**arguments)
            if listed.json()["differences"]:
                expect_same(ours, listed.json()["differences"], without=("causes", "event_ids"))
            assert len(list(ours)) == len(listed.json()["differences"]), options
            assert ours.compared == listed.json()["compared"]


def test_an_explanation(shop):
    listed = shop("explain", "revenue", "a", "2026-01-01", "--events", "--format", "json").json()
    with api.open() as store:
        found = store.explain("revenue", "a", "2026-01-01")
        for name in ("metric", "entity_id", "bucket", "proven", "run_id"):
            assert plain(getattr(found, name)) == listed[name], name
        for name in ("current", "recomputed", "delta"):
            assert getattr(found, name) == Decimal(listed[name]), name
        causes = [{**one, "proven": one["certainty"] == "proven"} for one in listed["causes"]]
        expect_same(found.causes, causes)
        expect_same(found.events, listed["events"], without=("payload",))
        assert sum(one.share for one in found.causes) == found.delta == Decimal("0.25")
        assert found.events.to_arrow().num_rows == 1
        assert "late" in found._repr_html_()
        noon = next(iter(store.aggregates("a", "revenue"))).bucket
        assert store.explain("revenue", "a", noon).delta == found.delta
