"""metrics, replay, runs, dlq, aggregates, diff, promote, rollback: what they print, and their exit codes."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing

import pytest

DAY = ("--from", "2026-01-01", "--to", "2026-01-02")
METRICS = """
[[metric]]
name = "revenue"
where = "event_type = 'paid'"
value = "sum(CAST(payload->>'$.v' AS DECIMAL(38, 18)))"
"""
EXACT = "123456789012345678.123456789012345678"


def line(number, entity, value, hour=0):
    return (
        f'{{"source": "web", "event_type": "paid", "entity_id": "{entity}",'
        f' "event_time": "2026-01-01T{hour:02}:{number:02}:00Z", "payload": {{"v": {value}, "n": {number}}}}}\n'
    )


@pytest.fixture
def shop(pik, tmp_path):
    """A store with four events of two entities and a metric, nothing computed."""
    (tmp_path / "metrics.toml").write_text(METRICS)
    (tmp_path / "events.jsonl").write_text(
        line(1, "a", "1.5") + line(2, "a", "2") + line(3, "b", EXACT) + line(4, "b", 0)
    )
    assert pik("ingest", "events.jsonl").code == 0
    assert pik("metrics", "apply", "metrics.toml").code == 0
    return pik


@pytest.fixture
def late(shop, tmp_path):
    """Its numbers promoted, and then one more event of a."""
    assert shop("replay", "--all", *DAY, "--promote", "--yes").code == 0
    (tmp_path / "late.jsonl").write_text(line(5, "a", "0.25", hour=3))
    assert shop("ingest", "late.jsonl").code == 0
    return shop


def replayed(pik, *arguments):
    result = pik("replay", *arguments, "--format", "json")
    assert result.code == 0, result.err
    return result.json()


ALTERED = {
    "a value": "UPDATE version SET value = '-4.5' WHERE value = '3.5'",
    "a value that is not a number": "UPDATE version SET value = 'x' WHERE value = '3.5'",
    "a version's time": "UPDATE version SET bucket = bucket + 1 WHERE value = '3.5'",
    "a pointer's time": "UPDATE current SET bucket = bucket + 1 WHERE metric = 'revenue' AND entity = 'a'",
    "a pointer's digest": "UPDATE current SET digest = randomblob(16) WHERE metric = 'revenue' AND entity = 'a'",
}


@pytest.mark.parametrize("what", ALTERED)
@pytest.mark.parametrize("as_", [(), ("--format", "json"), ("--entity", "a")])
def test_an_altered_value_is_not_listed_as_current(late, tmp_path, what, as_):
    with closing(sqlite3.connect(tmp_path / ".pik" / "state.db")) as state, state:
        assert state.execute(ALTERED[what]).rowcount == 1
    result = late("aggregates", *as_)
    assert (result.code, "digest does not match" in result.err) == (4, True), result.err
    assert "-4.5" not in result.out  # no time of a run looks like it
    if "version" not in what and "pointer" not in what:
        assert late("aggregates", "--history", *as_).code == 4
    assert late("aggregates", "--metric", "event_count", *as_).code == 0


def test_metrics_are_applied_listed_and_shown(shop):
    again = shop("metrics", "apply", "metrics.toml", "--format", "json")
    assert again.json()["metrics"] == [{"name": "revenue", "version": 1, "what": "unchanged"}]
    listed = shop("metrics", "list", "--format", "json").json()["metrics"]
    assert [(one["name"], one["version"], one["bucket"]) for one in listed] == [
        ("event_count", 1, "1d"),
        ("revenue", 1, "1d"),
    ]
    shown = shop("metrics", "show", "revenue", "--format", "json").json()
    assert shown["name"] == "revenue"
    assert shown["versions"][0]["where"] == "event_type = 'paid'"
    missing = shop("metrics", "show", "nope")
    assert missing.code == 2
    assert "pik metrics list" in missing.err


def test_a_definition_that_could_differ_is_refused(shop, tmp_path):
    (tmp_path / "bad.toml").write_text("""name = "bad"\nvalue = "sum(CAST(payload->>'$.v' AS DOUBLE))"\n""")
    refused = shop("metrics", "apply", "bad.toml")
    assert refused.code == 2
    assert "DECIMAL" in refused.err
    assert "bad" not in shop("metrics", "list").out


def test_replay_shows_what_it_does_and_what_to_type_next(shop):
    plan = shop("replay", "--all", *DAY, "--dry-run", "--format", "json").json()
    assert plan["dry_run"] is True
    assert (plan["events_matched"], plan["buckets"]) == (4, 4)
    assert plan["requested"] == plan["effective"] == {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    assert shop("runs", "list", "--format", "json").json()["runs"] == []
    done = replayed(shop, "--all", *DAY, "--reason", "first")
    assert (done["state"], done["new"], done["changed"], done["unchanged"]) == ("COMPLETED", 4, 0, 0)
    assert done["resumed"] is False
    assert done["next"] == f"pik diff aggregates --run {done['run_id']}\npik promote {done['run_id']}"


def test_a_replay_of_nothing_is_reported(shop):
    for option in (("--entity", "nobody"), ("--source", "nowhere"), ("--all", "--from", "2030-01-01")):
        for more in ((), ("--dry-run",)):
            result = shop("replay", *option, *more)
            assert result.code == 2
            assert "nothing to replay: there is neither an event nor a current value" in result.err
            assert (result.out, shop("replay", *option, *more, "-q").err) == ("", result.err)
    assert shop("runs", "list", "--format", "json").json()["runs"] == []
    assert "in 1 bucket, 1 task\n" in shop("replay", "--entity", "a", "--metric", "event_count").err


def test_a_window_inside_of_a_bucket_is_widened_with_a_note(shop):
    done = replayed(shop, "--entity", "a", "--from", "2026-01-01T00:01:30Z", "--to", "2026-01-01T00:02:30Z")
    assert done["requested"] == {"from": "2026-01-01T00:01:30Z", "to": "2026-01-01T00:02:30Z"}
    assert done["effective"] == {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    assert (done["events_matched"], done["new"]) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing selected to replay"),
        (("--all", "--entity", "a"), "exclude each other"),
        (("--all", "--promote", "--assume", "duplicates=counted", "--yes"), "cannot be promoted"),
        (("--all", "--assume", "without=abcd"), "--assume without=abcd: a replay writes only what is true"),
        (("--all", "--assume", "with=@none.jsonl"), "only duplicates=counted"),
        (("--all", "--assume", "twice=1"), "unknown kind 'twice'"),
        (("--all", "--promote"), "--yes"),
        (("--all", "--metric", "nope"), "no metric 'nope'"),
        (("--all", "--from", "2026-01-02", "--to", "2026-01-01"), "is empty"),
        (("--all", "--rate", "0"), "--rate: 0.0 is less than 0.001"),
    ],
)
def test_what_cannot_be_replayed_is_reported_before_anything_is_done(shop, arguments, said):
    result = shop("replay", *arguments)
    assert result.code in (2, 4)
    assert said in result.err
    assert shop("runs", "list", "--format", "json").json()["runs"] == []


def test_the_incident_from_the_difference_to_the_repair(late):
    found = late("diff", "aggregates", *DAY, "--format", "json")
    assert found.code == 1
    rows = found.json()["differences"]
    assert [(row["op"], row["metric"], row["entity_id"]) for row in rows] == [
        ("~", "event_count", "a"),
        ("~", "revenue", "a"),
    ]
    assert (rows[1]["current"], rows[1]["recomputed"], rows[1]["delta"]) == tuple(
        number.ljust(20, "0") for number in ("3.5", "3.75", "0.25")
    )
    assert found.json()["next"] == "pik replay --all --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z"
    run = replayed(late, "--all", *DAY, "--reason", "late")["run_id"]
    compared = late("diff", "aggregates", "--run", run, "--stats", "--format", "json")
    assert compared.code == 1
    assert compared.json()["stats"]["changed"] == 2
    moved = late("promote", run, "--reason", "late", "--yes", "--format", "json")
    assert (moved.code, moved.json()["moved"], moved.json()["conflicts"]) == (0, 4, 0)
    clean = late("diff", "aggregates", *DAY)
    assert (clean.code, "no differences" in clean.out) == (0, True)
    back = late("rollback", run, "--yes", "--format", "json")
    assert (back.code, back.json()["action"], back.json()["moved"]) == (0, "rollback", 4)
    assert late("diff", "aggregates", *DAY).code == 1
    shown = late("runs", "show", run, "--format", "json").json()
    assert [row["kind"] for row in shown["promotions"]] == ["promote", "rollback"]


def test_values_are_exact_in_every_format(late):
    assert EXACT in late("aggregates", "--entity", "b", "--metric", "revenue").out
    rows = late("aggregates", "--entity", "b", "--metric", "revenue", "--format", "json").json()["aggregates"]
    assert [row["value"] for row in rows] == [EXACT]
    (header, row) = csv.reader(
        io.StringIO(late("aggregates", "--metric", "revenue", "--entity", "b", "--format", "csv").out)
    )
    assert dict(zip(header, row, strict=True))["value"] == EXACT


def test_history_shows_every_version_and_who_made_it(late):
    run = replayed(late, "--entity", "a", *DAY, "--reason", "late")["run_id"]
    rows = late("aggregates", "--entity", "a", "--metric", "revenue", "--history", "--format", "json").json()[
        "aggregates"
    ]
    assert [(row["value"], row["current"], row["reason"]) for row in rows] == [
        ("3.5".ljust(20, "0"), True, None),
        ("3.75".ljust(20, "0"), False, "late"),
    ]
    assert rows[1]["run_id"] == run
    assert rows[1]["metric_version"] == 1


def test_stored_values_are_listed_by_the_definition_that_made_them(late, tmp_path):
    (tmp_path / "hours.toml").write_text(METRICS.replace("$.v", "$.n") + 'bucket = "1h"\n')
    assert late("metrics", "apply", "hours.toml").code == 0
    run = replayed(late, "--all", *DAY)["run_id"]

    def listed(*arguments):
        rows = late("aggregates", "--format", "json", *arguments).json()["aggregates"]
        return [(row["metric"], row["metric_version"], row["entity_id"], row["bucket"][11:13]) for row in rows]

    every = listed("--history", "--metric", "revenue", "--metric", "revenue@1")
    assert {row[1] for row in every} == {1, 2}
    old = [("revenue", 1, "a", "00"), ("revenue", 1, "b", "00")]
    new = [("revenue", 2, "a", "00"), ("revenue", 2, "b", "00"), ("revenue", 2, "a", "03")]
    assert listed("--metric", "revenue@1") == listed("--history", "--metric", "revenue@1") == old
    assert listed("--metric", "revenue@2") == []
    assert listed("--history", "--metric", "revenue@2", *DAY) == new
    assert sorted(listed("--history", "--metric", "revenue@2", "--metric", "revenue@1")) == sorted(every)
    nothing = late("aggregates", "--metric", "revenue@2")
    assert "no current value of revenue@2" in nothing.out + nothing.err
    assert late("diff", "aggregates", "--run", run, "--metric", "revenue@1").code == 2
    rows = late("diff", "aggregates", "--run", run, "--metric", "revenue@2", "--format", "json").json()["differences"]
    assert {row["metric"] for row in rows} == {"revenue"}
    assert late("aggregates", "--metric", "revenue@3").code == 4


def test_only_a_replay_is_always_of_the_latest_definition(late):
    refused = late("replay", "--all", "--metric", "revenue@1")
    assert refused.code == 2
    assert "metric 'revenue@1': a replay computes the latest definition" in refused.err
    refused = late("diff", "aggregates", "--metric", "revenue", "--metric", "revenue@1")
    assert (refused.code, "revenue and revenue@1 are one metric, computed by two definitions" in refused.err) == (
        2,
        True,
    )
    refused = late("events", "--not-counted", "revenue@1")
    assert (refused.code, "the definition that made it" in refused.err) == (2, True)
    moved = late("lag", "--late", "--metric", "revenue@1", "--format", "json").json()
    assert "revenue@1" in json.dumps(moved)
    counted = late("sql", "SELECT count(*) AS n FROM aggregates", "--metric", "revenue@1", "--format", "json").json()
    assert counted["rows"] == [{"n": 2}], counted
    shown = late("metrics", "show", "revenue@1", "--format", "json").json()
    assert (shown["name"], [one["version"] for one in shown["versions"]]) == ("revenue", [1])
    assert late("metrics", "show", "revenue@7").code == 4


def test_limits_say_that_they_cut_and_change_no_exit_code(late):
    short = late("aggregates", "--limit", "3", "--format", "json").json()
    assert (len(short["aggregates"]), short["truncated"]) == (3, True)
    assert late("aggregates", "--limit", "4", "--format", "json").json()["truncated"] is False
    diff = late("diff", "aggregates", "--limit", "1", "--format", "json")
    assert (diff.code, len(diff.json()["differences"]), diff.json()["truncated"]) == (1, 1, True)
    assert diff.json()["different"] == 2


def test_tolerance_and_changed_only(late, tmp_path):
    assert late("diff", "aggregates", "--metric", "revenue", "--tolerance", "revenue=10%").code == 0
    assert late("diff", "aggregates", "--metric", "revenue", "--tolerance", "0.24").code == 1
    assert late("diff", "aggregates", "--tolerance", "x").code == 2
    unknown = late("diff", "aggregates", "--tolerance", "revnue=10%")
    hint = "did you mean revenue? all of them: pik metrics list"
    assert (unknown.code, unknown.err) == (2, f"error: there is no metric 'revnue'\nhint: {hint}\n")
    (tmp_path / "new.jsonl").write_text(line(9, "new", 1))
    late("ingest", "new.jsonl")
    assert late("diff", "aggregates", "--entity", "new", "--changed-only").code == 0
    assert late("diff", "aggregates", "--entity", "new").code == 1


def test_where_values_have_no_events_any_more_verify_comes_first(late, tmp_path):
    (tmp_path / "metrics.toml").write_text(METRICS.replace("'paid'", "'refunded'"))
    late("metrics", "apply", "metrics.toml")
    found = late("diff", "aggregates", "--metric", "revenue", "--format", "json")
    assert [row["op"] for row in found.json()["differences"]] == ["-", "-"]
    assert found.json()["next"] == "pik verify --full && pik replay --all --metric revenue"
    run = replayed(late, "--all", "--metric", "revenue")["run_id"]
    found = late("diff", "aggregates", "--run", run, "--format", "json")
    assert found.json()["next"] == f"pik verify --full && pik promote {run}"


def test_nothing_compared_is_not_called_clean(late):
    for option in (("--entity", "typo"), ("--from", "2030-01-01"), ("--entity", "typo", "--format", "json")):
        result = late("diff", "aggregates", *option)
        assert (result.code, result.out) == (2, "")
        assert "nothing to compare: there is neither an event nor a current value" in result.err
        assert late("diff", "aggregates", *option, "-q").err == result.err
    run = replayed(late, "--all")["run_id"]
    none = late("diff", "aggregates", "--run", run, "--entity", "typo")
    assert (none.code, f"nothing to compare: run {run} wrote none of these values" in none.err) == (2, True)


MISTYPED = """
[[metric]]
name = "typo"
value = "sum(CAST(payload->>'$.missing' AS DECIMAL(38, 2)))"

