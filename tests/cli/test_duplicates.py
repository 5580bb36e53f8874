"""`pik duplicates`: suspects, and what duplicates are counted by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def line(second: int, payload: dict[str, Any], **more: Any) -> str:
    fields = {"source": "web", "event_type": "paid", "entity_id": "a", "event_time": f"2026-01-01T00:00:{second:02}Z"}
    return json.dumps({**fields, "payload": payload, **more}) + "\n"


@pytest.fixture
def shop(pik: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """A payment that was sent again with another time, one that came twice, and one whose amount changed."""
    one, other = {"id": 1, "v": 5, "app": "1.0"}, {"id": 2, "v": 7, "app": "1.1"}
    keyed = line(40, {"id": 3, "v": 9, "app": "1.1"}, idempotency_key="k")
    (tmp_path / "first.jsonl").write_text(line(0, one) + line(20, other) + keyed)
    again = line(40, {"id": 3, "v": 8, "app": "2.0"}, idempotency_key="k")
    (tmp_path / "again.jsonl").write_text(line(3, one) + line(20, other) + again)
    pik("ingest", "first.jsonl")
    assert pik("ingest", "again.jsonl").code == 0
    return pik


def found(pik: Callable[..., Any], *options: str, code: int = 0) -> Any:
    result = pik("duplicates", *options, "--format", "json")
    assert result.code == code, result.err
    return json.loads(result.out)


def test_a_suspect_is_shown_with_the_event_that_it_looks_like(shop: Callable[..., Any]) -> None:
    said = found(shop, "--class", "suspect")
    [row] = said["suspects"]
    assert (row["event_time"], row["earlier_time"]) == ("2026-01-01T00:00:03Z", "2026-01-01T00:00:00Z")
    assert (row["distance_ms"], row["seq"], row["earlier_seq"], said["matched"]) == (3000, 1, 1, 1)
    assert row["batch_id"] != row["earlier_batch_id"]
    assert said["rule"] == "same source, type, entity and payload (as JSON values), 0s to 5s apart"
    assert found(shop, "--class", "suspect", "--within", "2s")["suspects"] == []


def test_a_suspect_may_be_of_another_source_if_asked_for(pik: Callable[..., Any], tmp_path: Path) -> None:
    line = (
        '{"source":"%s","event_type":"paid","entity_id":"p","event_time":"2026-01-01T00:00:0%dZ","payload":{"v":1}}\n'
    )
    (tmp_path / "two.jsonl").write_text(line % ("browser", 0) + line % ("server", 0) + line % ("app", 2))
    assert pik("ingest", "two.jsonl").code == 0
    assert found(pik, "--class", "suspect")["suspects"] == []
    said = found(pik, "--class", "suspect", "--any-source")
    pairs = [(row["earlier_source"], row["source"], row["distance_ms"]) for row in said["suspects"]]
    assert pairs == [("browser", "server", 0), ("server", "app", 2000)]
    assert said["rule"] == "any source; same type, entity and payload (as JSON values), 0s to 5s apart"
    assert "browser → server" in pik("duplicates", "--class", "suspect", "--any-source").out
    assert pik("duplicates", "--any-source").code == 2
    assert pik("duplicates", "--class", "suspect", "--any-source", "--impact").code == 2


def test_what_both_events_have_is_shown_beside_them(shop: Callable[..., Any]) -> None:
    of = (
        "--class",
        "suspect",
        "--within",
        "30s",
        "--same",
        "source",
        "--column",
        "payload.app",
        "--column",
        "payload.v",
    )
    rows = found(shop, *of)["suspects"]
    assert [(row["earlier_values"], row["values"]) for row in rows[:2]] == [
        ({"payload.app": "1.0", "payload.v": 5}, {"payload.app": "1.0", "payload.v": 5}),
        ({"payload.app": "1.0", "payload.v": 5}, {"payload.app": "1.1", "payload.v": 7}),
    ]
    lines = shop("duplicates", *of, "--format", "csv").out.splitlines()
    assert [line.split(",")[8:10] for line in lines[:3]] == [
        ["payload.app", "payload.v"],
        ["1.0", "5"],
        ["1.0 → 1.1", "5 → 7"],
    ]
    assert "values" not in found(shop, "--class", "suspect")["suspects"][0]


def test_suspects_are_not_among_the_duplicates(shop: Callable[..., Any]) -> None:
    assert [row["kind"] for row in found(shop)["duplicates"]] == ["exact", "conflict"]
    assert shop("duplicates", "--class", "suspect", "--fail-if-any").code == 1
    assert shop("duplicates", "--class", "suspect", "--within", "1s", "--fail-if-any").code == 0
    assert shop("duplicates", "--class", "suspect", "--within", "1s", "--fail-if-none").code == 1


def test_other_values_than_the_payload_can_be_compared(shop: Callable[..., Any]) -> None:
    said = found(shop, "--class", "suspect", "--within", "30s", "--same", "payload.app", "--same", "source")
    assert [row["distance_ms"] for row in said["suspects"]] == [3000, 20000]
    assert "entity and payload.app, source" in said["rule"]
    assert found(shop, "--class", "suspect", "--within", "30s", "--same", "payload.app, source") == said
    [row] = found(shop, "--class", "suspect", "--same", "[payload.id, payload.app]")["suspects"]
    assert row["distance_ms"] == 3000
    said = found(shop, "--class", "suspect", "--within", "30s", "--same", "payload.nothing")
    assert said["note"] == "4 events have a neighbour in time, but nothing at payload.nothing: not compared"


@pytest.mark.parametrize("kind", [(), ("--class", "suspect")])
def test_they_are_counted_by_any_path(shop: Callable[..., Any], kind: tuple[str, ...]) -> None:
    groups = found(shop, "--by", "payload.app", *kind)["groups"]
    expected = {"1.0": 1} if kind else {"1.1": 1, "2.0": 1}
    assert {row["value"]: row["suspects" if kind else "duplicates"] for row in groups} == expected
    names = {"source": "web", "type": "paid", "entity": "a", "day": "2026-01-01", "hour": "2026-01-01T00:00:00Z"}
    for by, name in names.items():
        assert [row[by] for row in found(shop, "--by", by, *kind)["groups"]] == [name]
    assert "there is nothing at payload.App in any" in found(shop, "--by", "payload.App", *kind)["note"]


METRICS = """
[[metric]]
name = "revenue"
value = "sum((payload->>'v')::BIGINT)"

