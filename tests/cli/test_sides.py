"""`pik diff aggregates --left SIDE --right SIDE`: any two sides, right minus left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pik.model.instant import format_instant, parse_instant
from pik.stores import open_store
from tests.support.stores import EVENTS


@pytest.fixture
def shop(pik: Callable[..., Any]) -> Callable[..., Any]:
    Path("events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in EVENTS))
    assert pik("ingest", "events.jsonl").code == 0
    return pik


def more(pik: Callable[..., Any], name: str, entity: str, number: int, day: int = 1) -> None:
    """Some more events of an entity on a day."""
    event = {"source": "s", "event_type": "t", "entity_id": entity, "payload": {"v": 1}}
    lines = [json.dumps(event | {"event_time": f"2026-01-{day:02}T10:00:{each:02}Z"}) for each in range(number)]
    Path(name).write_text("\n".join(lines) + "\n")
    assert pik("ingest", name).code == 0


def run(pik: Callable[..., Any], *options: str, promote: bool = True) -> str:
    made = json.loads(pik("replay", *(options or ("--all",)), "--format", "json").out)["run_id"]
    if promote:
        assert pik("promote", made, "--yes").code in (0, 3)
    return str(made)


def diff(pik: Callable[..., Any], *options: str, code: int = 1) -> list[tuple[Any, ...]]:
    result = pik("diff", "aggregates", *options, "--format", "json")
    assert result.code == code, result.err
    names = ("op", "bucket", "entity_id", "current", "recomputed", "delta")
    return [tuple(row[name] for name in names) for row in json.loads(result.out)["differences"]]


def state(pik: Callable[..., Any]) -> dict[tuple[str, str], float]:
    """What is current now."""
    found = json.loads(pik("aggregates", "--format", "json").out)["aggregates"]
    return {(row["bucket"], row["entity_id"]): row["value"] for row in found if row["value"] is not None}


def now() -> str:
    """A moment after the latest promotion."""
    latest = next(open_store(".pik").promotions.newest_first(), None)
    return format_instant(latest.at) if latest else "2020-01-01"


def expected(left: dict[Any, Any], right: dict[Any, Any]) -> list[tuple[Any, ...]]:
    """The rows of a diff of two states, in plain Python."""
    rows = []
    for key in sorted(left.keys() | right.keys()):
        one, two = left.get(key), right.get(key)
        if one != two:
            delta = None if one is None or two is None else two - one
            rows.append(("+" if one is None else "-" if two is None else "~", *key, one, two, delta))
    return rows


def test_what_was_current_at_any_time_follows_from_promotions_and_rollbacks(shop: Callable[..., Any]) -> None:
    moments = [(now(), state(shop))]

    def note() -> None:
        moments.append((now(), state(shop)))

    first = run(shop)
    note()
    more(shop, "more.jsonl", "a", 3)
    stale = run(shop, "--all", promote=False)
    more(shop, "most.jsonl", "new", 2)
    second = run(shop, "--entity", "a", "--entity", "new")
    note()
    shop("promote", stale, "--yes")  # conflicts where the second run is current
    note()
    shop("rollback", second, "--yes")
    note()
    shop("promote", stale, "--yes")
    note()
    shop("rollback", stale, "--yes")
    note()
    shop("rollback", first, "--yes")
    note()
    assert len({json.dumps(sorted(values.items())) for _, values in moments}) > 3
    assert moments[-1][1] == {}
    for at, values in moments:
        for since, others in moments[1:]:
            if at != since and (values or others):
                rows = expected(values, others)
                assert diff(shop, "--left", f"current@{at}", "--right", f"current@{since}", code=bool(rows)) == rows
    at, values = moments[2]
    assert diff(shop, "--left", f"current@{at}", "--right", "current") == expected(values, {})


def test_a_past_state_can_be_compared_with_raw_and_with_a_file(shop: Callable[..., Any]) -> None:
    run(shop)
    at, before = now(), state(shop)
    more(shop, "more.jsonl", "a", 3)
    run(shop)
    rows = diff(shop, "--left", f"current@{at}")
    assert rows == expected(before, state(shop)) != []
    there = datetime.fromtimestamp(parse_instant(at) // 10**9, ZoneInfo("Asia/Tokyo")).strftime("%Y-%m-%dT%H:%M:%S")
    assert diff(shop, "--left", f"current@{there}{at[19:-1]}", "--timezone", "Asia/Tokyo") == rows
    assert diff(shop, "--left", f"current@{at}", "--right", "current") == rows
    assert diff(shop, code=0) == []
    Path("all.csv").write_text(shop("aggregates", "--format", "csv").out)
    assert diff(shop, "--left", "file:all.csv", code=0) == diff(
        shop, "--against", "all.csv", "--right", "current", code=0
    )
    assert diff(shop, "--against", "all.csv", "--right", f"current@{at}") == expected(state(shop), before)


def test_a_run_may_be_on_either_side(shop: Callable[..., Any]) -> None:
    first = run(shop)
    more(shop, "more.jsonl", "a", 3)
    second = run(shop, "--entity", "a", promote=False)
    found = json.loads(shop("diff", "aggregates", "--left", f"run:{first[:12]}", "--format", "json").out)
    assert (found["left_side"], found["right_side"]) == (f"run:{first}", None)
    [row] = diff(shop, "--run", second)
    assert row == ("~", "2026-01-01T00:00:00Z", "a", row[3], row[3] + 3, 3)
    assert diff(shop, "--right", f"run:{second}") == [row]
    assert diff(shop, "--left", f"run:{first[:12]}", "--right", "current", code=0) == []
    assert diff(shop, "--left", f"run:{first}") == [row]  # the other side is recomputed
    back = ("~", *row[1:3], row[4], row[3], -3)
    assert diff(shop, "--left", f"run:{second}", "--right", "current") == [back]
    shown = shop("diff", "aggregates", "--left", f"run:{second}", "--right", "current").out
    assert re.search(r"left +right +delta", shown)
    others = [one for one in diff(shop, "--left", f"run:{second}", "--right", f"run:{first}") if one[0] != "+"]
    assert others == [back]
    Path("a.csv").write_text("day,entity,event_count\n2026-01-01,a,1\n")
    found = diff(shop, "--against", "a.csv", "--run", second)
    assert ("~", "2026-01-01T00:00:00Z", "a", 1, row[4], row[4] - 1) in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--left", "before"), "--left: invalid side 'before'"),
        (("--left", "recomputed"), "--left: invalid side 'recomputed'"),
        (("--right", "file:x.csv"), "--right: invalid side 'file:x.csv'"),
        (("--left", "run:"), "--left: invalid side 'run:'"),
        (("--left", "current@noon"), "--left: 'noon' is not an RFC 3339 time"),
        (("--right", "current"), "both sides are the same"),
        (("--left", "current", "--against", "x.csv"), "--against and --left exclude each other"),
        (("--run", "X", "--right", "current"), "--run and --right exclude each other"),
        (("--left", "current@2026-01-01", "--right", "current", "--as-of", "2026-01-01"), "recomputes nothing"),
        (("--left", "run:X", "--from", "2026-01-01"), "a run has its own window"),
    ],
)
def test_a_wrong_side_is_a_usage_error(shop: Callable[..., Any], options: tuple[str, ...], message: str) -> None:
    result = shop("diff", "aggregates", *options)
    assert (result.code, result.out, message in result.err) == (2, "", True), result.err


def test_an_unknown_run_and_a_time_without_values_are_no_empty_result(shop: Callable[..., Any]) -> None:
    assert shop("diff", "aggregates", "--left", "run:01ZZ").code == 4
    result = shop("diff", "aggregates", "--left", "current@2020-01-01", "--right", "current")
    assert result.code == 2
    assert "neither current@2020-01-01T00:00:00Z nor current has a value" in result.err
