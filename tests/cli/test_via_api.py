"""`--via api`: the deployed API in place of its storage. Here it is the handlers over a local store."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pik import lambdas
from pik.inputs.blocks import Block
from pik.inputs.opened_file import OpenedFile
from pik.lambdas import replay as replaying
from pik.model.layout import Layout
from pik.stores import open_store
from pik.stores.aws import http_api as aws_api
from pik.usecases.ingest import via_api as api_ingest
from pik.usecases.replay import planning
from pik.usecases.replay import wait as api_replay
from tests.support.lambdas.calls import silence, wire
from tests.support.lambdas.gateway import CALLER, CONTEXT, CREDENTIALS, KEY, REGION, REQUEST, serving
from tests.support.snapshot import assert_sound, snapshot

VIA = ("--via", "api", "--store", f"aws://pik?region={REGION}", "--format", "json")
WINDOW = ("--from", "2026-01-30", "--to", "2026-02-02")


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    """The API, its faults to be ordered; the environment says where it is, and who calls."""
    store = open_store(str(tmp_path / "deployed"), create=True)
    wire(monkeypatch, store)
    silence(monkeypatch)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "PIK_API_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS.secret_key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(aws_api, "BACKOFF", replace(aws_api.BACKOFF, first=0.001))
    monkeypatch.setattr(api_replay, "POLL", 0.01)
    with serving(store) as gateway:
        monkeypatch.setenv("PIK_API_URL", gateway.url)
        yield gateway


def line(**changes) -> str:
    fields = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-01-31T00:00:00Z", "payload": {}}
    return json.dumps({**fields, **changes})


def write(path, *lines: str | bytes) -> None:
    path.write_bytes(b"\n".join(one if isinstance(one, bytes) else one.encode() for one in lines) + b"\n")


# Ingest


def test_promise_4_everything_is_accounted_for(pik, gateway, tmp_path) -> None:
    write(
        tmp_path / "f",
        line(),
        "",
        line(),
        '{"events": []}',
        line(idempotency_key="k"),
        line(idempotency_key="k", payload=[1]),
        b'{"source": "\xff"}',
        "[1, 2]",
        line(event_time="yesterday"),
        "x" * (5 << 20),
    )
    result = pik("ingest", "f", "--rejects", "rejected", *VIA)
    said = result.json()
    assert result.code == 3, result.err
    assert (said["read"], said["accepted"], said["duplicates"]) == (9, 2, {"exact": 1, "conflict": 1})
    assert (said["rejected"], said["sent_again"], said["error"], said["truncated"]) == (5, 0, None, False)
    assert [row["seq"] for row in said["rejects"]] == [4, 7, 8, 9, 10]
    assert all(row["reason"] and row["source"] == "f" for row in said["rejects"])
    assert sum(said["reasons"].values()) == 5
    kept = (tmp_path / "rejected").read_bytes()
    assert sorted(len(one) for one in kept.splitlines()) == [6, 14, 15, 94, (1 << 20) + 1], kept[:300]
    totals = gateway.store.index.totals()
    assert (totals.events, totals.deliveries) == (2, 4)
    assert sum(batch.counts.rejected for batch in gateway.store.index.batches()) == 4  # all but what is not UTF-8
    assert_sound(gateway.store)


def test_after_an_input_that_cannot_be_read_the_same_command_can_be_run_again(pik, gateway, tmp_path) -> None:
    write(tmp_path / "f", line(), "no event")
    (tmp_path / "g.gz").write_bytes(gzip.compress(f"{line()}\n".encode() * 100)[:-20])
    command = ("ingest", "f", "g.gz", "--rejects", "rejected", *VIA)
    tried = pik(*command)
    assert (tried.code, [one["source"] for one in tried.json()["refused_inputs"]]) == (3, ["g.gz"])
    assert pik(*command, "--on-invalid", "stop").code == 2
    (tmp_path / "rejected").unlink()
    write(tmp_path / "g.gz", line())
    assert pik(*command).code == 3
    assert (tmp_path / "rejected").read_bytes() == b"no event\n"


def test_promise_10_a_file_comes_to_the_same_as_ingested_directly(pik, gateway, tmp_path, monkeypatch) -> None:
    """Which delivery of an event is the accepted one, too: the first of the file."""
    monkeypatch.setattr(api_ingest, "RECORDS", 7)
    chance = random.Random(1)
    lines = [
        line(entity_id=f"e{chance.randrange(5)}", idempotency_key=f"k{chance.randrange(60)}", payload={"n": number})
        for number in range(400)
    ]
    write(tmp_path / "f", *lines)
    said = pik("ingest", "f", *VIA).json()
    direct = open_store(str(tmp_path / "direct"), create=True)
    of_direct = pik("ingest", "f", "--store", "direct", "--format", "json").json()
    for name in ("read", "accepted", "duplicates", "rejected"):
        assert said[name] == of_direct[name]
    assert said["requests"] > 50
    events = ("events", "--format", "json", "--store")
    deployed, local = (pik(*events, store).json()["events"] for store in (tmp_path / "deployed", "direct"))
    assert len(local) == direct.index.totals().events
    assert [(one["event_id"], one["payload"]) for one in deployed] == [
        (one["event_id"], one["payload"]) for one in local
    ]


def rows_of_parquet() -> bytes:
    file = io.BytesIO()
    at, n = pa.array([Decimal("1769817600.5")] * 2), pa.array([Decimal("12345678901234567890.5"), None])
    pq.write_table(pa.table({"who": ["e", "e"], "at": at, "n": n, "f": [None, float("nan")]}), file)
    return file.getvalue()


MAPPED = {
    "jsonl": b'{"who": "e", "at": 1769817600.5, "n": 12345678901234567890.5}\n{"at": 1}\n',
    "json": b'{\n"who": "e", "at": 1769817600.5, "n": 12345678901234567890.5}\n{"who": "e",\n"at" 1}\n',
    "parquet": rows_of_parquet(),
}


@pytest.mark.parametrize("data", MAPPED.values(), ids=MAPPED)
def test_a_mapped_event_is_sent(pik, gateway, tmp_path, data: bytes) -> None:
    (tmp_path / "dt=2").mkdir()
    (tmp_path / "dt=2/f").write_bytes(data)
    mapping = {"source": "'x'", "event_type": "upper(who)", "entity_id": "who", "event_time": "at"}
    mapping["payload"] = "{n: n, place: [partition('dt'), file(), to_string(line())]}"
    options = [word for name, found in mapping.items() for word in ("--map", f"{name}={found}")]
    result = pik("ingest", "dt=2/f", *options, "--time-format", "epoch", *VIA)
    said = result.json()
    assert (result.code, said["accepted"], said["rejected"], said["rejects"][0]["seq"]) == (3, 1, 1, 2)
    (event,) = pik("events", "--store", tmp_path / "deployed", "--format", "json").json()["events"]
    found = event["event_time"], event["event_type"], event["payload"]["place"]
    assert found == ("2026-01-31T00:00:00.500Z", "E", ["2", "f", "1"])
    pik("init", "--store", "direct")
    direct = pik("ingest", "dt=2/f", *options, "--time-format", "epoch", "--store", "direct", "--format", "json")
    (other,) = pik("events", "--store", "direct", "--format", "json").json()["events"]
    assert (direct.code, event["event_id"]) == (3, other["event_id"])


def test_records_of_a_document_are_sent_with_the_fields_around_them(pik, gateway, tmp_path) -> None:
    text = '{"ids":["a","b"],"services":[{"logs":[{"n":[1]},{"n":[2,3]}],"at":"2026-01-31T00:00:00Z"},{"none":1}]}'
    (tmp_path / "f").write_text(text)
    mapping = {"source": "'x'", "event_type": "'t'", "entity_id": "parent('ids')[1]", "event_time": "parent('at')"}
    mapping["payload"] = "{n: n[0]}"
    options = [word for name, found in mapping.items() for word in ("--map", f"{name}={found}")]
    result = pik("ingest", "f", "--records", "services[].logs[]", *options, *VIA)
    said = result.json()
    assert (result.code, said["accepted"], said["rejected"]) == (3, 2, 1)
    said_why = "no list logs in an element of services of this document; it has: none (element 2) (line 1)"
    assert said["rejects"][0]["reason"] == said_why
    assert said["note"].endswith("; n[0] takes one element of a longer list in 1 record")
    stored = ("--store", tmp_path / "deployed", "--format", "json")
    events = pik("events", *stored).json()["events"]
    assert [(one["entity_id"], one["payload"]["n"]) for one in events] == [("b", 1), ("b", 2)]


def test_a_malformed_value_of_several_lines_is_rejected_here_and_not_sent_as_several(pik, gateway, tmp_path) -> None:
    """A line break in a string makes it malformed; made one line, it would be an event."""
    event = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-03-02T10:00:00Z", "payload": {}}
    good, bad = json.dumps(event, indent=1), json.dumps({**event, "payload": {"a": "x|y"}}).replace("|", "\n")
    (tmp_path / "f").write_text(f"{good}\n{bad}\n")
    result = pik("ingest", "f", *VIA)
    said = result.json()
    assert (result.code, said["accepted"], said["rejected"]) == (3, 1, 1)
    assert (said["rejects"][0]["seq"], "is not escaped" in said["rejects"][0]["reason"]) == (2, True)


LOCAL = "2026-03-02T10:00:00"


_IN_BERLIN = ("--timezone", "Europe/Berlin")


def zoned(*, mapped: bool) -> list[str]:
    """Options that read local times in Berlin, of events or of foreign records with the same fields."""
    names = ("source", "event_type", "entity_id", "event_time", "payload") if mapped else ()
    return [*(word for name in names for word in ("--map", f"{name}={name}")), *_IN_BERLIN]


@pytest.mark.parametrize("mapped", [False, True])
def test_local_times_are_read_in_the_zone_that_is_given_and_raw_records_it(pik, gateway, tmp_path, mapped) -> None:
    write(tmp_path / "f", line(event_time=LOCAL, note="x"), line(), line(event_time="2026-03-29T02:30:00"))
    result = pik("ingest", "f", *zoned(mapped=mapped), *VIA)
    said = result.json()
    assert (result.code, said["accepted"], said["rejected"]) == (3, 2, 1)
    assert "does not exist in Europe/Berlin" in said["rejects"][0]["reason"]
    stored = tmp_path / "deployed"
    by_time = {one["event_time"]: one for one in pik("events", "--store", stored, "--format", "json").json()["events"]}
    assert set(by_time) == {"2026-01-31T00:00:00Z", "2026-03-02T09:00:00Z"}
    event_id = by_time["2026-03-02T09:00:00Z"]["event_id"]
    shown = pik("show", event_id, "--store", stored, "--format", "json").json()
    extra = shown["raw"][0]["extra"]
    assert (extra["timezone"], extra["event_time_original"]) == ("Europe/Berlin", LOCAL)
    assert mapped or extra["note"] == "x"
    write(tmp_path / "one", line(event_time=LOCAL, payload={"n": 2}))
    assert pik("ingest", "one", "--timezone", "event_time=Europe/Berlin", *VIA).code == 0
    [other] = {one["event_id"] for one in pik("events", "--store", stored, "--format", "json").json()["events"]} - {
        one["event_id"] for one in by_time.values()
    }
    shown = pik("show", other, "--store", stored, "--format", "json").json()
    assert shown["raw"][0]["extra"]["timezone"] == {"event_time": "Europe/Berlin"}
    write(tmp_path / "twice", line(event_time="2026-10-25T02:30:00"), line(event_time="2026-10-25T02:30", entity_id=""))
    said = pik("ingest", "twice", *zoned(mapped=mapped), "--ambiguous", "earlier", *VIA).json()
    assert said["times_read"] == {"event_time earlier Europe/Berlin": 1}
    last = pik("events", "--store", stored, "--from", "2026-10-25", "--format", "json").json()["events"][0]
    assert last["event_time"] == "2026-10-25T00:30:00Z"
    shown = pik("show", last["event_id"], "--store", stored, "--format", "json").json()
    assert shown["raw"][0]["extra"]["ambiguous"] == "earlier"
    pik("init", "--store", "direct")
    pik("ingest", "f", *zoned(mapped=mapped), "--store", "direct")
    assert event_id in pik("events", "--store", "direct", "--format", "json").out


def test_fields_of_the_record_stay_with_the_zone(pik, gateway, tmp_path) -> None:
    write(tmp_path / "f", line(event_time=LOCAL, timezone="mine", received_time=f"{LOCAL}Z", payload={"n": 1}))
    assert pik("ingest", "f", *zoned(mapped=False), *VIA).code == 0
    assert pik("ingest", "f", "--timezone", "event_time=Europe/Berlin", *VIA).json()["duplicates"]["exact"] == 1
    (event,) = pik("events", "--store", tmp_path / "deployed", "--format", "json").json()["events"]
    shown = pik("show", event["event_id"], "--store", tmp_path / "deployed", "--format", "json").json()
    assert shown["raw"][0]["extra"] == {"timezone": "mine", "event_time_original": LOCAL}


@pytest.mark.parametrize("mapped", [False, True])
def test_on_invalid_stop_sees_a_time_without_an_offset(pik, gateway, tmp_path, mapped) -> None:
    write(tmp_path / "f", line(event_time=LOCAL))
    options = zoned(mapped=mapped)
    result = pik("ingest", "f", *options[:-2], "--on-invalid", "stop", *VIA)
    assert (result.code, gateway.seen) == (2, [])
    assert "no offset from UTC" in result.err
    assert "--timezone ZONE" in result.err
    assert pik("ingest", "f", *options, "--on-invalid", "stop", *VIA).code == 0


def test_several_inputs_are_reported_one_by_one(pik, gateway, tmp_path) -> None:
    write(tmp_path / "a", line())
    write(tmp_path / "b", line(), line(entity_id="f"))
    with tarfile.open(tmp_path / "c.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "b", "b")
    said = pik("ingest", "a", "b", "c.tar.xz", *VIA).json()
    assert [(one["source"], one["outcome"], one["read"], one["exact"]) for one in said["sources"]] == [
        ("a", "sent", 1, 0),
        ("b", "sent", 2, 1),
        ("c.tar.xz:b", "sent", 2, 2),
    ]
    assert (said["read"], said["requests"], said["note"]) == (5, 3, None)


def test_promise_8_requests_are_small_and_few_are_under_way(pik, gateway, tmp_path, monkeypatch) -> None:
    write(tmp_path / "f", *(line(entity_id=f"e{n}", payload={"n": n, "x": "x" * 1000}) for n in range(3000)))
    threads: list[int] = []
    reply = gateway.reply

    def counting(*request: Any) -> Any:
        threads.append(threading.active_count())
        return reply(*request)

    monkeypatch.setattr(gateway, "reply", counting)
    assert pik("ingest", "f", *VIA).json()["accepted"] == 3000
    bodies = [gzip.decompress(body) for _, _, body in gateway.seen]
    assert max(map(len, bodies)) <= api_ingest.BODY + 2000
    assert max(body.count(b"\n") for body in bodies) < api_ingest.RECORDS
    assert max(threads) > 2


# Faults


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504])
def test_what_is_not_answered_is_sent_again(pik, gateway, tmp_path, fault) -> None:
    write(tmp_path / "f", line(), line(entity_id="f"))
    gateway.faults.extend([fault, fault])
    result = pik("ingest", "f", *VIA)
    said = result.json()
    assert (result.code, said["accepted"], said["requests"]) == (0, 2, 1)
    assert said["sent_again"] == (0 if fault == 429 else 2)  # 429 is certainly not done
    assert len(gateway.seen) == 3


def test_promise_1_a_lost_answer_makes_duplicates_and_loses_nothing(pik, gateway, tmp_path) -> None:
    write(tmp_path / "f", line(), line(entity_id="f"))
    gateway.faults.append("dropped")
    said = pik("ingest", "f", *VIA).json()
    assert (said["accepted"], said["duplicates"]["exact"], said["sent_again"]) == (0, 2, 2)
    assert gateway.store.index.totals().events == 2


def test_promise_4_any_faults_lose_nothing_and_count_nothing_twice(pik, gateway, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(api_ingest, "RECORDS", 5)
    monkeypatch.setattr(aws_api, "BACKOFF", replace(aws_api.BACKOFF, attempts=100))
    chance = random.Random(7)
    gateway.faults.extend(chance.choice([None, None, 429, 503, "dropped"]) for _ in range(200))
    write(tmp_path / "f", *(line(entity_id=f"e{number % 50}", payload={"n": number}) for number in range(200)))
    said = pik("ingest", "f", *VIA).json()
    assert said["error"] is None
    assert said["read"] == said["accepted"] + said["duplicates"]["exact"] == 200
    assert gateway.store.index.totals().events == 200
    assert said["sent_again"] >= said["duplicates"]["exact"] > 0


def test_an_api_that_fails_for_good_is_reported_and_nothing_is_silent(pik, gateway, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(api_ingest, "RECORDS", 5)
    gateway.faults.extend([None] * 6 + [503] * 1000)
    write(tmp_path / "f", *(line(entity_id=f"e{number}") for number in range(200)))
    result = pik("ingest", "f", "f", *VIA)
    said = result.json()
    assert result.code == 3
    assert said["accepted"] == gateway.store.index.totals().events == 30
    assert f"answered POST /ingest with 503: as ordered (request {REQUEST})" in said["error"]
    (source,) = said["sources"]
    assert (source["outcome"], source["read"]) == ("stopped", 30)
    assert source["unanswered"] > 0
    assert "run the same command again" in said["note"]
    gateway.faults.clear()
    again = pik("ingest", "f", *VIA).json()
    assert (again["accepted"], again["duplicates"]["exact"]) == (170, 30)


def test_an_api_that_fails_at_once_is_exit_code_4(pik, gateway, tmp_path) -> None:
    write(tmp_path / "f", line())
    gateway.faults.extend([503] * 1000)
    result = pik("ingest", "f", *VIA)
    assert (result.code, result.out) == (4, "")
    assert len(gateway.seen) == (aws_api.BACKOFF.attempts or 0)
    assert_an_error_with_a_hint(result, "503")


def assert_an_error_with_a_hint(result, *parts: str) -> None:
    """An error and its hint, as JSON."""
    found = json.loads(result.err.splitlines()[-1])
    assert found["error"], result.err
    assert found["hint"], result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in f"{found['error']}\n{found['hint']}"


def test_who_may_not_call_learns_why(pik, gateway, tmp_path, monkeypatch) -> None:
    write(tmp_path / "f", line())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert_an_error_with_a_hint(
        pik("ingest", "f", *VIA), "denies the request: Missing Authentication Token", "docs/iam.md"
    )
    monkeypatch.setenv("PIK_API_KEY", "another")
    assert_an_error_with_a_hint(pik("ingest", "f", *VIA), "PIK_API_KEY is not the stack's key")
    monkeypatch.setenv("PIK_API_KEY", KEY)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert pik("ingest", "f", *VIA).code == 0
    monkeypatch.delenv("PIK_API_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/none")
    result = pik("ingest", "f", *VIA)
    assert result.code == 4
    assert_an_error_with_a_hint(result, "no usable AWS credentials")


def test_an_api_that_is_not_there_or_not_piks(pik, gateway, tmp_path, monkeypatch) -> None:
    write(tmp_path / "f", line())
    monkeypatch.setattr(gateway, "reply", lambda *_: (200, {}, b"<html>hello"))
    assert_an_error_with_a_hint(pik("ingest", "f", *VIA), "is not pik's API (200): <html>hello")
    monkeypatch.setenv("PIK_API_URL", "http://127.0.0.1:1")
    assert_an_error_with_a_hint(pik("ingest", "f", *VIA), "does not answer")
    monkeypatch.setenv("PIK_API_URL", "http://api.example.com/v1")
    result = pik("ingest", "f", *VIA)
    assert result.code == 2
    assert_an_error_with_a_hint(result, "does not begin with https://")


def test_a_stack_in_a_dry_run_refuses_to_ingest(pik, gateway, tmp_path, monkeypatch) -> None:
    write(tmp_path / "f", line())
    monkeypatch.setenv("DRY_RUN", "true")
    assert_an_error_with_a_hint(pik("ingest", "f", *VIA), "in a dry run")
    monkeypatch.delenv("DRY_RUN")


def test_an_interrupted_ingest_waits_for_no_answer(pik, gateway, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(api_ingest, "RECORDS", 1)
    write(tmp_path / "f", line(), line(payload=[1]))

    read = OpenedFile.blocks

    def interrupted(opened: OpenedFile, layout: Layout, max_line: int) -> Iterator[Block]:
        yield from read(opened, layout, max_line)
        raise KeyboardInterrupt

    with gateway.lock:  # nothing is answered meanwhile
        monkeypatch.setattr(OpenedFile, "blocks", interrupted)
        result = pik("ingest", "f", *VIA)
    assert (result.code, "run the same command again" in result.err) == (130, True)


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("ingest", "-", "--batch-key", "x"), "--batch-key does not go with --via api"),
        (("ingest", "f", "--again"), "--again does not go"),
        (("ingest", "f", "--one-batch"), "--one-batch does not go"),
        (("ingest", "f", "--on-conflict", "fail"), "--on-conflict fail does not go"),
        (("ingest", "f", "--max-line", 5), "--max-line does not go"),
        (("ingest", "f", "--rejects", "f"), "--rejects 'f' exists already"),
        (("replay", "--all", *WINDOW), "--all does not go"),
        (("replay", "--entity", "a", "--entity", "b", *WINDOW), "more than one --entity does not go"),
        (("replay", "--entity", "a", "--source", "s", *WINDOW), "--source does not go"),
        (("replay", "--entity", "a", "--type", "t", *WINDOW), "--type does not go"),
        (("replay", "--entity", "a", "--rate", 1, *WINDOW), "--rate does not go"),
        (("replay", "--entity", "a", "--promote", "--yes", *WINDOW), "--promote does not go"),
        (("replay", "--entity", "a", "--since", "2h"), "a window without two ends does not go"),
        (("replay", "--entity", "a"), "a window without two ends does not go"),
    ],
)
def test_what_the_api_does_not_have_is_refused(pik, gateway, tmp_path, options, said) -> None:
    write(tmp_path / "f", line())
    result = pik(*options, *VIA)
    assert result.code == 2
    assert_an_error_with_a_hint(result, said)
    assert gateway.seen == []


def test_a_local_store_has_no_api(pik, gateway, tmp_path) -> None:
    write(tmp_path / "f", line())
    for command in (("ingest", "f"), ("replay", "--entity", "e", *WINDOW)):
        result = pik(*command, "--via", "api", "--store", tmp_path / "deployed", "--format", "json")
        assert result.code == 2
        assert_an_error_with_a_hint(result, "has no API: --via api is for deployed stacks", "--store aws://STACK")
    assert pik("replay", "--entity", "e", "--no-wait").code == 2


def test_an_invalid_record_stops_when_all_before_are_answered(pik, gateway, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(api_ingest, "RECORDS", 1)
    write(tmp_path / "f", line(), line(payload=[1]), "{}", line(entity_id="f"))
    gateway.lock.acquire()
    threading.Timer(0.3, gateway.lock.release).start()
    result = pik("ingest", "f", "--on-invalid", "stop", *VIA)
    assert (result.code, gateway.store.index.totals().events) == (2, 1)  # the second was not sent yet
    assert_an_error_with_a_hint(result, "record 3 is not an event")


def test_a_dry_run_of_ingest_sends_nothing(pik, gateway, tmp_path) -> None:
    write(tmp_path / "f", line(), "{}")
    said = pik("ingest", "f", "--dry-run", *VIA).json()
    assert (said["sources"][0]["valid"], gateway.seen) == (1, [])


# Replay


@pytest.fixture
def some_days(pik, gateway, tmp_path):
    write(tmp_path / "f", *(line(event_time=f"2026-01-{30 + n // 3}T0{n}:00:00Z", payload={"n": n}) for n in range(6)))
    assert pik("ingest", "f", *VIA).code == 0
    gateway.seen.clear()


def test_a_replay_ends_like_a_direct_one(pik, gateway, some_days, tmp_path) -> None:
    command = ("replay", "--entity", "e", *WINDOW, "--reason", "late", "--metric", "event_count")
    result = pik(*command, *VIA)
    assert result.code == 0, result.err
    direct = pik(*command, "--store", tmp_path / "deployed", "--format", "json").json()
    unknown = {"entities_without_value", "metric_versions", "known_until"}  # only who reads the store can tell
    assert not unknown & result.json().keys()
    own = {"run_id", "actor", "next", "new", "unchanged"} | unknown
    assert {k: v for k, v in result.json().items() if k not in own} == {k: v for k, v in direct.items() if k not in own}
    assert (result.json()["state"], result.json()["new"]) == ("COMPLETED", 2)
    assert f"run {result.json()['run_id']} started" in result.err
    assert result.json()["actor"] == CALLER
    assert [method for method, *_ in gateway.seen][:2] == ["POST", "GET"]


def test_a_replay_that_fails_is_exit_code_3(pik, gateway, some_days, tmp_path, monkeypatch) -> None:
    (tmp_path / "m.toml").write_text('name = "broken"\nvalue = "sum((payload->>\'$.n\')::DECIMAL(1, 1))"\n')
    assert pik("metrics", "apply", "m.toml", "--store", tmp_path / "deployed").code == 0
    monkeypatch.setenv("PIK_MAX_RECEIVES", "2")
    result = pik("replay", "--entity", "e", *WINDOW, "--metric", "broken", *VIA)
    assert (result.code, result.json()["state"], result.json()["failed"]) == (3, "PARTIAL", 0)
    failures = result.json()["failures"]
    failed = [(each["metric"], each["bucket"], each["entity_id"], each["events_to_blame"]) for each in failures]
    assert failed == [("broken", "2026-01-30T00:00:00Z", "e", 2), ("broken", "2026-01-31T00:00:00Z", "e", 3)]
    assert result.json()["failed_aggregates"] == 2
    assert all(len(each["event_ids"]) == each["events_to_blame"] for each in failures)


def test_a_replay_is_not_waited_for_where_the_option_forbids_it(pik, gateway, some_days) -> None:
    gateway.process = lambda _run: None
    result = pik("replay", "--entity", "e", *WINDOW, "--no-wait", *VIA)
    assert (result.code, result.json()["state"], result.json()["done"]) == (0, "RUNNING", 0)
    assert len(gateway.seen) == 2


def test_a_dry_run_of_a_replay_begins_none(pik, gateway, some_days, tmp_path, monkeypatch) -> None:
    said = pik("replay", "--entity", "e", *WINDOW, "--dry-run", *VIA).json()
    direct = pik("replay", "--entity", "e", *WINDOW, "--dry-run", "--store", tmp_path / "deployed", "--format", "json")
    expected = direct.json()
    del expected["entities_without_value"]  # only who reads the store can tell
    assert said == {**expected, "actor": None}
    assert "run_id" not in said
    assert list(gateway.store.runs.newest_first()) == []
    monkeypatch.setattr(replaying, "COUNTED_AT_MOST", 1)
    assert_an_error_with_a_hint(
        pik("replay", "--entity", "e", *WINDOW, "--dry-run", *VIA), "too large for the API to count"
    )


def test_a_run_that_is_planned_later_is_waited_for(pik, gateway, some_days, monkeypatch) -> None:
    monkeypatch.setattr(replaying, "COUNTED_AT_MOST", 1)
    called: list[dict[str, Any]] = []
    monkeypatch.setattr(lambdas, "call_again", called.append)
    process, looks = gateway.process, Counter[str]()

    def planned_at_the_third_look(run_id: str) -> None:
        looks[run_id] += 1
        if looks[run_id] == 3:
            replaying.handler(json.loads(json.dumps(called[0])), CONTEXT)
        if looks[run_id] > 4:
            process(run_id)

    gateway.process = planned_at_the_third_look
    result = pik("replay", "--entity", "e", *WINDOW, *VIA)
    assert (result.code, result.json()["state"], result.json()["events_matched"]) == (0, "COMPLETED", None)
    gateway.process = lambda _run: None
    accepted = pik("replay", "--entity", "e", *WINDOW, *VIA, "--no-wait").json()
    assert (accepted["state"], accepted["tasks"]) == ("PLANNING", 0)
    assert accepted["next"].endswith(f" runs wait {accepted['run_id']}")


@pytest.mark.parametrize("faults", [[429], [503], [504], ["dropped"], ["dropped", 504, "dropped"]])
def test_a_replay_that_is_sent_again_makes_one_run(pik, gateway, some_days, faults) -> None:
    gateway.faults.extend(faults)
    result = pik("replay", "--entity", "e", *WINDOW, *VIA)
    assert [method for method, *_ in gateway.seen].count("POST") == len(faults) + 1
    (run,) = gateway.store.runs.newest_first()
    assert (result.json()["run_id"], result.json()["state"]) == (run.run_id, "COMPLETED")
    assert pik("replay", "--entity", "e", *WINDOW, *VIA).json()["run_id"] != run.run_id


def test_looking_at_a_run_is_tried_again(pik, gateway, some_days) -> None:
    gateway.faults.extend([None, 503, "dropped", 429])
    assert pik("replay", "--entity", "e", *WINDOW, *VIA).json()["state"] == "COMPLETED"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--entity", "e", "--metric", "none"), "there is no metric 'none'"),
        (("--entity", "E"), "nothing to replay: there is neither an event nor a current value of 'E' in [2026-01-30"),
        (("--entity", "E", "--dry-run"), "nothing to replay: there is neither an event nor a current value of 'E'"),
    ],
)
def test_what_selects_nothing_is_refused_like_by_a_direct_replay(pik, gateway, some_days, options, said) -> None:
    for store in (VIA, ("--store", gateway.store.url)):
        result = pik("replay", *WINDOW, *options, *store)
        assert (result.code, said in result.err) == (2, True), result.err
    assert list(gateway.store.runs.newest_first()) == []


def test_a_run_planned_later_that_found_nothing_is_no_success(pik, gateway, some_days, monkeypatch) -> None:
    monkeypatch.setattr(replaying, "DAYS_AT_MOST", 1)
    monkeypatch.setattr(planning, "expect_possible_work", lambda *_: None)  # as where a frame spans the name
    monkeypatch.setattr(lambdas, "call_again", lambda later: replaying.handler(json.loads(json.dumps(later)), CONTEXT))
    result = pik("replay", "--entity", "E", *WINDOW, *VIA)
    assert (result.code, "computed no value: there is neither a current one nor" in result.err) == (2, True)


def test_promise_3_what_came_through_the_api_is_rebuilt(pik, gateway, some_days) -> None:
    before = snapshot(gateway.store)
    assert pik("verify", "--rebuild-index", "--store", gateway.store.url).code == 0
    assert snapshot(gateway.store) == before