[[metric]]
name = "none"
where = "event_type = 'piad'"
value = "count(*)"
"""


@pytest.mark.parametrize("entity", [(), ("--entity", "a")])
def test_events_without_a_value_by_a_metric_are_not_reported_as_missing(late, tmp_path, entity):
    (tmp_path / "metrics.toml").write_text(MISTYPED)
    assert late("metrics", "apply", "metrics.toml").code == 0
    events, buckets = (3, "its 1 bucket") if entity else (5, "each of its 2 buckets")
    mistyped = late("diff", "aggregates", "--metric", "typo", *entity)
    assert mistyped.code == 2
    assert f"nothing to compare: the value of typo is NULL in {buckets}, with {events} events" in mistyped.err
    assert "hint: pik metrics show typo" in mistyped.err
    filtered = late("diff", "aggregates", "--metric", "none", *entity)
    assert filtered.code == 2
    assert f"nothing to compare: none@1 counts none of the {events} events" in filtered.err
    assert "hint: pik metrics show none" in filtered.err
    both = late("diff", "aggregates", "--metric", "none", "--metric", "typo", *entity)
    assert (both.code, f"the value of typo is NULL in {buckets}, with {events} events" in both.err) == (2, True)
    run = replayed(late, "--metric", "typo", *(entity or ("--all",)))
    assert (run["events_matched"], run["without_value"], run["new"]) == (events, run["buckets"], 0)
    of_run = late("diff", "aggregates", "--run", run["run_id"])
    assert (of_run.code, f"is NULL in {buckets}, with {events} events" in of_run.err) == (2, True)
    elsewhere = late("diff", "aggregates", "--metric", "typo", *entity, "--from", "2020-01-01", "--to", "2020-01-02")
    assert (elsewhere.code, "neither an event nor a current value" in elsewhere.err) == (2, True)


def test_the_counts_of_a_run_that_failed_in_part_add_up(shop, tmp_path):
    (tmp_path / "more.jsonl").write_text(
        "".join(line(n, entity, value) for n, (entity, value) in enumerate([("c", '"x"'), ("d", "null")], 10))
    )
    assert shop("ingest", "more.jsonl").code == 0
    result = shop("replay", "--all", "--promote", "--yes", "--format", "json")
    run = result.json()
    assert (result.code, run["state"], run["failed_aggregates"], run["without_value"]) == (3, "PARTIAL", 1, 1)
    assert run["buckets"] == 8
    parts = ("new", "changed", "unchanged", "without_value", "failed_aggregates")
    assert run["buckets"] == sum(run[name] for name in parts)
    assert run["promotion"]["moved"] == run["new"] + run["without_value"]
    again = replayed_partly(shop)
    assert again["buckets"] == sum(again[name] for name in parts)


def replayed_partly(pik):
    result = pik("replay", "--all", "--format", "json")
    assert result.code == 3, result.err
    return result.json()


def test_every_entity_without_values_is_mentioned(late):
    """A right name beside a wrong one must not hide that the wrong one was not looked at. (Issue 8, A7.)"""
    named = ("--entity", "a", "--entity", "A", "--entity", "typo")
    run = replayed(late, "--entity", "a")["run_id"]
    for command in (
        ("diff", "aggregates", *named),
        ("diff", "aggregates", "--run", run, *named),
        ("replay", *named, "--dry-run"),
        ("replay", *named),
    ):
        result = late(*command, "--format", "json")
        assert result.json()["entities_without_value"] == ["A", "typo"], command
        assert "no value of 'A', 'typo' at any time" in result.err, command
        assert "did you mean 'a'?" in result.err, command
    for name in ("diff aggregates", "replay"):
        known = late(*name.split(), "--entity", "a", "--entity", "b", "--format", "json")
        assert (known.json()["entities_without_value"], "no value of" in known.err) == (None, False)


def test_an_entity_with_a_current_value_and_no_event_is_not_mentioned(late, tmp_path):
    (tmp_path / "metrics.toml").write_text(METRICS.replace("'paid'", "'refunded'"))
    late("metrics", "apply", "metrics.toml")
    found = late(
        "diff", "aggregates", "--entity", "a", "--entity", "b", "--metric", "revenue", "--format", "json"
    ).json()
    assert ([row["op"] for row in found["differences"]], found["entities_without_value"]) == (["-", "-"], None)


def test_a_replay_that_changes_nothing_explains_its_basis(late):
    """As `no differences` does: how many values, which metric versions, known until when. (Issue 8, A8.)"""
    changed = late("replay", "--all", "--format", "json", "--promote", "--yes")
    assert (changed.json()["metric_versions"], changed.json()["known_until"]) == (None, None)
    assert "nothing changed" not in changed.err
    same = late("replay", "--all", "--format", "json")
    found, diff = same.json(), late("diff", "aggregates", "--format", "json").json()
    assert found["unchanged"] == diff["compared"] > 0
    assert (found["metric_versions"], found["known_until"]) == (diff["metrics"], diff["known_until"])
    assert (
        f"nothing changed: {found['unchanged']} values computed by {', '.join(found['metric_versions'])}, known"
        in same.err
    )


def test_names_that_are_written_almost_alike_are_offered(late):
    for command in (("diff", "aggregates"), ("replay",)):
        for typed in ("A", " a", "a "):
            result = late(*command, "--entity", typed)
            assert (result.code, "hint: did you mean 'a'?" in result.err) == (2, True)
        assert "did you mean event_count?" in late(*command, "--entity", "a", "--metric", "event_counts").err


def test_a_store_without_events_cannot_be_compared(pik, tmp_path):
    (tmp_path / "metrics.toml").write_text(METRICS)
    pik("init")
    pik("metrics", "apply", "metrics.toml")
    result = pik("diff", "aggregates")
    assert result.code == 2
    assert "holds no events" in result.err


def test_a_conflict_is_left_and_is_exit_code_3(late, tmp_path):
    mine = replayed(late, "--all", *DAY)["run_id"]
    (tmp_path / "more.jsonl").write_text(line(6, "a", 1))
    late("ingest", "more.jsonl")
    replayed(late, "--entity", "a", *DAY, "--promote", "--yes")
    result = late("promote", mine, "--yes", "--format", "json")
    assert (result.code, result.json()["moved"], result.json()["conflicts"]) == (3, 2, 2)
    assert (result.json()["next"], "later runs have computed these values since" in result.err) == (None, True)


def test_after_a_conflict_with_an_earlier_run_the_next_step_is_a_replay(late, tmp_path):
    earlier = replayed(late, "--entity", "a", *DAY)["run_id"]
    (tmp_path / "more.jsonl").write_text(line(6, "a", 1))
    late("ingest", "more.jsonl")
    later = replayed(late, "--all", *DAY)["run_id"]
    late("promote", earlier, "--yes")
    result = late("promote", later, "--dry-run", "--format", "json")
    assert (result.code, result.json()["conflicts"]) == (3, 2)
    assert result.json()["next"].startswith("pik replay --all")


def test_after_a_no_to_its_promotion_a_replay_names_the_run_that_it_wrote(late, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    refused = late("replay", "--all", *DAY, "--promote")
    run = late("runs", "list", "--format", "json").json()["runs"][0]["run_id"]
    assert refused.code == 4
    assert f"not confirmed; run {run} is kept, and nothing was promoted" in refused.err
    assert f"pik promote {run}" in refused.err
    assert late("promote", run, "--yes", "--format", "json").json()["moved"] == 4


def test_promote_and_rollback_ask(late):
    run = replayed(late, "--all", *DAY)["run_id"]
    for command in ("promote", "rollback"):
        refused = late(command, run)
        if command == "promote":
            assert refused.code == 2
            assert "--yes" in refused.err
    assert late("diff", "aggregates").code == 1
    dry = late("promote", run, "--dry-run", "--format", "json")
    assert (dry.code, dry.json()["moved"], dry.json()["dry_run"]) == (0, 4, True)
    assert late("diff", "aggregates").code == 1


def test_an_interrupted_replay_is_resumed_by_the_same_command(shop, monkeypatch):
    arguments = ("replay", "--all", *DAY, "--reason", "x")
    interrupt(shop, monkeypatch, *arguments)
    (run,) = shop("runs", "list", "--format", "json").json()["runs"]
    assert run["state"] == "RUNNING"
    again = shop(*arguments, "--format", "json")
    assert again.json()["run_id"] == run["run_id"]
    assert again.json()["resumed"] is True
    assert "going on with run" in again.err
    assert replayed(shop, *arguments[1:])["run_id"] != run["run_id"]


def interrupt(pik, monkeypatch, *arguments):
    """Run a command that is interrupted while it computes."""
    with monkeypatch.context() as patch:
        patch.setattr("pik.usecases.replay.tasks.recompute", interrupted)
        assert pik(*arguments).code == 130


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_a_failed_task_is_exit_code_3_and_redrives(shop, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pik.usecases.replay.tasks.recompute", damaged)
        failed = shop("replay", "--all", *DAY, "--format", "json")
    assert (failed.code, failed.json()["state"], failed.json()["failed"]) == (3, "FAILED", 1)
    run = failed.json()["run_id"]
    assert failed.json()["next"] == f"pik dlq list --run {run}"
    (letter,) = shop("dlq", "list", "--run", run, "--format", "json").json()["dead_letters"]
    assert letter["reason"] == "raw is damaged"
    assert letter["attempts"] == 5
    shown = shop("dlq", "show", letter["letter_id"], "--format", "json").json()
    assert shown["metrics"] == ["event_count@1", "revenue@1"]
    assert shop("dlq", "redrive").code == 2
    assert shop("dlq", "redrive", "--all", "--dry-run").code == 0
    assert shop("dlq", "purge", "--all", "--yes").code == 2  # without a reason
    assert shop("dlq", "purge", "--all", "--reason", "x").code == 2  # nobody to ask
    assert shop("dlq", "purge", "--all", "--dry-run", "--format", "json").json()["purged"] == [letter["letter_id"]]
    redriven = shop("dlq", "redrive", letter["letter_id"], "--format", "json")
    assert redriven.code == 0
    assert redriven.json()["runs"][0]["state"] == "COMPLETED"
    assert shop("dlq", "list", "--format", "json").json()["dead_letters"] == []
    assert shop("promote", run, "--yes").code == 0
    assert shop("diff", "aggregates", *DAY).code == 0


def test_a_purged_letter_is_reported_with_its_reason_and_its_task_stays_failed(shop, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pik.usecases.replay.tasks.recompute", damaged)
        run = shop("replay", "--all", *DAY, "--format", "json").json()["run_id"]
    (letter,) = shop("dlq", "list", "--format", "json").json()["dead_letters"]
    assert shop("dlq", "purge", letter["letter_id"], "--reason", "withdrawn", "--yes").code == 0
    assert shop("dlq", "list", "--format", "json").json()["dead_letters"] == []
    (purged,) = shop("dlq", "list", "--purged", "--run", run, "--format", "json").json()["dead_letters"]
    assert purged == {**letter, "purged_at": purged["purged_at"], "purge_reason": "withdrawn"}
    assert shop("runs", "show", run, "--format", "json").json()["failed"] == 1
    assert shop("dlq", "purge", letter["letter_id"], "--reason", "twice", "--yes").code == 4


def damaged(*_, **__):
    from pik.errors import Damaged

    raise Damaged("raw is damaged")


def test_runs_are_waited_for_resumed_and_cancelled(shop, monkeypatch):
    interrupt(shop, monkeypatch, "replay", "--all", *DAY)
    run = shop("runs", "list", "--format", "json").json()["runs"][0]["run_id"]
    waited = shop("runs", "wait", run)
    assert waited.code == 4
    assert f"pik runs resume {run}" in waited.err
    resumed = shop("runs", "resume", run, "--format", "json")
    assert (resumed.code, resumed.json()["state"]) == (0, "COMPLETED")
    assert shop("runs", "wait", run).code == 0
    assert shop("runs", "resume", run).err.startswith(f"error: run {run} is COMPLETED")
    assert shop("runs", "cancel", run).code == 2
    interrupt(shop, monkeypatch, "replay", "--all", *DAY, "--reason", "two")
    second = shop("runs", "list", "--limit", "1", "--format", "json").json()
    assert second["truncated"] is True
    cancelled = shop("runs", "cancel", second["runs"][0]["run_id"], "--format", "json")
    assert (cancelled.code, cancelled.json()["state"]) == (0, "CANCELLED")
    assert shop("promote", second["runs"][0]["run_id"], "--yes").code == 2
    assert shop("runs", "wait", second["runs"][0]["run_id"]).code == 3
    assert shop("runs", "show", "nope").code == 4


@pytest.mark.parametrize(
    "command",
    [
        "metrics apply",
        "metrics list",
        "metrics show",
        "replay",
        "runs list",
        "runs show",
        "runs resume",
        "runs wait",
        "runs cancel",
        "dlq list",
        "dlq show",
        "dlq redrive",
        "dlq purge",
        "aggregates",
        "diff aggregates",
        "promote",
        "rollback",
    ],
)
def test_every_command_shows_examples(pik, command):
    result = pik(*command.split(), "--help")
    assert result.code == 0
    assert "Examples:" in result.out
    assert f"pik {command}" in result.out.split("Examples:")[1]


def test_json_lines_hold_the_rows(late):
    rows = [json.loads(text) for text in late("aggregates", "--format", "jsonl").out.splitlines()]
    assert [(row["metric"], row["entity_id"]) for row in rows] == [
        ("event_count", "a"),
        ("event_count", "b"),
        ("revenue", "a"),
        ("revenue", "b"),
    ]