[[metric]]
name = "largest"
value = "max((payload->>'v')::BIGINT)"
bucket = "1h"
"""


@pytest.mark.parametrize(
    ("kind", "of", "assumption", "total", "largest"),
    [
        ("exact", 1, "these exact duplicates count too", 26 + 7, None),
        ("conflict", 1, "the last delivery of each of these events counts", 26 - 9 + 8, 8),
        ("suspect", 1, "these suspects do not count", 26 - 5, None),
        (None, 2, "these duplicates count too", 26 + 7 + 8, None),
    ],
)
def test_the_impact_on_every_metric_is_shown(
    shop: Callable[..., Any], tmp_path: Path, kind: str | None, of: int, assumption: str, total: int, largest: int
) -> None:
    (tmp_path / "m.toml").write_text(METRICS)
    shop("metrics", "apply", "m.toml")
    said = found(shop, "--impact", *(("--class", kind) if kind else ()))
    assert (said["assumption"], said["deliveries"]) == (assumption, of)
    revenue = next(row for row in said["metrics"] if row["metric"] == "revenue@1")
    assert (revenue["total"], revenue["total_assumed"], revenue["delta"]) == (26, total, total - 26)
    highest = next(row for row in said["metrics"] if row["metric"] == "largest@1")
    assert (highest["total"], highest["total_assumed"], highest["differing"]) == (None, None, int(bool(largest)))
    assert [(row["value"], row["value_assumed"]) for row in said["differing_values"]] == (
        [(9, largest)] if largest else []
    )
    if kind is None:
        shop("replay", "--all", "--promote", "--yes")
        counted = shop("diff", "aggregates", "--assume", "duplicates=counted", "--format", "json").json()
        assert [row["recomputed"] for row in counted["differences"] if row["metric"] == "revenue"] == [total]


def test_only_the_selected_duplicates_are_assumed_to_count(shop: Callable[..., Any]) -> None:
    none = found(shop, "--impact", "--to", "2026-01-01T00:00:10Z")
    assert (none["deliveries"], none["metrics"][0]["delta"]) == (0, 0)
    some = found(shop, "--impact", "--to", "2026-01-01T00:00:30Z")
    assert (some["deliveries"], some["metrics"][0]["total"], some["metrics"][0]["total_assumed"]) == (1, 4, 5)
    assert some["effective"]["to"] == "2026-01-02T00:00:00Z"


def test_what_the_last_of_several_conflicts_moves_out_of_the_window_is_not_lost(pik: Callable[..., Any]) -> None:
    for day in (1, 2, 4):
        time = f"2026-01-0{day}T00:00:00Z"
        Path("one.jsonl").write_text(line(0, {"v": day}, idempotency_key="k", event_time=time))
        pik("ingest", "one.jsonl")
    said = found(pik, "--class", "conflict", "--impact", "--from", "2026-01-02", "--to", "2026-01-03")
    [count] = said["metrics"]
    assert (count["total"], count["total_assumed"], count["differing"]) == (1, 1, 2)
    assert said["effective"] == {"from": "2026-01-01T00:00:00Z", "to": "2026-01-05T00:00:00Z"}


def test_each_value_that_makes_a_conflict_is_shown_as_it_was_written(
    pik: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for payload in (
        '{"n":0.12345678901234567891,"is":true,"same":10.0}',
        '{"n":0.1234567890123456789,"is":1,"same":1e1}',
    ):
        Path("one.jsonl").write_text(line(0, {"v": 0}, idempotency_key="k").replace('{"v": 0}', payload))
        pik("ingest", "one.jsonl")
    shown = pik("duplicates", "--show-payload-diff", "--format", "json").out
    assert '"path":"payload.is","accepted":true,"conflicting":1' in shown
    assert '"path":"payload.n","accepted":0.12345678901234567891,"conflicting":0.1234567890123456789' in shown
    assert "payload.same" not in shown
    monkeypatch.setattr("pik.cli.table.terminal_width", lambda: 80)
    shown = pik("duplicates", "--show-payload-diff").out
    assert "payload.is: true → 1" in shown, shown


def test_what_cannot_be_computed_is_counted(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('name = "wrong"\nvalue = "sum(source::BIGINT)"\n')
    shop("metrics", "apply", "m.toml")
    said = found(shop, "--impact", code=3)
    assert {row["metric"]: (row["failed"], row["total"]) for row in said["metrics"]} == {
        "event_count@1": (0, 4),
        "wrong@1": (1, None),
    }
    assert said["note"] == "1 value cannot be computed; why: pik diff aggregates"


def test_changes_are_counted(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text(line(40, {"id": 3, "v": 8.0}, idempotency_key="k"))
    shop("ingest", "more.jsonl")
    said = found(shop, "--class", "conflict", "--changes", "payload.v")
    assert said["changes"] == [{"old_value": 9, "new_value": 8, "count": 2}]
    assert (said["pairs"], said["unchanged"]) == (2, 0)
    said = found(shop, "--class", "conflict", "--changes", "payload.app", "--limit", "1")
    assert (said["changes"], said["truncated"]) == ([{"old_value": "1.1", "new_value": "2.0", "count": 1}], True)
    assert found(shop, "--class", "conflict", "--changes", "payload.id")["unchanged"] == 2
    same = ("--class", "suspect", "--within", "30s", "--same", "source")
    said = found(shop, *same, "--changes", "payload.v")
    assert said["changes"] == [
        {"old_value": 5, "new_value": 7, "count": 1},
        {"old_value": 7, "new_value": 9, "count": 1},
    ]
    assert (said["pairs"], said["unchanged"]) == (3, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--within", "5s"), "--within is for suspects"),
        (("--same", "payload.id"), "--same is for suspects"),
        (("--class", "suspect", "--within", "soon"), "'soon' is not a duration"),
        (("--class", "suspect", "--within", "2h"), "--within 2h: more than 1h"),
        (("--class", "suspect", "--min-deliveries", "3"), "--min-deliveries is for duplicates"),
        (("--class", "suspect", "--show-payload-diff"), "--show-payload-diff is for duplicates"),
        (("--class", "suspect", "--same", "payload.["), "--same payload.["),
        (("--by", "payload.["), "--by payload.["),
        (("--changes", "payload.v"), "--changes compares two deliveries that differ"),
        (("--class", "suspect", "--changes", "payload.v"), "suspects have equal payloads"),
        (("--impact", "--by", "source"), "--by and --impact show different things"),
        (("--show-payload-diff", "--by", "source"), "--by and --show-payload-diff show different things"),
        (("--column", "payload.v"), "--column is for suspects"),
        (("--class", "suspect", "--column", "payload.v", "--impact"), "--column and --impact show different things"),
        (("--class", "suspect", "--column", "v"), "payload.v if it is in the payload"),
        (("--by", "length(payload.id)"), "length() takes"),
        (("--by", "week"), "source, type, entity, batch, day, hour, or a path: payload.week if it is in the payload"),
    ],
)
def test_mistakes_are_named(shop: Callable[..., Any], options: tuple[str, ...], message: str) -> None:
    result = shop("duplicates", *options)
    assert (result.code, message in result.err, result.out) == (2, True, ""), result.err


def test_a_store_without_suspects_says_why(pik: Callable[..., Any]) -> None:
    assert pik("duplicates", "--class", "suspect").code == 4
    pik("init", "--store", ".pik")
    result = pik("duplicates", "--class", "suspect")
    assert (result.code, "0 suspects match: the store has no events" in result.err) == (0, True)


def test_accents_of_two_kinds_look_different(pik: Callable[..., Any]) -> None:
    event = {"source": "s", "event_type": "t", "entity_id": "u", "event_time": "2026-01-01T00:00:00Z"}
    for name in ("caf\u00e9", "cafe\u0301", "th\u00e9"):
        Path("e").write_text(json.dumps({**event, "idempotency_key": "k", "payload": {"n": name}}, ensure_ascii=False))
        assert pik("ingest", "e").code == 0
    shown = pik("duplicates", "--show-payload-diff").out
    assert r'payload.n: "caf\xe9" → "cafe\u0301"' in shown
    assert 'payload.n: "caf\u00e9" → "th\u00e9"' in shown
