"""`pik republish`: what it prints, how it ends, and that a real process may be killed at any time."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pik.stores import open_store
from tests.support.aws.receivers import AWS_RECEIVERS
from tests.support.kafka import KafkaReceiver
from tests.support.stores import ingest
from tests.support.targets import HttpReceiver

ROOT = Path(__file__).parents[2]
EVENTS = 300


def event(number: int) -> dict[str, Any]:
    day, entity = number % 3 + 1, f"e{number % 7}"
    time = f"2026-01-0{day}T00:{number % 60:02}:00Z"
    return {"source": "s", "event_type": "t", "entity_id": entity, "event_time": time, "payload": {"n": number}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store with EVENTS events, ten of which came twice. Only to be copied."""
    directory = tmp_path_factory.mktemp("shop")
    ingest(open_store(str(directory / ".pik"), create=True), directory, map(event, [*range(EVENTS), *range(10)]))
    return directory


@pytest.fixture
def shop(pik: Any, made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with HttpReceiver() as made:
        yield made


def numbers(receiver: HttpReceiver) -> list[int]:
    return [json.loads(body)["data"]["n"] for body, _ in receiver.received()]


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(pik: Any, shop: Path, receiver: HttpReceiver) -> None:
    said = pik("republish", "--all", "--target", receiver.url, "--dry-run", "--format", "json").json()
    assert (said["events"], said["entity_count"], said["days"], said["events_by_source"]) == (
        EVENTS,
        7,
        3,
        {"s": EVENTS},
    )
    assert [one["body"]["subject"] for one in said["messages"]] == ["e0"] * 3
    assert "republish_id" not in said
    assert said["messages"][0]["attributes"]["pik-republish-id"] == "REPUBLISH-ID"
    assert not receiver.received()
    assert pik("republish", "list", "--format", "json").json()["republishes"] == []
    text = pik("republish", "--all", "--target", "new.ndjson", "--dry-run").out
    assert '"specversion":"1.0"' in text
    assert not (shop / "new.ndjson").exists()


def test_people_see_the_most_frequent_of_many_names(pik: Any, tmp_path: Path) -> None:
    many = [event(number) | {"source": f"s{number % 14}"} for number in range(40)]
    ingest(open_store(str(tmp_path / ".pik"), create=True), tmp_path, many)
    command = ("republish", "--all", "--target", "new", "--dry-run")
    listed = "s0 3, s1 3, s10 3, s11 3, s2 3, s3 3, s4 3, s5 3, s6 3, s7 3, and 4 more"
    assert f"events by source  {listed}\n" in pik(*command).out
    assert len(pik(*command, "--format", "json").json()["events_by_source"]) == 14


def test_the_plan_is_confirmed(pik: Any, shop: Path, monkeypatch: pytest.MonkeyPatch, receiver: HttpReceiver) -> None:
    refused = pik("republish", "--all", "--target", receiver.url)
    assert refused.code == 2
    assert "confirmation required" in refused.err

    class Terminal:
        answer = "n\n"

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    declined = pik("republish", "--all", "--target", receiver.url)
    assert declined.code == 4
    assert f"send 300 events of 7 entities to {receiver.url}, as CloudEvents" in declined.err
    assert "3 days (2026-01-01 to 2026-01-03), about" in declined.err
    assert "  sources: s 300\n  types: t 300\n" in declined.err
    assert not receiver.received()
    monkeypatch.setattr(Terminal, "answer", "y\n")
    assert pik("republish", "--all", "--target", receiver.url).code == 0
    assert sorted(numbers(receiver)) == list(range(EVENTS))


def test_refusals_are_kept_shown_and_sent_again(
    pik: Any, shop: Path, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answers = lambda _attempt, body: (
        (422, b"odd\x1b[31m") if json.loads(body)["data"]["n"] % 50 else (204, b"")
    )
    command = ("republish", "--all", "--target", receiver.url, "--reason", "INC-1", "--actor", "eve", "--yes")
    stopped = pik(*command, "--stop-after-failures", 1, "--format", "json")
    assert stopped.code == 3
    said = stopped.json()
    assert (said["state"], said["reason"], said["actor"]) == ("STOPPED", "INC-1", "eve")
    shown = pik("republish", "show", said["republish_id"][:20], "--limit", 5, "--format", "json").json()
    assert (len(shown["failures"]), shown["truncated"]) == (5, True)
    assert {one["reason"] for one in shown["failures"]} == {"HTTP 422 odd [31m"}
    receiver.answers = lambda _attempt, body: (422, b"") if json.loads(body)["data"]["n"] == 7 else (204, b"")
    again = pik(*command, "--stop-after-failures", 1000, "--rate", "6000/s", "--format", "json")
    assert again.code == 3
    assert f"going on with republish {said['republish_id']}" in again.err
    assert (again.json()["state"], again.json()["refused"], again.json()["taken"]) == ("PARTIAL", 1, EVENTS - 1)
    receiver.answers = lambda _attempt, _body: (204, b"")
    done = pik("republish", "resume", said["republish_id"], "--format", "json")
    assert done.code == 0
    assert (done.json()["rate"], done.json()["stop_after_failures"]) == ("6000.0", 1000)
    assert sorted(numbers(receiver)) == list(range(EVENTS))
    nothing = pik("republish", "resume", said["republish_id"])
    assert nothing.code == 2
    assert "nothing left to send" in nothing.err
    listed = pik("republish", "list", "--format", "json").json()["republishes"]
    assert [(one["state"], one["target"]) for one in listed] == [("COMPLETED", receiver.url)]
    happened = f"COMPLETED, {EVENTS} events of all time to {receiver.url}"
    monkeypatch.setattr("pik.cli.table.terminal_width", lambda: 80)
    lines = pik("republish", "list").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "no room for" not in "".join(lines)
    assert " ".join(line[48:].strip() for line in lines[1:-2]).startswith(f"{happened}, by eve (INC-1)")
    newest = pik("history", "--format", "json").json()["history"][0]
    assert (newest["what"], newest["subject"]) == ("republish", f"{happened} (INC-1)")
    assert pik("verify").code == 0
    assert pik("backup", "state.backup").code == 0


def test_a_target_that_takes_nothing_ends_it_with_4(pik: Any, shop: Path, receiver: HttpReceiver) -> None:
    receiver.answers = lambda _attempt, _body: (403, b"who are you?")
    failed = pik("republish", "--all", "--target", receiver.url, "--yes")
    assert failed.code == 4
    assert "HTTP 403 who are you?" in failed.err
    assert "then go on: pik republish resume 0" in failed.err
    shown = pik("republish", "list", "--format", "json").json()["republishes"][0]
    assert (shown["state"], shown["taken"], shown["refused"]) == ("STOPPED", 0, 0)
    cancelled = pik("republish", "cancel", shown["republish_id"][:20], "--reason", "no need", "--actor", "eve")
    assert (cancelled.code, "cancelled by eve: no need" in cancelled.out) == (0, True)
    assert "its reason stays" in pik("republish", "cancel", shown["republish_id"], "--reason", "x").err
    resumed = pik("republish", "resume", shown["republish_id"])
    assert (resumed.code, "is CANCELLED: it is not sent any more" in resumed.err) == (2, True)


def test_secrets_are_neither_stored_nor_printed(pik: Any, shop: Path, receiver: HttpReceiver) -> None:
    url = receiver.url.replace("://", "://ana:s3cr3t@") + "?token=t0k3n"
    receiver.answers = lambda _attempt, _body: (422, b"")
    said = pik("republish", "--all", "--target", url, "--yes", "--stop-after-failures", 1)
    republish_id = pik("republish", "list", "--format", "json").json()["republishes"][0]["republish_id"]
    unknown = pik("republish", "resume", republish_id)
    assert unknown.code == 2
    assert "secret part is not stored" in unknown.err
    other = pik("republish", "resume", republish_id, "--target", receiver.url)
    assert other.code == 2
    assert "another target needs another republish" in other.err
    receiver.answers = lambda _attempt, _body: (204, b"")
    again = pik("republish", "resume", republish_id, "--target", url)
    assert again.code == 0
    printed = [text for one in (said, unknown, other, again) for text in (one.out, one.err)]
    stored = [path.read_bytes().decode(errors="replace") for path in (shop / ".pik").rglob("*") if path.is_file()]
    for text in (*printed, *stored):
        assert "s3cr3t" not in text
        assert "t0k3n" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing selected to send"),
        (("--all",), "no --target"),
        (("--all", "--entity", "e1", "--target", "x"), "exclude each other"),
        (("--all", "--target", "ftp://x/y"), "unknown scheme 'ftp'"),
        (("--all", "--target", "https://"), "there is no host"),
        (("--all", "--target", "."), "is a directory"),
        (("--all", "--target", "events.jsonl"), "exists already"),
        (("--all", "--target", "absent/x"), "no directory"),
        (("--entity", "nobody", "--target", "x"), "nothing to send: no such event"),
        (("--all", "--target", "x", "--where", "no_column"), "--where no_column"),
        (("--all", "--target", "x", "--where", "(payload->>'$.n')::DATE > 'x'"), "--where"),
        (("--all", "--target", "x", "--rate", "fast"), "--rate fast"),
        (("--all", "--target", "x", "--rate", "0/s"), "--rate 0/s"),
        (("--all", "--target", "x", "--as", "xml"), "xml"),
        (("--since", "1d", "--from", "2026-01-01", "--target", "x"), "exclude each other"),
        (("--all", "--target", "x", "--stop-after-failures", "0"), "0"),
        (("resume", "01J8Z3"), "republish 01J8Z3 is not in this store"),
        (("show", "01J8Z3"), "republish 01J8Z3 is not in this store"),
        (("cancel", "01J8Z3", "--reason", "x"), "republish 01J8Z3 is not in this store"),
        (("cancel", "01J8Z3"), "needs a reason"),
    ],
)
def test_wrong_use_is_refused(pik: Any, shop: Path, arguments: tuple[str, ...], said: str) -> None:
    yes = () if arguments and arguments[0] in ("resume", "show", "cancel") else ("--yes",)
    result = pik("republish", *arguments, *yes)
    assert result.code == (4 if "not in this store" in said else 2), result.err
    assert said in result.err
    assert "hint: " in result.err or "Usage" in result.err or "usage" in result.err
    assert not (shop / "x").exists()


