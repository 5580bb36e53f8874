"""`pik triage`: every planted fault is found, ranked and shown with its command; a sound store has none."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from time import time_ns
from typing import Any

import pytest
from msgspec import structs
from ulid import ULID

from pik.engine import DuckEngine
from pik.model.batch import Origin
from pik.model.instant import DAY, parse_instant
from pik.model.republish import RepublishState
from pik.model.run import RunRequest
from pik.model.window import ALL_TIME, Window
from pik.ports.raw import RawKind
from pik.rawlog.objects import packed
from pik.stores import open_store
from pik.usecases.care.triage_checks import id_prefixes
from pik.usecases.inspect.batches import ClosingLine
from pik.usecases.replay.plan import plan_replay, start
from tests.contracts.test_republishes import republish_of

METRIC = 'name = "revenue"\nvalue = "sum((payload->>\'v\')::BIGINT)"\n'
Pik = Callable[..., Any]


def line(entity: str, value: int, day: int, hour: int = 1, **more: str) -> str:
    event = {
        "source": "web",
        "event_type": "paid",
        "entity_id": entity,
        "event_time": f"2026-01-0{day}T{hour:02}:00:00Z",
        "payload": {"v": value},
    }
    return json.dumps(event | more) + "\n"


def ingest(pik: Pik, name: str, text: str) -> Any:
    Path(name).write_text(text)
    return pik("ingest", name)


@pytest.fixture
def shop(pik: Pik, tmp_path: Path) -> Pik:
    """Two days of two entities; their numbers are current."""
    ingest(pik, "days.jsonl", line("a", 10, 1) + line("b", 20, 1) + line("a", 30, 2, idempotency_key="k"))
    (tmp_path / "m.toml").write_text(METRIC)
    pik("metrics", "apply", "m.toml")
    assert pik("replay", "--all", "--promote", "--yes").code == 0
    return pik


def triage(pik: Pik, *options: str) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    result = pik("triage", *options, "--format", "json")
    document = json.loads(result.out)
    return result.code, document["findings"], document


def test_what_nothing_was_ever_computed_for_leads_to_the_replay_of_all(pik: Pik) -> None:
    ingest(pik, "days.jsonl", line("a", 10, 1) + line("b", 20, 1))
    code, [found], document = triage(pik, "--from", "2026-01-01")
    assert (code, found["cause"], found["buckets"]) == (1, "not computed", 2)
    assert document["next"] == "pik diff aggregates --metric event_count --from 2026-01-01T00:00:00Z"
    shown = json.loads(pik(*shlex.split(document["next"])[1:], "--format", "json").out)
    assert (shown["different"], shown["next"].startswith("pik replay --all")) == (2, True)


def test_a_sound_store_has_no_finding_and_names_every_check(shop: Pik) -> None:
    code, findings, document = triage(shop)
    assert (code, findings, document["next"]) == (0, [], None)
    assert [one["findings"] for one in document["checks"]] == [0] * 16
    shown = shop("triage")
    assert "nothing found by 16 checks" in shown.out
    assert "does not prove that what was sent" in shown.err
    notes = {one["check"]: one["note"] for one in document["checks"] if one["note"]}
    assert notes == {
        "skew": "cannot know for 1 source: too few events or hours",
        "gaps": "cannot know for 1 source: too few earlier days to learn from",
    }


def test_values_that_do_not_add_up_are_not_summed(shop: Pik, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(METRIC.replace("sum(", "max("))
    shop("metrics", "apply", "m.toml")
    shop("replay", "--all", "--promote", "--yes")
    ingest(shop, "late.jsonl", line("a", 90, 1, 2) + line("b", 90, 1, 2))
    [found] = [one for one in triage(shop)[1] if one["metric"] == "revenue"]
    assert (found["what"], found["delta"], found["buckets"]) == ("revenue is off in 2 values: 2 late events", None, 2)


def test_statistical_findings_come_last(shop: Pik) -> None:
    ingest(shop, "retry.jsonl", line("a", 10, 1).replace("T01:00:00Z", "T01:00:02Z"))
    findings = triage(shop)[1]
    assert [one["check"] for one in findings] == ["late events", "late events", "suspects"]
    assert shop(*shlex.split(findings[-1]["command"])[1:]).code == 0


@pytest.mark.parametrize(
    ("fails", "failed", "times"),
    [("", set[str](), 1), ("neighbour", {"suspects"}, 2), ("hours", {"skew", "gaps"}, 2)],
    ids=["none", "suspects", "skew and gaps"],
)
def test_deliveries_are_loaded_once_and_a_statistical_check_that_fails_does_not_stop_the_others(
    shop: Pik, monkeypatch: pytest.MonkeyPatch, fails: str, failed: set[str], times: int
) -> None:
    import duckdb

    from pik.engine import tables

    loads, load, keep = list[object](), tables._load, tables.DuckTables.keep

    def counted(*arguments: Any) -> None:
        loads.append(arguments)
        load(*arguments)

    def failing(self: tables.DuckTables, name: str, *arguments: Any) -> None:
        if name == fails:
            raise duckdb.OutOfMemoryException("no room")
        keep(self, name, *arguments)

    monkeypatch.setattr(tables, "_load", counted)
    monkeypatch.setattr(tables.DuckTables, "keep", failing)
    _, _, found = triage(shop)
    failures = {one["check"]: one["failure"] for one in found["checks"] if one["failure"]}
    assert failures.keys() == failed
    assert all("no room" in text for text in failures.values())
    assert len(loads) == times


def test_differences_are_split_by_cause_and_ranked_by_their_effect(shop: Pik, tmp_path: Path) -> None:
    ingest(shop, "late.jsonl", line("a", 5, 1, 2))
    thrice = " + ".join(["sum((payload->>'v')::BIGINT)"] * 3)
    (tmp_path / "m.toml").write_text(f'name = "revenue"\nvalue = "{thrice}"\n')
    shop("metrics", "apply", "m.toml")
    code, findings, document = triage(shop)
    assert code == 1
    shown = [(one["metric"], one["cause"], one["delta"], one["buckets"]) for one in findings]
    assert shown == [("revenue", "definition", 120, 3), ("event_count", "late", 1, 1), ("revenue", "late", 15, 1)]
    assert [round(float(one["effect"]), 4) for one in findings] == [round(120 / 195, 4), 0.25, round(15 / 195, 4)]
    for one in findings:
        assert shop(*shlex.split(one["command"])[1:]).code == 1
    assert document["next"].split("\n") == [one["command"] for one in findings]


def test_other_faults_are_found_each_by_its_check(shop: Pik, tmp_path: Path) -> None:
    ingest(shop, "conflict.jsonl", line("a", 31, 2, idempotency_key="k") + line("a", 32, 1, idempotency_key="k"))
    assert ingest(shop, "broken.jsonl", line("a", 10, 1) + "not JSON\n").code == 3
    run = json.loads(shop("runs", "list", "--format", "json").out)["runs"][0]["run_id"]
    shop("rollback", run, "--yes")
    found = {(one["check"], one["scope"]): one for one in triage(shop)[1]}
    [broken] = [one for one in json.loads(shop("batches", "--format", "json").out)["batches"] if one["rejected"]]
    assert ("conflicts", "web") in found
    assert ("rejects", broken["batch_id"]) in found
    assert ("promotions", run) in found
    assert {one["cause"] for one in found.values() if one["check"] == "differences"} == {"not computed"}
    for one in found.values():
        assert shop(*shlex.split(one["command"])[1:]).code in (0, 1)
    for segment in (tmp_path / ".pik" / "raw").rglob("event_date=2026-01-02/*"):
        segment.unlink()
    code, after, document = triage(shop)
    without_delta = [one["check"] for one in after if one["delta"] is None]
    assert (without_delta[:2], without_delta.count("damage")) == (["damage"] * 2, 2)
    assert [one for one in after if one["cause"] == "unreadable"]
    assert "conflicts" in without_delta
    failing = [one for one in document["next"].split("\n") if shop(*shlex.split(one)[1:]).code == 4]
    assert not failing
    assert (code, [one["check"] for one in document["checks"] if one["failure"]]) == (
        3,
        ["conflicts", "suspects", "skew", "gaps"],
    )


def test_a_baseline_leaves_out_what_was_found_before_whatever_its_figures(shop: Pik, tmp_path: Path) -> None:
    ingest(shop, "late.jsonl", line("a", 5, 1, 2))
    (tmp_path / "base.json").write_text(shop("triage", "--format", "json").out)
    ingest(shop, "later.jsonl", line("b", 7, 1, 3))
    (tmp_path / "base.json").write_text((tmp_path / "base.json").read_text(), encoding="utf-16")  # as PowerShell does
    code, findings, document = triage(shop, "--baseline", "base.json")
    assert (code, findings, len(document["known"])) == (0, [], 2)
    (tmp_path / "base.json").write_text(json.dumps(document))
    ingest(shop, "conflict.jsonl", line("a", 31, 2, idempotency_key="k"))
    code, findings, document = triage(shop, "--baseline", "base.json")
    assert (code, [one["check"] for one in findings], len(document["known"])) == (1, ["conflicts"], 2)


def test_only_the_window_and_the_entity_are_looked_at(shop: Pik) -> None:
    ingest(shop, "late.jsonl", line("a", 5, 1, 2) + line("b", 5, 2, 2))
    for options, entities in (
        (["--entity", "a"], 2),
        (["--from", "2026-01-02"], 2),
        (["--entity", "a", "--from", "2026-01-02"], 0),
    ):
        _, findings, found = triage(shop, *options)
        assert len(findings) == entities
        [note] = [one["note"] for one in found["checks"] if one["check"] == "rejects"]
        assert ("whose a rejected record is" in str(note)) == ("--entity" in options)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--entity", "nobody"], 2, "neither an event nor a current value of 'nobody'"),
        (["--from", "2027-01-01"], 2, "neither an event nor a current value"),
        (["--baseline", "absent.json"], 2, "there is no file absent.json"),
        (["--baseline", "days.jsonl"], 2, "days.jsonl is not JSON: unexpected '{'"),
        (["--store", "elsewhere"], 4, "elsewhere"),
    ],
)
def test_what_cannot_be_triaged_is_an_error(shop: Pik, options: list[str], code: int, message: str) -> None:
    result = shop("triage", *options)
    assert (result.code, message in result.err) == (code, True), result.err


def moves(pik: Pik, *options: str) -> list[tuple[str, str]]:
    """The runs that left values behind, and the metrics."""
    found = [one for one in triage(pik, *options)[1] if one["check"] == "promotions"]
    return sorted((one["scope"], one["metric"]) for one in found)


def test_a_run_that_was_rolled_back_is_no_finding_once_another_one_replaced_it(shop: Pik) -> None:
    run = json.loads(shop("runs", "list", "--format", "json").out)["runs"][0]["run_id"]
    shop("rollback", run, "--yes")
    assert moves(shop) == [(run, "event_count"), (run, "revenue")]
    shop("replay", "--all", "--metric", "event_count", "--promote", "--yes")
    shop("replay", "--entity", "a", "--promote", "--yes")
    assert moves(shop) == [(run, "revenue")]
    shop("replay", "--all", "--promote", "--yes")
    assert moves(shop) == []
    ingest(shop, "late.jsonl", line("b", 5, 1, 3))
    assert moves(shop) == []


def test_a_run_of_other_entities_is_no_finding_about_one(shop: Pik) -> None:
    shop("replay", "--entity", "b", "--from", "2026-01-01", "--to", "2026-01-02", "--promote", "--yes")
    ingest(shop, "late.jsonl", line("b", 5, 1, 3))
    shop("replay", "--entity", "b", "--promote", "--yes")
    run = json.loads(shop("runs", "list", "--format", "json").out)["runs"][0]["run_id"]
    shop("rollback", run, "--yes")
    assert moves(shop, "--entity", "b") == [(run, "event_count"), (run, "revenue")]
    assert moves(shop, "--entity", "a") == []


def test_a_file_that_was_rejected_whole_is_found_in_the_window_in_which_it_came(shop: Pik) -> None:
    assert ingest(shop, "broken.jsonl", "not JSON\n").code == 3
    ingest(shop, "today.jsonl", line("a", 1, 1) + "not JSON\n")

    def rejects(*options: str) -> set[str]:
        return {one["what"].partition(" of ")[2] for one in triage(shop, *options)[1] if one["check"] == "rejects"}

    whole, part = "broken.jsonl were rejected", "today.jsonl were rejected"
    assert rejects() == rejects("--from", "2026-01-01") == {"1 records of " + whole, "2 records of " + part}
    assert rejects("--from", "2026-01-01", "--to", "2026-01-02") == {"2 records of " + part}
    assert rejects("--entity", "a") == {"2 records of " + part}


def test_the_command_of_a_finding_can_be_typed_whatever_the_entity_is_called(shop: Pik) -> None:
    ingest(shop, "late.jsonl", line("--dash", 5, 1, 2) + line("o'b c", 5, 2, 2))
    found = [one for one in triage(shop)[1] if one["check"] == "differences"]
    assert found
    for one in found:
        assert shop(*shlex.split(one["command"])[1:]).code == 1, one["command"]
    [row] = triage(shop, "--entity", "--dash", "--to", "2026-01-02")[1][:1]
    assert shop(*shlex.split(row["command"])[1:]).code == 1, row["command"]


def test_what_counts_by_a_correction_is_not_late_too_and_a_long_reason_is_cut_in_tables(shop: Pik) -> None:
    ingest(shop, "corrected.jsonl", line("a", 35, 2, idempotency_key="k"))
    reason = "INC-42: " + "the corrected amounts count, as the bank has them" * 4
    assert shop("correct", "--assume", "conflicts=last,entity=a", "--reason", reason, "--yes").code == 0
    code, findings, document = triage(shop)
    found = [(one["check"], one["metric"], one["delta"]) for one in findings]
    assert (code, found) == (1, [("differences", "revenue", 5)])
    assert findings[0]["what"].endswith(f"({reason})")
    [note] = [one["note"] for one in document["checks"] if one["check"] == "late events"]
    assert note.startswith("those that move nothing are left out in 2 values: a correction was recorded since")
    shown = shop("triage").out
    assert ("(INC-42: the corrected amounts count, as the bank has" in shown, reason in shown) == (True, False)
    shop("replay", "--all", "--promote", "--yes")
    ingest(shop, "late.jsonl", line("a", 0, 2, 3))
    assert ("late events", "revenue", 0) in [(one["check"], one["metric"], one["delta"]) for one in triage(shop)[1]]


def test_late_events_that_move_nothing_and_equal_values_of_an_old_definition_are_found(
    shop: Pik, tmp_path: Path
) -> None:
    ingest(shop, "late.jsonl", line("a", 0, 1, 2))
    never_null = METRIC.replace("sum(", "coalesce(sum(").replace("BIGINT)", "BIGINT), 0)")
    (tmp_path / "m.toml").write_text(never_null)
    shop("metrics", "apply", "m.toml")
    code, findings, _ = triage(shop)
    assert code == 1
    found = {(one["check"], one["metric"]): one for one in findings}
    assert found.keys() == {("late events", "event_count"), ("late events", "revenue"), ("old definitions", "revenue")}
    late, old = found["late events", "revenue"], found["old definitions", "revenue"]
    assert (late["events"], late["buckets"], late["delta"], late["since"]) == (1, 1, 0, "2026-01-01T00:00:00Z")
    assert (old["scope"], old["buckets"], old["delta"]) == ("revenue@1", 3, 0)
    for one in findings:
        shown = shop(*shlex.split(one["command"])[1:])
        assert shown.code in (0, 1)
        assert "2026-01-01T00:00:00Z" in shown.out
    (tmp_path / "m.toml").write_text(
        'description = "other words"\n' + METRIC.replace("sum(", "coalesce(sum(").replace("BIGINT)", "BIGINT), 0)")
    )
    shop("replay", "--all", "--promote", "--yes")
    shop("metrics", "apply", "m.toml")
    assert triage(shop)[:2] == (0, [])


def test_a_promotion_in_part_is_found_with_what_the_rest_of_it_would_move(shop: Pik) -> None:
    ingest(shop, "late.jsonl", line("a", 5, 1, 2) + line("b", 7, 1, 3))
    window = ["--from", "2026-01-01", "--to", "2026-01-02"]

    def replayed(*options: str) -> str:
        return str(json.loads(shop("replay", *options, *window, "--format", "json").out)["run_id"])

    part = replayed("--entity", "a")
    ingest(shop, "later.jsonl", line("a", 100, 1, 4) + line("b", 200, 1, 4))
    whole = replayed("--all")
    assert shop("promote", part, "--yes").code == 0
    assert shop("promote", whole, "--yes").code == 3
    code, findings, _ = triage(shop)
    found = {(one["check"], one["metric"], one["cause"]): one for one in findings}
    late, behind = found["late events", "revenue", "late"], found["promotions", "revenue", "promoted in part"]
    assert (code, late["delta"], late["buckets"]) == (1, 100, 1)
    assert (behind["scope"], behind["delta"], behind["buckets"]) == (whole, 100, 1)
    assert "left" not in shop(*shlex.split(behind["command"])[1:]).err
    assert len(found) == 4
    shop("replay", "--entity", "a", *window, "--promote", "--yes")
    assert triage(shop)[:2] == (0, [])


def test_a_run_that_was_left_unfinished_is_found_until_a_newer_one_replaces_it(shop: Pik, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / ".pik"))
    run = start(store, plan_replay(store, DuckEngine(), RunRequest(start=ALL_TIME.start, end=ALL_TIME.end), 1))
    code, [found], _ = triage(shop)
    assert (code, found["check"], found["cause"], found["scope"]) == (1, "runs", "unfinished", run.run_id)
    assert "PLANNED" in shop(*shlex.split(found["command"])[1:]).out
    with store.runs.driving(run.run_id):
        assert triage(shop)[:2] == (0, [])
    shop("replay", "--all", "--metric", "revenue", "--promote", "--yes")
    assert triage(shop)[0] == 1
    shop("replay", "--all", "--reason", "again", "--promote", "--yes")
    assert triage(shop)[:2] == (0, [])


def test_a_republish_that_did_not_send_everything_is_found_until_a_newer_one_replaces_it(
    shop: Pik, tmp_path: Path
) -> None:
    store, now = open_store(str(tmp_path / ".pik")), time_ns()
    first = republish_of(1, created_at=now)
    store.republishes.create(first)
    code, [found], _ = triage(shop)
    expected = (1, "republishes", "unfinished", first.republish_id, 10)
    assert (code, found["check"], found["cause"], found["scope"], found["events"]) == expected
    assert "RUNNING" in shop(*shlex.split(found["command"])[1:]).out
    with store.republishes.sending(first.republish_id):
        assert triage(shop)[:2] == (0, [])
    assert triage(shop, "--entity", "a")[:2] == (0, [])
    store.republishes.record(structs.replace(first, state=RepublishState.PARTIAL, taken=9))
    assert [(one["cause"], one["events"]) for one in triage(shop)[1]] == [("refused", 1)]
    again = structs.replace(republish_of(2, created_at=now), request=structs.replace(first.request, reason="again"))
    store.republishes.create(again)
    assert len(triage(shop)[1]) == 2
    store.republishes.record(structs.replace(again, state=RepublishState.COMPLETED))
    assert triage(shop)[:2] == (0, [])
    store.republishes.record(structs.replace(again, state=RepublishState.CANCELLED))
    assert [one["scope"] for one in triage(shop)[1]] == [first.republish_id]


@pytest.mark.parametrize("days", [1, 9, 40, 400])
def test_batches_of_a_window_are_asked_for_by_few_beginnings_of_their_ids(days: int) -> None:
    end = parse_instant("2025-03-07T08:09:10.123Z")
    prefixes = id_prefixes(Window(end - days * DAY, end))
    assert 1 <= len(prefixes) <= 4
    for at in (end - days * DAY, end - days * DAY // 2, end):
        made = str(ULID.from_timestamp(at / 10**9))
        assert [one for one in prefixes if made.startswith(one)] != []
    other = str(ULID.from_timestamp((end - 40 * (days + 1) * DAY) / 10**9))
    assert [one for one in prefixes if other.startswith(one)] == []


def test_an_interrupted_batch_is_found_until_a_later_one_replaces_it(shop: Pik, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / ".pik"))
    origin = Origin(name="cut.jsonl", content="0" * 64)
    batch = store.batches.open(origin, str(ULID()), time_ns()).batch_id
    code, [found], _ = triage(shop)
    assert (code, found["check"], found["scope"]) == (1, "interrupted batches", batch)
    assert batch in shop(*shlex.split(found["command"])[1:]).out
    assert triage(shop, "--from", "2026-01-01", "--to", "2026-01-03")[:2] == (0, [])
    line = ClosingLine(format=store.format_version, batch_id=batch, replaced_by=str(ULID()))
    store.raw.create(RawKind.CLOSING.key(batch), packed([line]))
    assert triage(shop)[:2] == (0, [])


def test_a_file_that_was_read_in_two_ways_and_counts_twice_is_found_until_one_batch_is_withdrawn(
    shop: Pik, tmp_path: Path
) -> None:
    """The command computes without the first one. What has the same keys, is only a copy, is another part of the file
    (--records), or has its events out, counts once."""
    sent = line("a", 7, 2).replace("Z", "")
    (tmp_path / "local.jsonl").write_text(sent)
    (tmp_path / "keyed.jsonl").write_text(sent.replace("{", '{"idempotency_key": "local", ', 1))
    (tmp_path / "parts.json").write_text(f'{{"x": [{line("a", 1, 2, 5)}], "y": [{line("a", 1, 2, 6)}]}}')
    for part in "xy":
        shop("ingest", "parts.json", "--input", "json", "--records", f"{part}[]")
    ids: dict[str, list[str]] = {}
    for name in ("local.jsonl", "keyed.jsonl"):
        for zone in ("Europe/Berlin", "UTC"):
            said = shop("ingest", name, "--timezone", zone, "--format", "json")
            ids.setdefault(name, []).append(json.loads(said.out)["batch_id"])
    shop("ingest", "local.jsonl", "--timezone", "UTC", "--again")
    berlin, utc = ids["local.jsonl"]

    def found(*options: str) -> list[dict[str, Any]]:
        return [one for one in triage(shop, *options)[1] if one["check"] == "ingested twice"]

    [one] = found()
    assert (one["scope"], one["events"]) == (utc, 1)
    of_each = f"batch {berlin} (timezone Europe/Berlin; 1 event) and batch {utc} (timezone UTC; 1 event)"
    assert one["what"].endswith(f"local.jsonl was ingested twice, read with other options, and each counts: {of_each}")
    moved = json.loads(shop(*shlex.split(one["command"])[1:], "--metric", "revenue", "--format", "json").out)
    assert [(row["bucket"], row["recomputed"]) for row in moved["differences"]] == [("2026-01-02T00:00:00Z", 46)]
    assert found("--to", "2026-01-02") == found("--entity", "b") == []
    said = json.loads(shop("batches", utc, "--format", "json").out)
    assert (said["read_with"], said["batches"][0]["read_options"]["timezone"]) == ("timezone UTC", "UTC")
    assert berlin in said["batches_of_same_content"]
    shop("correct", "--assume", "without=source:web,to=2026-01-02T00:30:00Z", "--reason", "r", "--yes")
    assert found() != [], "that takes out others"
    shop("correct", "--assume", f"without-batch={berlin}", "--reason", "r", "--yes")
    assert found() == []
    assert berlin not in json.loads(shop("batches", utc, "--format", "json").out)["batches_of_same_content"]


def test_the_batches_of_a_window_are_those_with_events_in_it_and_those_begun_in_it(shop: Pik) -> None:
    for number in range(20):
        ingest(shop, f"{number}.jsonl", line("a", number, 2, 3) + "not JSON\n")
    found = [one for one in triage(shop, "--from", "2026-01-02", "--to", "2026-01-03")[1] if one["check"] == "rejects"]
    assert len({one["scope"] for one in found}) == len(found) == 20
    assert [one for one in triage(shop, "--to", "2026-01-02")[1] if one["check"] == "rejects"] == []


def test_what_came_since_a_correction_and_its_selection_hits_is_found(shop: Pik) -> None:
    def found(*options: str) -> list[tuple[Any, ...]]:
        return [
            (one["cause"], one["scope"], one["events"], one["since"])
            for one in triage(shop, *options)[1]
            if one["check"] == "uncorrected"
        ]

    def correct(*words: str) -> str:
        result = shop("correct", *words, "--reason", "INC-42: local time", "--yes", "--format", "json")
        assert result.code == 0, result.err
        return str(json.loads(result.out)["corrections"][0]["correction_id"])

    shift = correct("--assume", "shift=-1h,source=web,from=2026-01-02")
    correct("--assume", "shift=-1h,entity=b")
    correct("--assume", f"without={json.loads(shop('events', '--format', 'json').out)['events'][0]['event_id']}")
    assert found() == []
    ingest(shop, "late.jsonl", line("a", 5, 2, 3) + line("a", 6, 3, 1) + line("c", 7, 1, 4))
    expected = ("shift", shift, 2, "2026-01-02T03:00:00Z")
    assert found() == found("--entity", "c", "--entity", "a") == [expected]
    assert found("--from", "2026-01-03") == [("shift", shift, 1, "2026-01-03T01:00:00Z")]
    assert found("--to", "2026-01-02") == found("--entity", "c") == []
    [one] = [one for one in triage(shop)[1] if one["check"] == "uncorrected"]
    assert "2 deliveries came after correction" in one["what"]
    words = shlex.split(one["command"])
    assert words[1:4] == ["correct", "--like", shift]
    assert json.loads(shop(*words[1:], "--format", "json").out)["corrections"][0]["deliveries"] == 2
    like = correct("--like", shift)
    assert found() == []
    ingest(shop, "later.jsonl", line("a", 9, 2, 5))
    assert found() == [("shift", like, 1, "2026-01-02T05:00:00Z")]
    looked_at = correct("--like", like)
    assert shop("corrections", "revoke", looked_at, "--reason", "this one is right", "--yes").code == 0
    assert found() == []
    ingest(shop, "last.jsonl", line("a", 10, 2, 7))
    assert found() == [("shift", looked_at, 1, "2026-01-02T07:00:00Z")]
    zone = correct("--assume", "zone=Europe/Berlin,entity=c")
    twice = line("c", 1, 1).replace("2026-01-01T01:00", "2026-10-25T02:30")
    ingest(shop, "twice.jsonl", twice)
    [one] = [one for one in triage(shop, "--from", "2026-10-25")[1] if one["scope"] == zone]
    assert (one["events"], one["what"].partition(" cannot")[0]) == (None, f"what came after correction {zone}")
    assert "exist twice in Europe/Berlin" in one["what"]
