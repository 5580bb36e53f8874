"""`pik diff aggregates --run` of a run that failed in part: what is not compared is said, and the exit code is 3."""

from __future__ import annotations

import json

import pytest

from pik.model.run import KEPT_FAILURES

FAILING = KEPT_FAILURES + 7
AMOUNT = '[[metric]]\nname = "amount"\nvalue = "sum((payload->>\'$.v\')::DECIMAL(18, 2))"\n'


def events(path, count, value="1", day=1):
    lines = (
        {
            "source": "web",
            "event_type": "paid",
            "entity_id": f"e{number:03}",
            "event_time": f"2026-01-0{day}T00:00:00Z",
            "payload": {"v": value},
        }
        for number in range(count)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def newest_run(pik):
    return pik("runs", "list", "--format", "json").json()["runs"][0]["run_id"]


@pytest.fixture
def failed(pik, tmp_path):
    """A run in which more aggregates failed than it keeps."""
    events(tmp_path / "events.jsonl", FAILING, value="twelve")
    (tmp_path / "metrics.toml").write_text(AMOUNT)
    assert pik("ingest", "events.jsonl").code == 0
    assert pik("metrics", "apply", "metrics.toml").code == 0
    assert pik("replay", "--all").code == 3
    return pik


def test_a_diff_with_a_run_counts_the_failures_that_the_run_does_not_keep(failed):
    diff = failed("diff", "aggregates", "--run", newest_run(failed), "--format", "json")
    assert diff.code == 3
    assert "7 more could not be computed" in diff.err
    said = diff.json()
    assert (said["failed"], said["failed_not_listed"]) == (KEPT_FAILURES, 7)


def test_a_run_shows_how_many_of_its_failures_it_does_not_list(failed):
    shown = failed("runs", "show", newest_run(failed))
    assert f"failed aggregates  {FAILING}\n" in shown.out
    assert "… and 7 more\n" in shown.out


def test_no_difference_is_not_the_last_word_where_tasks_of_the_run_failed(pik, tmp_path):
    for day in (1, 2):
        events(tmp_path / f"{day}.jsonl", 3, day=day)
        assert pik("ingest", f"{day}.jsonl").code == 0
    assert pik("replay", "--all", "--promote", "--yes").code == 0
    (segment,) = (tmp_path / ".pik" / "raw" / "event_date=2026-01-02").iterdir()
    segment.unlink()
    assert pik("replay", "--all", "--display-timezone", "Asia/Tokyo").code == 3
    [letter] = pik("dlq", "list", "--format", "json").json()["dead_letters"]
    assert "[2026-01-02T00:00:00Z, 2026-01-03T00:00:00Z) is not computed" in letter["reason"]  # it is kept in UTC
    diff = pik("diff", "aggregates", "--run", newest_run(pik))
    assert "no differences in 3 values" in diff.out
    assert "1 of its 1 task failed" in diff.err
    assert diff.code == 3


MIXED = """
[[metric]]
name = "amount"
value = "sum((payload->>'$.v')::DECIMAL(18, 2))"

[[metric]]
name = "average"
value = "(sum(1) / sum(0))::DECIMAL(18, 2)"
"""


@pytest.fixture
def mixed(pik, tmp_path):
    """Two aggregates that one event each keeps from being computed, and three with a denominator of zero."""
    events(tmp_path / "good.jsonl", 1)
    events(tmp_path / "bad.jsonl", 3, value="twelve", day=2)
    (tmp_path / "metrics.toml").write_text(MIXED)
    assert pik("ingest", "good.jsonl", "bad.jsonl").code == 0
    assert pik("metrics", "apply", "metrics.toml").code == 0
    return pik


def test_what_to_type_next_is_about_the_failure_of_each_metric_the_most_frequent_first(mixed):
    found = mixed("diff", "aggregates", "--metric", "amount", "--metric", "average", "--format", "json").json()
    assert found["different"] == 1
    mixed("replay", "--all", "--metric", "amount", "--promote", "--yes")
    found = mixed("diff", "aggregates", "--metric", "amount", "--metric", "average", "--format", "json").json()
    (event,) = next(row["event_ids"] for row in found["differences"] if row["metric"] == "amount")
    assert (found["different"], found["failed"]) == (0, 7)
    assert found["next"] == f"pik metrics show average\npik show {event}"


def test_a_rollback_does_not_list_what_the_run_could_not_compute(mixed):
    run = mixed("replay", "--all", "--format", "json").json()["run_id"]
    promoted = mixed("promote", run, "--yes", "--format", "json")
    assert (promoted.code, promoted.json()["failed_aggregates"]) == (3, 7)
    for dry in (("--dry-run",), ("--yes",)):
        back = mixed("rollback", run, *dry, "--format", "json")
        assert back.code == 0
        assert [back.json()[name] for name in ("failed_tasks", "failed_aggregates", "failures")] == [None] * 3
    shown = mixed("rollback", run, "--dry-run").out
    assert "failed" not in shown
