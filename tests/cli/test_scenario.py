"""`pik diff aggregates --as-of, --assume`: what is assumed is echoed, nothing is written, and mistakes are named."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pik.errors import InputError
from pik.usecases.metrics.event_ids import read_event_ids

METRIC = 'name = "revenue"\nvalue = "sum((payload->>\'v\')::BIGINT)"\n'


def line(entity: str, value: int, hour: int, source: str = "web") -> str:
    return json.dumps(
        {
            "source": source,
            "event_type": "paid",
            "entity_id": entity,
            "event_time": f"2026-01-01T{hour:02}:00:00Z",
            "payload": {"v": value},
        }
    )


@pytest.fixture
def shop(pik: Callable[..., Any], tmp_path: Path, once: Callable[..., None]) -> Callable[..., Any]:
    """Revenue of 1 + 2 from a first batch is current; 4 came later."""

    def make() -> None:
        (tmp_path / "m.toml").write_text(METRIC)
        (tmp_path / "first.jsonl").write_text(line("a", 1, 1) + "\n" + line("a", 2, 23) + "\n")
        (tmp_path / "late.jsonl").write_text(line("a", 4, 5, "app") + "\n")
        pik("ingest", "first.jsonl")
        pik("metrics", "apply", "m.toml")
        pik("replay", "--all", "--promote", "--yes")
        assert pik("ingest", "late.jsonl").code == 0

    once(make)
    return pik


def contents(directory: Path) -> dict[str, Any]:
    """The files of a store; of SQLite's the rows, since a reader may move those from one file to the other."""
    return {
        str(path): rows_of(path) if path.suffix == ".db" else path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix not in (".db-wal", ".db-shm")
    }


def rows_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def diff(pik: Callable[..., Any], *options: str) -> tuple[int, dict[str, Any]]:
    result = pik("diff", "aggregates", "--metric", "revenue", *options, "--format", "json")
    return result.code, json.loads(result.out) if result.out else {}


def batch_of(pik: Callable[..., Any], name: str) -> dict[str, Any]:
    return next(
        each for each in json.loads(pik("batches", "--format", "json").out)["batches"] if each["source"] == name
    )


def test_a_scenario_is_echoed_resolved_and_writes_nothing(shop: Callable[..., Any], tmp_path: Path) -> None:
    before = contents(tmp_path / ".pik")
    late = batch_of(shop, "late.jsonl")["batch_id"]
    code, plain = diff(shop)
    assert (code, plain["assumed"], plain["differences"][0]["recomputed"]) == (1, None, 7)
    code, found = diff(shop, "--assume", f"without-batch={late[:20].lower()}")
    assert (code, found["assumed"], found["differences"]) == (0, [f"without-batch={late}"], [])
    code, found = diff(shop, "--as-of", plain["known_until"], "--assume", "without=selected,source=app")
    assert (code, len(found["assumed"]), found["next"]) == (0, 2, None)
    code, found = diff(shop, "--assume", "shift=1h,source=web")
    assert [(row["bucket"][:10], row["recomputed"]) for row in found["differences"]] == [
        ("2026-01-01", 5),
        ("2026-01-02", 2),
    ]
    assert contents(tmp_path / ".pik") == before


def test_another_definition_can_be_named_or_given_as_a_file(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "twice.toml").write_text(METRIC.replace("sum(", "2 * sum("))
    _, found = diff(shop, "--assume", "definition=@twice.toml")
    assert (found["metrics"], found["differences"][0]["recomputed"]) == (["revenue@file"], 14)
    shop("metrics", "apply", "twice.toml")
    assert diff(shop)[1]["differences"][0]["recomputed"] == 14
    result = shop("diff", "aggregates", "--metric", "revenue@1", "--format", "json")
    assert json.loads(result.out)["differences"][0]["recomputed"] == 7
    assert shop("diff", "aggregates", "--metric", "revenue@9").code == 4


