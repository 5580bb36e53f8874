"""`pik events`: what is asked of deliveries, the columns and counts, compared with the input that the test wrote."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pik.stores import open_store
from tests.support.stores import ingest

AMOUNT = "(payload->>'amount')::DECIMAL(18, 2)"


def made(number: int, chance: random.Random) -> dict[str, Any]:
    hour, minute = chance.randrange(24), chance.randrange(60)
    time = f"2026-01-{chance.randrange(1, 6):02}T{hour:02}"
    return {
        "source": chance.choice(["web", "app"]),
        "event_type": chance.choice(["paid", "refund"]),
        "entity_id": f"c{chance.randrange(4)}",
        "event_time": f"{time}:{minute:02}:00Z",
        "received_time": f"{time}:{minute:02}:{chance.randrange(60):02}Z",
        "payload": {
            "amount": f"{chance.randrange(10_000) / 100:.2f}",
            "app": chance.choice(["ios", None]),
            "n": number,
        },
    }


@pytest.fixture
def sent(pik: Callable[..., Any], tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """Three batches by name, the second repeating some of the first; the third has a conflict."""
    chance = random.Random(7)
    first = [made(number, chance) for number in range(120)]
    second = [made(number, chance) for number in range(120, 160)] + first[:15]
    keyed = {**made(900, chance), "idempotency_key": "k"}
    third = [keyed, {**keyed, "payload": {"amount": "1.00", "app": "web", "n": 901}}]
    batches = {"first": first, "second": second, "third": third}
    for name, events in batches.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        assert pik("ingest", f"{name}.jsonl").code == 0
    return batches


def accepted(sent: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [*sent["first"], *sent["second"][:40], sent["third"][0]]


def lag(event: dict[str, Any]) -> int:
    return int(event["received_time"][17:19])


def rows(pik: Callable[..., Any], *options: object) -> list[dict[str, Any]]:
    result = pik("events", *options, "--format", "json")
    assert result.code == 0, result.err
    found: list[dict[str, Any]] = json.loads(result.out)["events"]
    return found


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return sorted(row["payload"]["n"] for row in found)


def batch_of(pik: Callable[..., Any], name: str) -> str:
    found = json.loads(pik("batches", "--format", "json").out)["batches"]
    return str(next(one["batch_id"] for one in found if one["source"].startswith(name)))


def test_a_batch_is_listed_with_the_deliveries_of_its_events_elsewhere(
    pik: Callable[..., Any], sent: dict[str, list[dict[str, Any]]]
) -> None:
    batch = batch_of(pik, "first")
    found = rows(pik, "--batch", batch)
    assert numbers(found) == sorted(event["payload"]["n"] for event in sent["first"])
    again = {event["payload"]["n"] for event in sent["second"][40:]}
    assert {row["payload"]["n"] for row in found if row["deliveries"] == 2} == again
    assert found == [row for row in rows(pik) if row["batch_id"] == batch]
    assert pik("events", "--batch", "01ZZZ").code == 4


def test_duplicates_of_a_class_are_listed_each_with_its_own_place(
    pik: Callable[..., Any], sent: dict[str, list[dict[str, Any]]]
) -> None:
    found = rows(pik, "--class", "exact")
    assert numbers(found) == sorted(event["payload"]["n"] for event in sent["second"][40:])
    assert {(row["batch_id"], row["deliveries"]) for row in found} == {(batch_of(pik, "second"), 2)}
    assert sorted(row["seq"] for row in found) == list(range(41, 56))
    [conflict] = rows(pik, "--class", "conflict")
    assert (conflict["seq"], conflict["payload"]["n"], conflict["deliveries"]) == (2, 901, 2)
    assert rows(pik, "--class", "exact", "--batch", batch_of(pik, "first")) == []


def test_recording_is_a_window_of_its_own(pik: Callable[..., Any], sent: dict[str, list[dict[str, Any]]]) -> None:
    times = {row["batch_id"]: row["recorded_at"] for row in rows(pik)}
    second, third = times[batch_of(pik, "second")], times[batch_of(pik, "third")]
    found = rows(pik, "--recorded-since", second, "--recorded-until", third)
    assert numbers(found) == sorted(event["payload"]["n"] for event in sent["second"][:40])
    assert numbers(rows(pik, "--recorded-since", "1h")) == numbers(rows(pik))
    assert rows(pik, "--recorded-until", "1h") == []
    day = ("--from", "2026-01-02T05:00", "--to", "2026-01-03")
    there = rows(pik, *day, "--timezone", "Asia/Tokyo")
    assert there == rows(pik, "--from", "2026-01-01T20:00:00Z", "--to", "2026-01-03T00:00:00+09:00")
    assert there not in ([], rows(pik, *day))
    empty = pik("events", "--recorded-since", third, "--recorded-until", second)
    assert (empty.code, "--recorded-until" in empty.err) == (2, True)
    wrong = pik("events", "--recorded-since", "noon")
    assert (wrong.code, "'noon'" in wrong.err) == (2, True)


def test_a_minimal_lag_and_a_condition_select_as_plain_python_does(
    pik: Callable[..., Any], sent: dict[str, list[dict[str, Any]]]
) -> None:
    events = accepted(sent)
    slow = [event["payload"]["n"] for event in events if lag(event) >= 40]
    assert numbers(rows(pik, "--min-lag", "40s")) == sorted(slow)
    large = [event["payload"]["n"] for event in events if Decimal(event["payload"]["amount"]) > 60]
    assert numbers(rows(pik, "--where", f"{AMOUNT} > 60")) == sorted(large)
    assert numbers(rows(pik, "--where", f"{AMOUNT} > 60 -- of all", "--min-lag", "40s")) == sorted(
        set(slow) & set(large)
    )
    assert numbers(rows(pik, "--where", "payload->>'app' = 'web'", "--class", "conflict")) == [901]
    assert numbers(rows(pik, "--where", "payload->>'app' = 'web'")) == []


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("nowhere = 1", "unknown column nowhere"),
        ("entity = 'e'", "hint: did you mean entity_id? the columns are "),
        ('entity_id = "e-1"', "hint: a text has single quotes: 'e-1'; a field of the payload is payload->>'e-1'\n"),
        ('source = "ios"', "a text 'ios'\n"),
        ("count(*) > 1", "is an aggregate"),
        ("source", "not BOOLEAN"),
        ("true; SELECT 1", "more than one SQL expression"),
        ("(payload->>'app')::INTEGER = 1", "a value cannot be converted: Could not convert string 'ios'"),
    ],
)
@pytest.mark.usefixtures("sent")
def test_a_condition_that_cannot_be_evaluated_is_refused(pik: Callable[..., Any], where: str, reason: str) -> None:
    result = pik("events", "--where", where)
    assert (result.code, reason in result.err, "hint:" in result.err) == (2, True, True), result.err
    assert result.err.startswith(f"error: --where {where}: ")


@pytest.mark.usefixtures("sent")
def test_the_newest_come_first(pik: Callable[..., Any]) -> None:
    every = rows(pik)
    # Of events at one time, the greatest id first.
    assert rows(pik, "--newest") == sorted(every, key=lambda row: (row["event_time"], row["event_id"]), reverse=True)
    result = json.loads(pik("events", "--newest", "--limit", 7, "--format", "json").out)
    assert (result["events"], result["truncated"], result["matched"]) == (rows(pik, "--newest")[:7], True, None)
    assert "newest 7" in result["note"]


@pytest.mark.usefixtures("sent")
def test_columns_are_under_values_in_json_and_columns_for_people_and_in_csv(pik: Callable[..., Any]) -> None:
    paths = ("--column", "payload.amount", "--column", "payload.app", "--column", "[source, payload.n]")
    for row in rows(pik, *paths):
        payload = row["payload"]
        expected = {"payload.amount": payload["amount"], "payload.app": payload["app"]}
        assert row["values"] == {**expected, "[source, payload.n]": [row["source"], payload["n"]]}
    assert "values" not in rows(pik)[0]
    table = list(csv.DictReader(io.StringIO(pik("events", *paths, "--format", "csv").out)))
    assert [row["payload.amount"] for row in table] == [row["values"]["payload.amount"] for row in rows(pik, *paths)]
    assert {row["payload.app"] for row in table} == {"ios", ""}
    assert json.loads(table[0]["[source, payload.n]"])[0] == table[0]["source"]
    assert "payload.amount" in pik("events", *paths).out
    wrong = pik("events", "--column", "payload.")
    assert (wrong.code, "--column payload." in wrong.err) == (2, True)


def groups(pik: Callable[..., Any], by: str, *options: object) -> dict[Any, int]:
    result = json.loads(pik("events", "--by", by, *options, "--format", "json").out)
    name = by if not by.startswith("payload") else "value"
    assert result["events"] == sum(row["events"] for row in result["groups"])
    assert (result["matched"], result["truncated"]) == (len(result["groups"]), False)
    return {row[name]: row["events"] for row in result["groups"]}


def test_counts_are_those_of_plain_python(pik: Callable[..., Any], sent: dict[str, list[dict[str, Any]]]) -> None:
    events = accepted(sent)
    for by, field in (("type", "event_type"), ("entity", "entity_id"), ("source", "source")):
        assert groups(pik, by) == Counter(event[field] for event in events)
    assert groups(pik, "payload.app") == Counter(event["payload"]["app"] for event in events)
    by_hour = groups(pik, "hour")
    assert by_hour == Counter(f"{event['event_time'][:13]}:00:00Z" for event in events)
    assert list(by_hour) == sorted(by_hour)
    assert groups(pik, "day") == Counter(event["event_time"][:10] for event in events)
    assert sorted(groups(pik, "batch").values()) == [1, 40, 120]
    assert groups(pik, "batch", "--class", "exact") == {batch_of(pik, "second"): 15}
    large = Counter(event["source"] for event in events if Decimal(event["payload"]["amount"]) > 60)
    assert groups(pik, "source", "--where", f"{AMOUNT} > 60") == large


@pytest.mark.usefixtures("sent")
def test_a_limit_of_groups_says_what_it_leaves_out(pik: Callable[..., Any]) -> None:
    whole = json.loads(pik("events", "--by", "hour", "--format", "json").out)
    result = json.loads(pik("events", "--by", "hour", "--limit", 3, "--format", "json").out)
    assert result["groups"] == whole["groups"][:3]
    assert (result["events"], result["matched"], result["truncated"]) == (whole["events"], whole["matched"], True)
    unknown = pik("events", "--by", "hours")
    assert (unknown.code, "payload.hours" in unknown.err) == (2, True)
    assert pik("events", "--by", "hour", "--newest").code == 2
    assert pik("events", "--by", "payload.[").code == 2
    mistyped = json.loads(pik("events", "--by", "payload.App", "--format", "json").out)
    assert ([row["value"] for row in mistyped["groups"]], "nothing at payload.App" in mistyped["note"]) == (
        [None],
        True,
    )


@pytest.mark.usefixtures("sent")
def test_the_exit_code_says_whether_there_is_any(pik: Callable[..., Any]) -> None:
    assert pik("events", "--class", "conflict", "--fail-if-any").code == 1
    assert pik("events", "--class", "conflict", "--entity", "nobody", "--fail-if-any").code == 0
    assert pik("events", "--by", "hour", "--fail-if-any").code == 1
    assert pik("events", "--entity", "nobody", "--fail-if-none").code == 1


METRIC = 'name = "refunds"\nvalue = "count(*)"\nwhere = "event_type = \'refund\'"\nbucket = "12h"\n'


def test_what_a_current_value_does_not_count_is_listed_with_the_reason(
    pik: Callable[..., Any], sent: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "m.toml").write_text(METRIC)
    pik("metrics", "apply", "m.toml")
    assert {row["not_counted"] for row in rows(pik, "--not-counted", "refunds")} == {"no value", "filter"}
    only = ("--entity", "c1", "--from", "2026-01-02", "--to", "2026-01-04")
    assert pik("replay", *only, "--metric", "refunds", "--promote", "--yes").code == 0
    refund = next(event for event in sent["first"] if event["event_type"] == "refund")
    chance = random.Random(8)
    late = [{**made(number, chance), "entity_id": "c1"} for number in range(1000, 1040)]
    (tmp_path / "late.jsonl").write_text("".join(json.dumps(event) + "\n" for event in [refund, *late]))
    assert pik("ingest", "late.jsonl").code == 0

    def half_day(event: dict[str, Any]) -> tuple[str, str, bool]:
        return event["entity_id"], event["event_time"][:10], event["event_time"][11:13] >= "12"

    refunds = [event for event in accepted(sent) if event["event_type"] == "refund"]
    valued = {
        half_day(event) for event in refunds if half_day(event)[0] == "c1" and "-02" <= half_day(event)[1][7:] <= "-03"
    }
    expected: dict[int, str] = {}
    for event in [*accepted(sent), *late]:
        if event["event_type"] != "refund":
            expected[event["payload"]["n"]] = "filter"
        elif half_day(event) not in valued:
            expected[event["payload"]["n"]] = "no value"
        elif event["payload"]["n"] >= 1000:
            expected[event["payload"]["n"]] = "late"
    assert set(expected.values()) == {"filter", "no value", "late"}
    found = rows(pik, "--not-counted", "refunds")
    assert {row["payload"]["n"]: row["not_counted"] for row in found} == expected
    for row in found:
        assert (row["known_until"] is None) == (row["run_id"] is None)
        if row["not_counted"] == "late":
            assert row["known_until"] < row["recorded_at"]
    assert (
        rows(pik, "--not-counted", "refunds", "--newest", "--limit", 5)
        == rows(pik, "--newest", "--not-counted", "refunds")[:5]
    )
    by_type = groups(pik, "type", "--not-counted", "refunds")
    assert sum(by_type.values()) == len(expected)
    assert pik("events", "--not-counted", "nothing").code == 2
    assert pik("events", "--not-counted", "refunds", "--class", "exact").code == 2
    assert "not counted" in pik("events", "--not-counted", "refunds").out


def test_a_value_of_an_earlier_definition_counts_what_that_selected(
    pik: Callable[..., Any], sent: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "m.toml").write_text('name = "m"\nvalue = "count(*)"\nwhere = "source = \'web\'"\n')
    pik("metrics", "apply", "m.toml")
    assert pik("replay", "--all", "--promote", "--yes").code == 0
    (tmp_path / "m.toml").write_text('name = "m"\nvalue = "count(*)"\nwhere = "source = \'app\'"\nbucket = "6h"\n')
    pik("metrics", "apply", "m.toml")
    found = rows(pik, "--not-counted", "m", "--column", "source")
    web = {(e["entity_id"], e["event_time"][:10]) for e in accepted(sent) if e["source"] == "web"}
    app = [event for event in accepted(sent) if event["source"] == "app"]
    assert numbers(found) == sorted(event["payload"]["n"] for event in app)
    by_reason = Counter("filter" if (e["entity_id"], e["event_time"][:10]) in web else "no value" for e in app)
    assert Counter(row["not_counted"] for row in found) == by_reason


@pytest.mark.usefixtures("sent")
def test_what_is_recorded_meanwhile_is_followed(
    pik: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    chance = random.Random(9)
    events = [made(number, chance) for number in range(2000, 2006)]

    def ingest_three(seconds: float) -> None:
        """Between two looks, three events come."""
        part = events[3 * len(looks) : 3 * len(looks) + 3]
        assert part, "all came, and were not shown"
        looks.append(seconds)
        writer = Thread(target=lambda: ingest(open_store(str(tmp_path / ".pik")), tmp_path, part))
        writer.start()
        writer.join()

    monkeypatch.setattr("pik.cli.commands.inspect.follow.sleep", ingest_three)
    result = pik("events", "--follow", "--limit", 5, "--column", "payload.n", "--format", "jsonl")
    found = [json.loads(line) for line in result.out.splitlines()]
    assert (result.code, [row["values"]["payload.n"] for row in found]) == (0, list(range(2000, 2005)))
    assert "deliveries" not in found[0]
    assert "Ctrl-C" in result.err


@pytest.mark.usefixtures("sent")
def test_following_starts_at_a_time_of_recording_and_ends_with_ctrl_c(
    pik: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pik.cli.commands.inspect.follow.sleep", interrupt)
    result = pik("events", "--follow", "--recorded-since", "1h", "--class", "conflict")
    assert (result.code, "interrupted" in result.err, result.out.count("\n")) == (130, True, 2)
    for options in (("--by", "hour"), ("--newest",), ("--where", "true"), ("--format", "json")):
        refused = pik("events", "--follow", *options)
        assert (refused.code, "--follow" in refused.err, "hint" in refused.err) == (2, True, True)
