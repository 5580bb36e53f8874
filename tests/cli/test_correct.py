"""`pik correct` and `pik corrections`: what was tried is recorded, repaired with a replay, and taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

Pik = Callable[..., Any]

METRICS = """
[[metric]]
name = "revenue"
value = "sum((payload->>'v')::DECIMAL(18, 2))"
bucket = "1d"
"""

LATE = ("--assume", "shift=-1h,source=till,to=2026-01-02T00:30:00Z")
WHY = ("--reason", "INC-42: local time", "--yes")


@pytest.fixture
def shop(pik: Pik) -> Pik:
    """A store whose numbers are current: a till sent local time for UTC, so a sale counts on the day after its own."""

    def line(source: str, time: str, value: str) -> str:
        event = {"source": source, "event_type": "paid", "entity_id": "a", "event_time": time}
        return json.dumps(event)[:-1] + f', "payload": {{"v": {value}}}}}\n'

    sales = (
        ("till", "2026-01-02T00:15:00Z", "3.5"),
        ("till", "2026-01-01T12:00:00Z", "2"),
        ("web", "2026-01-02T08:00:00Z", "1"),
    )
    Path("events.jsonl").write_text("".join(line(*each) for each in sales))
    Path("metrics.toml").write_text(METRICS)
    for words in (
        ("ingest", "events.jsonl"),
        ("metrics", "apply", "metrics.toml"),
        ("replay", "--all", "--promote", "--yes"),
    ):
        assert pik(*words).code == 0
    return pik


def said(pik: Pik, *line: str, code: int = 0) -> Any:
    result = pik(*line, "--format", "json")
    assert result.code == code, result.err
    return json.loads(result.out, parse_float=Decimal)


def rows(pik: Pik, *options: str) -> list[Any]:
    found: list[Any] = said(pik, "diff", "aggregates", *options, code=1)["differences"]
    return found


def under(pik: Pik) -> list[tuple[int, int]]:
    """Return how many current values of the two days and two metrics were computed with each correction, and before."""
    found = said(pik, "history", "--check")["history"]
    return [(one["with_correction"], one["before_correction"]) for one in found if one["what"] == "correction"]


def test_what_was_tried_is_recorded_repaired_and_taken_back(shop: Pik) -> None:
    tried = rows(shop, *LATE)
    recording = f"pik correct {' '.join(LATE)} --reason REASON --dry-run"
    assert said(shop, "diff", "aggregates", *LATE, code=1)["next"] == recording
    assert said(shop, "explain", "revenue", "a", "2026-01-01", *LATE, code=1)["next"] == recording
    assert [(row["bucket"], row["delta"]) for row in tried if row["metric"] == "revenue"] == [
        ("2026-01-01T00:00:00Z", Decimal("3.50")),
        ("2026-01-02T00:00:00Z", Decimal("-3.50")),
    ]
    recorded = said(shop, "correct", *LATE, *WHY)
    [correction] = recorded["corrections"]
    assert (correction["deliveries"], correction["events"], correction["kind"]) == (2, 2, "shift")
    assert [(row["metric"], row["differing"], row["delta"]) for row in recorded["metrics"]] == [
        ("event_count@1", 2, 0),
        ("revenue@1", 2, 0),
    ]
    assert rows(shop) == tried
    correction_id = correction["correction_id"]
    # Nothing else was recorded since the values were computed; the event of 1 January entered a bucket of the run.
    assert said(shop, "diff", "aggregates", code=1)["next"] == f"pik replay --correction {correction_id}"
    told = said(shop, "diff", "aggregates", "--explain", code=1)
    assert {row["metric"]: row["causes"] for row in told["differences"][1::2]} == {
        "event_count": [{"cause": "corrected", "share": -1}],
        "revenue": [{"cause": "corrected", "share": Decimal("-3.50")}],
    }
    assert told["next"] == f"pik replay --correction {correction_id}"
    totals = said(shop, "diff", "aggregates", "--explain", "--metric", "revenue", "--by", "bucket", code=1)
    assert [row["causes"] for row in totals["totals"]] == [
        [{"cause": "corrected", "share": Decimal(f"{sign}3.50")}] for sign in ("", "-")
    ]
    assert totals["next"] == f"pik replay --correction {correction_id} --metric revenue"
    found = said(shop, "triage", code=1)["findings"]
    assert [(one["check"], one["cause"], one["scope"], one["metric"], one["delta"]) for one in found] == [
        ("differences", "corrected", correction_id, name, 0) for name in ("event_count", "revenue")
    ]
    assert "revenue is off by 0.00 in total, in 2 values: corrected" in found[1]["what"]
    assert found[1]["what"].endswith("shift=-1h,source=till,to=2026-01-02T00:30:00Z (INC-42: local time)")
    assert {one["command"] for one in found} == {f"pik replay --correction {correction_id} --dry-run"}
    why = said(shop, "explain", "revenue", "a", "2026-01-01", "--events", code=1)
    assert [(one["cause"], one["share"], one["correction_id"]) for one in why["causes"]] == [
        ("corrected", Decimal("3.50"), correction_id),
        ("unexplained", 0, None),
    ]
    assert f"correction {correction_id}, " in why["causes"][0]["detail"]
    assert why["causes"][0]["detail"].endswith("(INC-42: local time)")
    assert sorted((one["cause"], one["change"]) for one in why["events"]) == [("corrected", "+"), ("corrected", "~")]
    assert under(shop) == [(0, 4)]
    for format_ in ("table", "jsonl", "csv", "md"):
        assert correction_id in shop("explain", "revenue", "a", "2026-01-01", "--format", format_).out
    assert shop(*recorded["next"].split()[1:], "--yes").code == 0
    assert said(shop, "diff", "aggregates")["differences"] == []
    assert under(shop) == [(4, 0)]
    assert "4 current values computed with it, 0 before it" in shop("history", "--check").out
    [one] = said(shop, "corrections", "list")["corrections"]
    assert (one["correction_id"], one["state"]) == (correction["correction_id"], "active")
    shown = said(shop, "corrections", "show", one["correction_id"][:20])
    assert [(row["metric"], row["computed"], row["outdated"]) for row in shown["standing"]] == [
        ("event_count", 2, 0),
        ("revenue", 2, 0),
    ]
    assert shown["next"] is None
    revoked = said(shop, "corrections", "revoke", one["correction_id"], "--reason", "the till was right", "--yes")
    back = said(shop, "corrections", "show", revoked["correction_id"])
    assert [back[f"revoked_{name}"] for name in ("statement", "reason")] == [one["statement"], one["reason"]]
    undo = f"pik corrections revoke {revoked['correction_id']} --reason REASON"
    assert back["next"] == revoked["next"]
    assert f"take it back before a replay: {undo}\n" in shop("corrections", "show", revoked["correction_id"]).err
    assert said(shop, *undo.split()[1:4], "--dry-run")["holding_again"] == [one["correction_id"]]
    assert [row["delta"] for row in rows(shop) if row["metric"] == "revenue"] == [Decimal("-3.50"), Decimal("3.50")]
    assert shop(*revoked["next"].split()[1:], "--yes").code == 0
    assert said(shop, "diff", "aggregates")["differences"] == []
    assert [row["state"] for row in said(shop, "corrections", "list")["corrections"]] == ["active", "revoked"]


def test_a_dry_run_records_nothing(shop: Pik) -> None:
    found = said(shop, "correct", *LATE, "--reason", "INC-42", "--dry-run")
    assert (found["dry_run"], found["corrections"][0]["correction_id"]) == (True, None)
    assert found["next"] == f"pik correct {' '.join(LATE)} --reason INC-42"
    plain = said(shop, "correct", *LATE, "--dry-run")
    assert (plain["reason"], plain["next"]) == (None, f"pik correct {' '.join(LATE)} --reason REASON")
    assert said(shop, "corrections", "list")["corrections"] == []
    assert said(shop, "diff", "aggregates")["differences"] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (LATE, "a correction needs a reason"),
        ((*LATE, "--reason", " ", "--yes"), "a correction needs a reason"),
        ((*LATE, "--reason", "INC-42"), "confirmation required"),
        (("--reason", "INC-42", "--yes"), "nothing to correct"),
        ((*LATE, "--like", "01J8Z3", *WHY), "exclude each other"),
        (("--assume", "shift=-1h,source=nobody", *WHY), "selects no delivery"),
        (("--assume", "with=@events.jsonl", *WHY), "cannot be recorded"),
        (("--assume", "shift=-1h", *WHY), "a selection is required"),
        (("--like", "01J8Z3", *WHY), "correction 01J8Z3"),
    ],
)
def test_wrong_command_lines_record_nothing(shop: Pik, line: tuple[str, ...], message: str) -> None:
    result = shop("correct", *line)
    assert result.code in (2, 4)
    assert message in result.err
    assert said(shop, "corrections", "list")["corrections"] == []


def test_it_says_when_nothing_changes(shop: Pik) -> None:
    found = said(shop, "correct", "--assume", "shift=1s,source=web", *WHY)
    assert found["note"] == "no value of any metric changes"
    assert found["next"] is None


def test_two_that_move_the_same_deliveries_are_recorded_again_together(shop: Pik) -> None:
    texts = ("--assume", "shift=1h,source=web", "--assume", "shift=2h,source=web")
    both = said(shop, "correct", *texts, *WHY)["corrections"]
    sale = {"source": "web", "event_type": "paid", "entity_id": "b", "event_time": "2026-01-03T08:00:00Z"}
    Path("later.jsonl").write_text(json.dumps({**sale, "payload": {"v": 1}}))
    said(shop, "ingest", "later.jsonl")
    again = [word for one in both for word in ("--like", one["correction_id"])]
    found = said(shop, "correct", *again, *WHY)
    assert [(one["deliveries"], one["moved"]) for one in found["corrections"]] == [(1, 1), (1, 1)]
    assert "number 2: number 1 moves 1 of these deliveries as well; of the two this one holds" in found["note"]
    made = [said(shop, "corrections", "show", one["correction_id"]) for one in found["corrections"]]
    assert [one["like"] for one in made] == again[1::2]
    moved = said(shop, "events", "--source", "web")["events"]
    assert [one["event_time"] for one in moved] == ["2026-01-02T10:00:00Z", "2026-01-03T10:00:00Z"]


def test_one_replay_repairs_what_two_corrections_change(shop: Pik) -> None:
    found = said(shop, "correct", *LATE, "--assume", "without=selected,source=web", *WHY)
    assert found["next"] == "pik replay --all --from 2026-01-01T00:00:00Z --to 2026-01-03T00:00:00Z --promote"
    assert "one replay of [2026-01-01T00:00:00Z, 2026-01-03T00:00:00Z) computes what the 2" in found["note"]
    assert said(shop, *found["next"].split()[1:], "--yes")["promotion"]["conflicts"] == 0
    assert said(shop, "diff", "aggregates")["differences"] == []


def test_the_plan_says_in_words_what_else_is_about_the_same(shop: Pik) -> None:
    [first] = said(shop, "correct", *LATE, *WHY, "--actor", "ana")["corrections"]
    texts = ("shift=-1h,source=till", "without=selected,source=till,to=2026-01-02", "shift=1s,entity=a")
    several = [word for text in texts for word in ("--assume", text)]
    found = said(shop, "correct", *several, "--reason", "INC-43", "--dry-run")
    moved = f"2 of these deliveries were already moved by {first['correction_id']} (ana, INC-42: local time)"
    again = f"{moved}; this moves them once more, from the corrected time"
    # The till's two sales lie on 1 January since the first correction; the web's one is the third of the shop.
    assert [(one["taken_out"], one["moved"], one["remarks"]) for one in found["corrections"]] == [
        (None, 2, [again]),
        (2, None, ["2 of these events are those of number 1; they are taken out"]),
        (
            None,
            3,
            [
                again,
                "number 1 moves 2 of these deliveries as well; of the two this one holds, from the time before both",
                "number 2 takes out 2 of these events, which do not count then",
            ],
        ),
    ]
    assert [(one["overlaps"][0]["correction_id"], one["overlaps"][0]["number"]) for one in found["corrections"]] == [
        (first["correction_id"], None),
        (None, 1),
        (first["correction_id"], None),
    ]
    for line in (line for one in found["corrections"] for line in one["remarks"]):
        assert line in found["note"]


def test_a_correction_whose_lists_or_days_are_not_there_is_shown_without_its_values(shop: Pik) -> None:
    [correction] = said(shop, "correct", *LATE, *WHY)["corrections"]
    correction_id = correction["correction_id"]
    shop("pull", "--into", "copy", "--from", "2026-01-01", "--to", "2026-01-02")
    copied = shop("--store", "copy", "corrections", "show", correction_id, "--format", "json")
    assert (copied.code, json.loads(copied.out)["standing"], json.loads(copied.out)["next"]) == (3, [], None)
    assert ", a copy of " in copied.err
    next(Path(".pik/corrections", correction_id).iterdir()).unlink()
    result = shop("corrections", "show", correction_id, "--format", "json")
    assert (result.code, json.loads(result.out)["reason"], json.loads(result.out)["standing"]) == (
        3,
        "INC-42: local time",
        [],
    )
    assert "which values were computed with it is not known: raw object corrections/" in result.err


def test_a_revoked_correction_needs_no_replay(shop: Pik) -> None:
    [correction] = said(shop, "correct", *LATE, *WHY)["corrections"]
    assert said(shop, "corrections", "show", correction["correction_id"])["next"]
    shop("corrections", "revoke", correction["correction_id"], "--reason", "right", "--yes")
    assert said(shop, "corrections", "show", correction["correction_id"])["next"] is None


def test_a_run_that_removed_the_only_value_of_its_scope_is_right_in_history(shop: Pik) -> None:
    shop("correct", "--assume", "without=selected,source=web", *WHY)
    shop("correct", "--assume", "without=selected,source=till,from=2026-01-02", *WHY)
    shop("replay", "--entity", "a", "--from", "2026-01-02", "--to", "2026-01-03", "--promote", "--yes")
    found = said(shop, "history", "--check")["history"]
    removed = [(one["what"], one["as_left"], one["right_today"]) for one in found if one["what"] in ("run", "promote")]
    assert removed[:2] == [("promote", 2, 2), ("run", 2, 2)]