def test_ids_of_events_to_leave_out_come_from_any_listing(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text(shop("events", "--source", "app", "--format", "json").out)
    assert diff(shop, "--assume", "without=@ids.json")[0] == 0
    for form in ("jsonl", "csv"):
        (tmp_path / "ids").write_text(shop("events", "--source", "app", "--format", form).out, encoding="utf-8-sig")
        columns = shop("sql", "SELECT event_id FROM events WHERE source = 'app'", "--format", form).out
        (tmp_path / "column").write_text(columns.upper().replace("EVENT_ID", "event_id"))
        assert form == "csv" or diff(shop, "--assume", "without=@ids")[0] == 0
        assert diff(shop, "--assume", "without=@column")[0] == 0
    (tmp_path / "empty.txt").write_text("")
    assert "has no event_ids" in shop("diff", "aggregates", "--assume", "without=@empty.txt").err
    assert "there is no file absent" in shop("diff", "aggregates", "--assume", "without=@absent").err


def test_ids_are_read_however_their_json_is_laid_out(tmp_path: Path) -> None:
    one, other = "a" * 32, "0" * 31 + "b"
    rows = [{"event_id": one}, {"event_id": other}]
    for text in (
        "".join(map(json.dumps, rows)),
        "\n".join(json.dumps(row, indent=2) for row in rows),
        json.dumps([one, other]),
        f'"{one}"\n"{other}"\n',
        f"\n{one}\n{other}",
        f"{other}\n{one}\n{other}",
    ):
        (tmp_path / "ids").write_text(text)
        assert set(read_event_ids(str(tmp_path / "ids"))) == {one, other}
    (tmp_path / "ids").write_text('"abc"')
    with pytest.raises(InputError, match="has 'abc', which is not an event_id"):
        read_event_ids(str(tmp_path / "ids"))


def test_ids_in_a_payload_are_not_those_of_events(tmp_path: Path) -> None:
    """Whatever the payload is: one of numbers that no double holds was not read as JSON."""
    row = '{"event_id": "%s", "payload": {"event_id": "%s", "n": 1e400}, "seq": 1}'
    for text in (row, f"[{row}]", f"{row}\n"):
        (tmp_path / "ids").write_text(text.replace("%s", "a" * 32, 1).replace("%s", "b" * 32))
        assert read_event_ids(str(tmp_path / "ids")) == ("a" * 32,)
        for data in (gzip.compress((tmp_path / "ids").read_bytes()), (tmp_path / "ids").read_text().encode("utf-16")):
            (tmp_path / "others").write_bytes(data)
            assert read_event_ids(str(tmp_path / "others")) == ("a" * 32,)
        (tmp_path / "others").write_bytes(gzip.compress((tmp_path / "ids").read_bytes()) + b"garbage")
        with pytest.raises(InputError, match="after its member comes what is not gzip"):
            read_event_ids(str(tmp_path / "others"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--as-of", "noon"], "error: --as-of: "),
        (["--assume", "without-batch=01J8Z3"], "error: batch 01J8Z3 is not in this store"),
        (["--assume", "shift=1h,where=v = 1"], "unknown column v"),
        (["--run", "01J8", "--assume", "duplicates=counted"], "--run recomputes nothing"),
        (["--as-of", "2026-01-01", "--entity", "nobody"], "nothing to compare at any time, assuming as-of="),
    ],
)
def test_a_scenario_that_cannot_be_is_refused(shop: Callable[..., Any], options: list[str], message: str) -> None:
    result = shop("diff", "aggregates", *options)
    assert (result.code in (2, 4), message in result.err) == (True, True), result.err


@pytest.mark.parametrize(
    "assumption",
    [
        "shift=1h,source=wbe",
        "without=selected,type=payd",
        "without=selected,source=web,from=2027-01-01",
        "conflicts=last,entity=o'b",
        "without=suspects,source=web",
        "zone=Europe/Berlin,where=(payload->>'v')::INT > 99",
        "with=@first.jsonl",
    ],
)
def test_promise_9_an_assumption_that_selects_nothing_is_not_taken_for_no_change(
    shop: Callable[..., Any], assumption: str
) -> None:
    result = shop("diff", "aggregates", "--assume", assumption)
    reason = "selects no suspect" if "suspects" in assumption else "selects no delivery at any time"
    reason = "the store has all of its events" if assumption.startswith("with=") else reason
    assert (result.code, assumption in result.err, reason in result.err) == (2, True, True), result.err


def test_a_selection_of_events_that_are_out_already_says_so(shop: Callable[..., Any]) -> None:
    """Of corrections that take events out, move them out of the selection, or withdraw their batch."""
    late = batch_of(shop, "late.jsonl")["batch_id"]
    for recorded in ("without=selected,source=app", "shift=-2d,source=app", f"without-batch={late}"):
        why = ("--reason", "r", "--yes", "--format", "json")
        made = json.loads(shop("correct", "--assume", recorded, *why).out)["corrections"][0]["correction_id"]
        refused = shop("diff", "aggregates", "--assume", "shift=1h,source=app,from=2026-01-01,to=2026-01-02")
        assert (refused.code, refused.err.splitlines()[-1]) == (2, "hint: pik corrections list"), recorded
        assert "selects no delivery that counts at any time: corrections took out or moved" in refused.err
        shop("corrections", "revoke", made, *why)


def test_a_selection_that_only_duplicates_or_other_days_meet_selects(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "again.jsonl").write_text(line("a", 1, 1) + "\n")
    shop("ingest", "again.jsonl")
    again = batch_of(shop, "again.jsonl")["batch_id"]
    assert diff(shop, "--assume", f"shift=1h,batch={again}")[0] == 1
    code, found = diff(shop, "--from", "2026-01-02", "--assume", "shift=1d,source=app")
    assert (code, [row["recomputed"] for row in found["differences"]]) == (1, [4])


FOREIGN = [
    {"user": "a", "at": "2026-01-02 12:00:00", "body": {"v": 32}, "ref": "r,2"},
    {"user": "a", "at": "2026-01-01 23:30:00", "body": {"v": 999}, "ref": "r,2"},
    {"user": "a", "at": "2026-01-02 00:30:00", "body": {"v": 8}, "ref": "r,1"},  # on the day before in UTC
    {"user": "a", "at": "2026-01-01 00:30:00", "body": {"v": 999}, "ref": "r,2"},
    {"user": "a", "at": "2026-01-03 12:00:00", "body": {"v": 999}, "ref": "r,1"},
]
OPTIONS = {
    "--map": [
        *("source='web'", "event_type='paid'", "entity_id=user", "event_time=at", "payload=body"),
        "idempotency_key=join(',', [user, ref])",
    ],
    "--time-format": ["%Y-%m-%d %H:%M:%S"],
    "--timezone": ["Europe/Berlin"],
}


def test_promise_11_a_foreign_file_counts_as_it_does_once_it_is_ingested(
    shop: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of deliveries of one event in the file the first counts, whatever their days and blocks."""
    monkeypatch.setattr("pik.inputs.blocks.LINES", 2)
    monkeypatch.setattr("pik.usecases.inspect.producer_log.BLOCK", 1)  # so workers read it
    (tmp_path / "foreign.json.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, FOREIGN)).encode()))
    typed = [(name, value) for name, values in OPTIONS.items() for value in values]
    quoted = [(name[2:], f'"{value}"' if "," in value else value) for name, value in typed]
    assumption = ",".join(["with=@foreign.json.gz", *(f"{name}={value}" for name, value in quoted)])
    code, assumed = diff(shop, "--assume", assumption)
    assert (code, assumed["assumed"]) == (1, [assumption])
    assert [(row["bucket"][:10], row["recomputed"]) for row in assumed["differences"]] == [
        ("2026-01-01", 7 + 8),
        ("2026-01-02", 32),
    ]
    _, explained = diff(shop, "--assume", assumed["assumed"][0], "--explain")
    [_, assumed_cause] = explained["differences"][0]["causes"]
    assert (assumed_cause["cause"], assumed_cause["share"]) == ("assumed", 8)
    assert shop("ingest", "foreign.json.gz", *(word for pair in typed for word in pair)).code == 0
    assert diff(shop)[1]["differences"] == assumed["differences"]


def test_a_file_is_read_by_what_pik_toml_says_unless_an_option_does(shop: Callable[..., Any], tmp_path: Path) -> None:
    lines = [{**json.loads(line("a", 8, 1)), "user": "a", "event_time": "2026-01-01T00:30:00"}]
    (tmp_path / "local.jsonl").write_text(json.dumps(lines[0]))
    (tmp_path / "pik.toml").write_text('[ingest]\ntimezone = "Europe/Berlin"\n[ingest.map]\nentity_id = "nobody"\n')
    _, found = diff(shop, "--assume", "with=@local.jsonl,map=entity_id=user")
    assert found["assumed"] == ["with=@local.jsonl,map=entity_id=user,timezone=Europe/Berlin"]
    assert [row["bucket"][:10] for row in found["differences"]] == ["2025-12-31", "2026-01-01"]
    _, found = diff(shop, "--assume", "with=@local.jsonl,map=entity_id=user,timezone=UTC")
    assert [row["recomputed"] for row in found["differences"]] == [15]


def test_an_assumed_file_may_look_back_as_far_as_max_window_says(shop: Callable[..., Any], tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "wide.zst").write_bytes(stream.compress(line("a", 8, 1).encode() + b"\n") + stream.flush())
    assert "takes 256 MiB" in shop("diff", "aggregates", "--assume", "with=@wide.zst").err
    _, found = diff(shop, "--assume", "with=@wide.zst,max-window=268435456")
    assert [row["recomputed"] for row in found["differences"]] == [15]
    assert found["assumed"] == ["with=@wide.zst,max-window=268435456"]


UNREADABLE = [
    (
        f"{line('a', 8, 1)}\n\n[]\nno\n",
        "",
        "late2.jsonl: record 3 is not an event: ",
        "ingest --dry-run late2.jsonl",
    ),
    (f"{line('a', 8, 1)}\n\n[]\nno\n", "", "(2 of 3 records are not)", "ingest --dry-run late2.jsonl"),
    (
        line("a", 8, 1),
        ",max-line=99",
        "record 1 is not an event: the line is longer than 99 bytes",
        "--max-line 99",
    ),
    (line("a", 8, 1), ",map=entity_id=user", "--map entity_id=user: the first records of late2.jsonl have", "user"),
    (line("a", 8, 1), ",map=entity=user", "late2.jsonl,map=entity=user: --map entity=", "entity_id"),
    (
        line("a", 8, 1),
        ",map=entity_id=user(",
        "late2.jsonl,map=entity_id=user(: --map entity_id=",
        "the parentheses do not match",
    ),
    (line("a", 8, 1), ",time-format=%Y", "--assume with=@late2.jsonl,time-format=%Y: ", "%"),
    (line("a", 8, 1), ",colour=red", "'colour=red' is not an option of how files are read", "map=FIELD=JMESPATH"),
    ("\n", "", "with=@late2.jsonl: the file has no event", ""),
    (line("a", 4, 5, "app"), "", "with=@late2.jsonl: the store has all of its events already", "pik show"),
    ("id,amount\n1,2\n", "", "have no field of an event", "they have id, amount"),
    ("\x00\x01\x02\xff", "", "late2.jsonl", ""),
]


def test_a_file_that_cannot_be_read_as_events_is_refused_by_name_and_record(
    shop: Callable[..., Any], tmp_path: Path
) -> None:
    for content, options, message, hint in UNREADABLE:
        (tmp_path / "late2.jsonl").write_text(content)
        result = shop("diff", "aggregates", "--assume", f"with=@late2.jsonl{options}")
        assert (result.code, result.out) == (2, ""), result.err
        assert (message in result.err, hint in result.err) == (True, True), result.err
    explained = shop("explain", "revenue", "a", "2026-01-01", "--assume", "with=@late2.jsonl")
    assert (explained.code, explained.err) == (2, result.err)
    assert "there is no file none" in shop("diff", "aggregates", "--assume", "with=@none").err
    assert "can be read only once" in shop("diff", "aggregates", "--assume", "with=@-").err
