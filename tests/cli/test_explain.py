"""`pik explain`: the causes of a difference, the events behind them, and what cannot be explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pik.usecases.metrics import candidates

METRIC = 'name = "revenue"\nvalue = "sum((payload->>\'v\')::DECIMAL(18, 2))"\n'
PLACE = ("revenue", "a", "2026-01-01")


def line(value: str, hour: int) -> str:
    event = {"source": "web", "event_type": "paid", "entity_id": "a", "event_time": f"2026-01-01T{hour:02}:00:00Z"}
    return json.dumps(event)[:-1] + f', "payload": {{"v": {value}, "name": "n{hour}"}}}}\n'


@pytest.fixture
def few_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the days of other zones, a few are tried."""
    monkeypatch.setattr(candidates, "OFFSETS", range(-1, 3))


@pytest.fixture
def shop(pik: Callable[..., Any], tmp_path: Path, once: Callable[..., None]) -> Callable[..., Any]:
    """Two batches of revenue are current; 4.25 came later."""

    def make() -> None:
        (tmp_path / "m.toml").write_text(METRIC)
        for name, text in (("first", line("1.5", 1)), ("second", line("2", 23)), ("late", line("4.25", 5))):
            (tmp_path / f"{name}.jsonl").write_text(text)
        pik("ingest", "first.jsonl")
        pik("metrics", "apply", "m.toml")
        pik("ingest", "second.jsonl")
        pik("replay", "--all", "--promote", "--yes", "--reason", "nightly")
        assert pik("ingest", "late.jsonl").code == 0

    once(make)
    return pik


def explained(pik: Callable[..., Any], *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pik("explain", *PLACE, *options, "--format", "json").out)
    return found


def test_the_causes_add_up_and_name_who_wrote_the_current_value(shop: Callable[..., Any]) -> None:
    result = shop("explain", *PLACE)
    assert result.code == 1
    assert "late" in result.out
    found = explained(shop)
    assert (found["current"], found["recomputed"], found["delta"], found["proven"]) == (3.5, 7.75, 4.25, True)
    assert [(one["cause"], one["share"], one["certainty"]) for one in found["causes"]] == [
        ("late", 4.25, "proven"),
        ("unexplained", 0, "proven"),
    ]
    assert (found["run_reason"], found["promoted_at"] is not None) == ("nightly", True)
    shop(*found["next"].split()[1:], "--promote", "--yes")
    result = shop("explain", *PLACE)
    assert (result.code, explained(shop)["delta"]) == (0, 0)


def test_the_events_behind_a_cause_lead_to_show(shop: Callable[..., Any]) -> None:
    [event] = explained(shop, "--events", "--column", "payload.v", "--column", "payload.name")["events"]
    assert (event["cause"], event["change"], event["values"]) == (
        "late",
        "+",
        {"payload.v": 4.25, "payload.name": "n5"},
    )
    assert shop("show", event["event_id"]).code == 0
    assert explained(shop, "--events")["events"][0]["values"] is None
    assert "events" not in explained(shop)