def started(shop: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")}
    environment |= {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "pik", "republish", *arguments]
    return subprocess.Popen(line, cwd=shop, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_promise_1_a_process_that_is_killed_again_and_again_sends_everything(pik: Any, shop: Path) -> None:
    choose = random.Random(3)
    command = ("--all", "--target", "sent.ndjson", "--rate", "600", "--yes")
    # A file takes a thousand at once, and the rate makes calls of as many as a second has.
    slow = (*command[:4], "100", "--yes")
    kills = 0
    for _ in range(2):
        process = started(shop, *slow)
        time.sleep(1.0 + choose.random())
        kills += process.poll() is None
        process.kill()
        process.communicate()
    ended = started(shop, *command)
    _, err = ended.communicate(timeout=60)
    assert ended.returncode in (0, 2), err  # a new one is refused, where the last process was done
    lines = [json.loads(one) for one in (shop / "sent.ndjson").read_bytes().splitlines()]
    assert {one["data"]["n"] for one in lines} == set(range(EVENTS))
    assert kills


def test_ctrl_c_ends_it_with_130_and_the_same_command_goes_on(pik: Any, shop: Path, receiver: HttpReceiver) -> None:

    def slowly(_attempt: int, _body: bytes) -> tuple[int, bytes]:
        time.sleep(0.05)
        return 204, b""

    receiver.answers = slowly
    process = started(shop, "--all", "--target", receiver.url, "--yes", "--rate", "100")
    while len(receiver.received()) < 60:
        assert process.poll() is None
        time.sleep(0.01)
    stalled, ended = threading.Event(), threading.Event()

    def stall(_attempt: int, _body: bytes) -> None:
        stalled.set()
        ended.wait(60)

    receiver.answers = stall
    assert stalled.wait(30)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)  # less than the service may take to answer
    ended.set()
    assert process.returncode == 130
    assert b"what is left: pik republish resume 0" in err
    shown = pik("republish", "list", "--format", "json").json()["republishes"][0]
    assert shown["state"] == "STOPPED"
    assert 0 < shown["taken"] < EVENTS
    receiver.answers = lambda _attempt, _body: (204, b"")
    assert pik("republish", "--all", "--target", receiver.url, "--yes", "--rate", "9999").code == 0
    assert set(numbers(receiver)) == set(range(EVENTS))
    assert len(numbers(receiver)) <= EVENTS + 8  # what was under way
    by_entity: dict[str, list[str]] = {}
    for body, _ in receiver.received():
        by_entity.setdefault(json.loads(body)["subject"], []).append(json.loads(body)["time"])
    falls = [sum(a > b for a, b in pairwise(times)) for times in by_entity.values()]
    assert sum(falls) <= 7  # only where the second attempt began


@pytest.mark.parametrize("kind", ["sqs-fifo", "kafka"])
def test_a_queue_and_a_topic_get_every_event_in_order(
    pik: Any, shop: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    with (
        KafkaReceiver()
        if kind == "kafka"
        else nullcontext(AWS_RECEIVERS[kind](request.getfixturevalue("aws"))) as receiver
    ):
        said = pik("republish", "--all", "--target", receiver.url, "--reason", "again", "--yes", "--format", "json")
        assert (said.code, said.json()["taken"]) == (0, EVENTS)
        arrived = receiver.received()
    events = [json.loads(body) for body, _ in arrived]
    assert sorted(each["data"]["n"] for each in events) == list(range(EVENTS))
    for entity in range(7):
        times = [each["time"] for each in events if each["subject"] == f"e{entity}"]
        assert times == sorted(times)
    assert {attributes["pik-event-id"] for _, attributes in arrived} == {each["id"] for each in events}