def test_a_changed_definition_is_shown_side_by_side(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(METRIC.replace("sum(", "2 * sum("))
    shop("metrics", "apply", "m.toml")
    found = explained(shop)
    assert [(one["cause"], one["share"]) for one in found["causes"]] == [
        ("definition", 3.5),
        ("late", 8.5),
        ("unexplained", 0),
    ]
    assert [one["metric"] for one in found["definitions"]] == ["revenue@1", "revenue@2"]
    assert found["next"].startswith("pik replay --entity a --metric revenue ")
    found = json.loads(shop("explain", "revenue@1", *PLACE[1:], "--format", "json").out)
    assert (found["recomputed"], found["next"]) == (7.75, None)  # a replay would compute revenue@2
    diff = json.loads(shop("diff", "aggregates", "--metric", "revenue@1", "--format", "json").out)
    assert (diff["different"], diff["next"]) == (1, None)


def test_what_raw_does_not_hold_any_more_is_lost_and_its_share_is_inferred(
    shop: Callable[..., Any], tmp_path: Path
) -> None:
    [batch] = [
        one
        for one in json.loads(shop("batches", "--format", "json").out)["batches"]
        if one["accepted"] and one["source"] == "second.jsonl"
    ]
    [segment] = (tmp_path / ".pik" / "raw").rglob(f"{batch['batch_id']}-*")
    segment.unlink()
    shop("verify", "--rebuild-index")
    found = explained(shop)
    assert [(one["cause"], one["share"], one["certainty"]) for one in found["causes"]] == [
        ("lost", -2, "inferred"),
        ("late", 4.25, "inferred"),
        ("unexplained", 0, "inferred"),
    ]
    assert (found["proven"], found["causes"][0]["events"]) == (False, None)
    assert found["next"] == "pik verify --full\npik verify --restore SOURCE"
    assert found["not_read"] == {"events": 1, "recorded_since": 0, "lowest": None, "highest": None}
    shown = shop("explain", *PLACE)
    assert (shown.code, "up to 1 event recorded before: the right value is not known" in shown.out) == (3, True)


def test_a_diff_splits_each_row_by_cause(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(METRIC.replace("sum(", "2 * sum("))
    shop("metrics", "apply", "m.toml")
    result = shop("diff", "aggregates", "--explain", "--format", "json")
    rows = {row["metric"]: row for row in json.loads(result.out)["differences"]}
    assert rows["revenue"]["causes"] == [{"cause": "definition", "share": 3.5}, {"cause": "late", "share": 8.5}]
    assert rows["event_count"]["causes"] == [{"cause": "late", "share": 1}]
    assert all(row["proven"] for row in rows.values())
    assert "definition +3.50, late +8.50" in shop("diff", "aggregates", "--explain").out


@pytest.mark.parametrize(
    ("bucket", "text", "start"),
    [
        ("1w", "2026-W01", "2025-12-29"),
        ("1w", "2026w1", "2025-12-29"),
        ("1mo", "2026-01", "2026-01-01"),
        ("1mo", "January 2026", "2026-01-01"),
        ("1mo", "31.01.2026", "2026-01-01"),
    ],
)
def test_a_bucket_is_named_as_in_a_file_of_numbers(
    shop: Callable[..., Any], tmp_path: Path, bucket: str, text: str, start: str
) -> None:
    """A week is the one of ISO 8601: that of 1 January 2026, a Thursday, begins in 2025."""
    (tmp_path / "m.toml").write_text(f'[[metric]]\nname = "n"\nvalue = "count(*)"\nbucket = "{bucket}"\n')
    shop("metrics", "apply", "m.toml")
    result = shop("explain", "n", "a", text, "--format", "json")
    assert json.loads(result.out)["bucket"] == f"{start}T00:00:00Z", result.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("revenue", "nobody", "2026-01-01"), 2, "nothing to explain: revenue of 'nobody' has neither"),
        (("revenue", "nobody"), 2, "hint: after an entity: pik explain revenue nobody 2026-01-31"),
        (("profit", "a", "2026-01-01"), 2, "there is no metric 'profit'"),
        (("revenue", "a", "noon"), 2, "BUCKET: "),
        (("revenue", "a"), 2, "BUCKET"),
        (("revenue", "a", "2026-W54"), 2, "BUCKET: '2026-W54' is not of the calendar"),
        (("revenue", "a", "2026-W01"), 2, "BUCKET: '2026-W01' is a week, and the buckets of revenue are not weeks"),
        ((*PLACE, "--column", "payload.v"), 2, "--column is for the events"),
        ((*PLACE, "--events", "--column", "payload["), 2, "--column payload["),
        (("--store", "absent", *PLACE), 4, "absent"),
    ],
)
def test_a_question_that_cannot_be_answered_names_what_is_wrong(
    shop: Callable[..., Any], arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = shop("explain", *arguments)
    assert (result.code, message in result.err) == (code, True), result.err


def test_a_diff_of_an_earlier_definition_is_split_by_that(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(METRIC.replace("sum(", "2 * sum("))
    shop("metrics", "apply", "m.toml")
    result = shop("diff", "aggregates", "--metric", "revenue@1", "--explain", "--format", "json")
    [row] = json.loads(result.out)["differences"]
    assert row["causes"] == [{"cause": "late", "share": 4.25}]


def test_a_metric_that_is_only_assumed_is_explained_by_the_assumption(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('name = "fresh"\nvalue = "count(*)"\n')
    options = ("--assume", "definition=@m.toml", "--explain", "--format", "json")
    rows = {row["metric"]: row for row in json.loads(shop("diff", "aggregates", *options).out)["differences"]}
    assert rows["fresh"]["causes"] == [{"cause": "assumed", "share": 3}]
    assert rows["event_count"]["causes"] == [{"cause": "late", "share": 1}]


def test_texts_of_events_are_shown_as_they_are(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text(line("1", 6).replace('"n6"', json.dumps('say "hi"')))
    assert shop("ingest", "more.jsonl").code == 0
    assert 'say "hi"' in shop("explain", *PLACE, "--events", "--column", "payload.name").out


def test_any_two_sides_are_explained(shop: Callable[..., Any]) -> None:
    old = next(iter(json.loads(shop("runs", "list", "--format", "json").out)["runs"]))["run_id"]
    counted = json.loads(shop("replay", "--all", "--assume", "duplicates=counted", "--format", "json").out)["run_id"]
    shop("replay", "--all", "--promote", "--yes")
    for options, causes, code in (
        (("--left", f"run:{old}"), [("late", 4.25)], 1),
        (("--left", f"run:{old}", "--right", "current"), [("late", 4.25)], 1),
        (("--run", old), [("late", -4.25)], 1),
        (("--left", f"run:{counted}"), [("duplicates", 0)], 0),
        (("--left", f"run:{old}", "--run", counted), [("duplicates", 0), ("late", 4.25)], 1),
        (("--left", "current@2020-01-01", "--right", "current"), [("not computed", 7.75)], 1),
        (("--left", f"run:{old}", "--right", "current@2020-01-01"), [("not computed", -3.5)], 1),
    ):
        found = explained(shop, *options)
        assert found["proven"] is True
        shares = [(one["cause"], one["share"]) for one in found["causes"]]
        assert shares == [*causes, ("unexplained", 0)], options
        assert shop("explain", *PLACE, *options).code == code
    found = explained(shop, "--left", f"run:{old}", "--right", "current")
    assert (found["left_side"], found["right_side"], found["run_id"]) == (f"run:{old}", "current", old)
    assert found["causes"][0]["run_id"] == old
    assert found["right_run_id"] not in (old, None)
    for run in (found["right_run_id"], old):
        shop("rollback", run, "--yes")
    found = explained(shop)
    assert (found["causes"][0]["promotion_id"] is not None, found["promoted_at"]) == (True, None)


def test_a_number_of_a_file_is_imported_and_the_scenarios_that_give_it_are_named(
    shop: Callable[..., Any], few_zones: None, tmp_path: Path
) -> None:
    def ledger(value: str) -> Any:
        (tmp_path / "ledger.csv").write_text(f"day,entity,revenue\n2026-01-01,a,{value}\n")
        return shop("explain", *PLACE, "--against", "ledger.csv", "--format", "json")

    found = json.loads(ledger("3.5").out)
    assert [(one["cause"], one["share"], one["certainty"]) for one in found["causes"]] == [
        ("imported", 4.25, "inferred"),
        ("unexplained", 0, "inferred"),
    ]
    assert {one["kind"] for one in found["trials"]} >= {"without-batch", "as-of", "current"}
    assert (found["tried"] > 5, found["failed"], found["proven"]) == (True, 0, None)
    assert ledger("7.75000001").code == 1
    assert "imported -0.00000001 (inferred)" in shop("diff", "aggregates", "--against", "ledger.csv", "--explain").out
    result = shop("explain", *PLACE, "--against", "ledger.csv")
    assert "no scenario that was tried gives the number" in result.out
    assert "others together" in result.out
    assert ledger("7.75").code == 0
    assert json.loads(ledger("7.75").out)["trials"] is None


def test_an_expected_number_is_tried_as_that_of_a_file_is_and_next_goes_on_with_what_gives_it(
    shop: Callable[..., Any], few_zones: None, tmp_path: Path
) -> None:
    assert explained(shop, "--expect", "7.750")["trials"] is None
    found = explained(shop, "--expect", "3.5", "--assume", "corrections=none")
    assert (found["current"], found["recomputed"], found["expected_value"], found["off_by"]) == (3.5, 7.75, 3.5, -4.25)
    assert [(one["kind"], one["events"]) for one in found["trials"]] == [
        ("without-batch", 1),
        ("as-of", 1),
        ("current", None),
    ]
    late = found["trials"][0]["scenario"]
    assert found["next"] == f"pik correct --assume {late} --reason REASON --dry-run"
    result = shop("explain", *PLACE, "--expect", "3.5")
    assert "3 scenarios give the number; raw cannot tell which one is true" in result.err
    assert "expected value  3.50\n" in shop("explain", *PLACE, "--expect", " 3.50").out
    result = shop("explain", *PLACE, "--expect", "9", "--format", "json")
    day = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z")
    assert (result.code, json.loads(result.out)["next"]) == (1, f"pik triage --entity a {' '.join(day)}")
    assert (
        json.loads(shop("explain", *PLACE, "--expect", "9", "--tolerance", "1.25", "--format", "json").out)["trials"]
        is None
    )


def test_totals_are_explained_by_the_sums_of_the_shares(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text(line("8", 3).replace("2026-01-01", "2026-01-02"))
    shop("ingest", "more.jsonl")
    for options in (("--total",), ("--by", "bucket"), ("--by", "run"), ("--total", "--tolerance", "5")):
        options = (*options, "--metric", "revenue", "--explain")
        rows = json.loads(shop("diff", "aggregates", *options, "--format", "json").out)["totals"]
        sums = [sum(one["share"] for one in row["causes"] or ()) for row in rows]
        assert sums == [row["delta"] for row in rows]
        assert sum(sums) == 12.25
    [row] = json.loads(shop("diff", "aggregates", *options, "--format", "json").out)["totals"]
    assert row["causes"] == [{"cause": "not computed", "share": 8}, {"cause": "late", "share": 4.25}]
    (tmp_path / "more.jsonl").write_text(line('"x"', 4))
    shop("ingest", "more.jsonl")
    failing = ("--by", "run", "--to", "2026-01-02", "--metric", "revenue", "--explain", "--format", "json")
    result = shop("diff", "aggregates", *failing)
    [row] = json.loads(result.out)["totals"]
    assert (result.code, row["not_computed"], row["delta"], row["causes"]) == (3, 1, None, None)
    (tmp_path / "m.toml").write_text('name = "largest"\nvalue = "max((payload->>\'v\')::DECIMAL(18, 2))"\n')
    shop("metrics", "apply", "m.toml")
    result = shop("diff", "aggregates", "--total", "--explain", "--metric", "largest")
    assert (result.code, "causes do not add up" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--against", "absent.csv"), 2, "absent.csv"),
        (("--against", "m.toml"), 2, "m.toml"),
        (("--left", "run:01ZZ"), 4, "run 01ZZ"),
        (("--right", "current"), 2, "both sides are the same"),
        (("--left", "current@2020-01-01", "--right", "current", "--as-of", "2026-01-01"), 2, "recomputes nothing"),
        (("--tolerance", "1"), 2, "--tolerance is for a number to meet"),
        (("--expect", "4,469.45"), 2, "'4,469.45' is not a number"),
        (("--expect", ""), 2, "--expect is empty"),
        (("--expect", "nan"), 2, "'nan' is not a number"),
        (("--expect", "1", "--against", "m.toml"), 2, "exclude each other"),
        (("--key", "bucket=day"), 2, "--key and --value name columns of a file"),
        (("--left", "current@2020-01-01", "--right", "current@2020-01-02"), 2, "no value on either side"),
    ],
)
def test_a_wrong_side_of_an_explanation_is_an_error(
    shop: Callable[..., Any], options: tuple[str, ...], code: int, message: str
) -> None:
    result = shop("explain", *PLACE, *options)
    assert (result.code, message in result.err) == (code, True), result.err


def test_a_correction_that_gives_the_number_and_reaches_further_says_how_to_narrow_it(
    pik: Callable[..., Any], few_zones: None, tmp_path: Path
) -> None:
    again = line("2", 1).replace(":00:00Z", ":00:02Z")
    (tmp_path / "all.jsonl").write_text(
        line("2", 1) + again + line("5", 3) + (line("2", 1) + again).replace("-01T", "-02T")
    )
    (tmp_path / "m.toml").write_text(METRIC)
    pik("ingest", "all.jsonl")
    pik("metrics", "apply", "m.toml")
    pik("replay", "--all", "--promote", "--yes")
    result = pik("explain", *PLACE, "--expect", "7")
    narrowed = "entity=a,from=2026-01-01T00:00:00Z,to=2026-01-02T00:00:00Z"
    assert f"for this value alone append ,{narrowed}\n" in result.err
    assert "pik correct --assume without=suspects,source=web --reason" in " ".join(result.out.split())
    for appended, events in (("", 2), (f",{narrowed}", 1)):
        words = ("--assume", f"without=suspects,source=web{appended}", "--reason", "r", "--dry-run", "--format", "json")
        assert json.loads(pik("correct", *words).out)["corrections"][0]["events"] == events


def test_a_correction_or_revocation_without_which_the_number_is_right_is_found_with_how_to_take_it_back(
    shop: Callable[..., Any], few_zones: None
) -> None:
    def recorded(*words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(shop(*words, "--reason", "r", "--yes", "--format", "json").out)
        return found

    made = recorded("correct", "--assume", "without=selected,entity=a,where=(payload->>'v') = '4.25'")
    wrong = made["corrections"][0]["correction_id"]
    found = explained(shop, "--expect", "7.75")
    tried = [(one["scenario"], one["value"], one["events"]) for one in found["trials"] if one["kind"] == "correction"]
    assert (found["recomputed"], tried) == (3.5, [(f"without-correction={wrong}", 7.75, 1)])
    assert found["next"] == f"pik corrections revoke {wrong} --reason REASON"
    assumed = shop("explain", *PLACE, "--assume", f"without-correction={wrong[:20].lower()}", "--format", "json")
    assert (json.loads(assumed.out)["recomputed"], json.loads(assumed.out)["delta"]) == (7.75, 4.25)

    back = recorded("corrections", "revoke", wrong)["correction_id"]
    found = explained(shop, "--expect", "3.5")
    assert f"without-correction={back}" in [one["scenario"] for one in found["trials"]]
    result = shop("explain", *PLACE, "--assume", f"without-correction={wrong}")
    assert (result.code, f"revoked already, by {back}" in result.err) == (2, True)
    result = shop("explain", *PLACE, "--assume", "without-correction=01ZZ")
    assert (result.code, "correction 01ZZ is not in this store" in result.err) == (4, True), result.err
    result = shop("correct", "--assume", f"without-correction={back}", "--reason", "r", "--dry-run")
    assert (result.code, "pik corrections revoke" in result.err) == (2, True)


def test_what_follows_a_trial_of_an_earlier_moment_shows_that_number(
    shop: Callable[..., Any], few_zones: None, tmp_path: Path
) -> None:
    shop("replay", "--all", "--promote", "--yes", "--reason", "late, too")
    for name, value, hour in (("more", "8", 6), ("most", "16", 7)):
        (tmp_path / f"{name}.jsonl").write_text(line(value, hour))
        shop("ingest", f"{name}.jsonl")
    found = explained(shop, "--expect", "7.75")
    assert (found["recomputed"], found["trials"][0]["kind"]) == (31.75, "as-of")
    then = json.loads(shop("explain", "--format", "json", *found["next"].split()[2:]).out)
    assert (then["recomputed"], then["current"]) == (7.75, 7.75)
