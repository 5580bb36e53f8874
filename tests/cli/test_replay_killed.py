"""Promise 1 for replay: killed at any instant, the same command again ends as an uninterrupted run would have."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPLAY = ("replay", "--all", "--reason", "x", "--promote", "--yes", "--format", "json")
AGGREGATES = ("aggregates", "--history", "--format", "jsonl")


def command(store, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")}
    return {
        "args": [sys.executable, "-m", "pik", *arguments, "--store", str(store)],
        "env": environment | {"PYTHONPATH": str(ROOT)},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
    }


def pik(store, *arguments):
    return subprocess.run(**command(store, *arguments), check=True).stdout


def values(store):
    """Each current aggregate, without what tells one run from another."""
    rows = map(json.loads, pik(store, *AGGREGATES).splitlines())
    return sorted(
        (
            row["metric"],
            row["bucket"],
            row["entity_id"],
            row["value"],
            row["input_ids"],
            row["input_contents"],
            row["current"],
        )
        for row in rows
    )


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """A store with events on so many days that a replay has several tasks."""
    directory = tmp_path_factory.mktemp("killed")
    lines = (
        f'{{"source":"s","event_type":"t","entity_id":"e{number % 50}",'
        f'"event_time":"2026-{month:02}-{day:02}T00:00:{number % 60:02}Z","payload":{{}}}}\n'
        for month in (1, 3, 5, 7, 9)
        for day in range(1, 29)
        for number in range(100)
    )
    (directory / "events.jsonl").write_text("".join(lines))
    pik(directory / "store", "init")
    pik(directory / "store", "ingest", str(directory / "events.jsonl"))
    return directory / "store"


@pytest.mark.parametrize("kills", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_promise_1_a_replay_that_is_killed_again_and_again_ends_as_if_it_had_not_been(events, tmp_path, kills):
    reference, store = tmp_path / "reference", tmp_path / "store"
    shutil.copytree(events, reference)
    shutil.copytree(events, store)
    began = time.monotonic()
    run = json.loads(pik(reference, *REPLAY))
    lasts = time.monotonic() - began
    assert run["tasks"] > 4
    for _ in range(kills):
        process = subprocess.Popen(**command(store, *REPLAY), start_new_session=True)
        time.sleep(random.uniform(0.2, 1) * lasts)
        kill, how = random.choice(
            [(os.killpg, signal.SIGKILL), (os.kill, signal.SIGKILL), (os.killpg, signal.SIGINT)]  # os.kill: orphans
        )
        kill(process.pid, how)
        process.communicate()
    last = json.loads(pik(store, *REPLAY))
    assert last["state"] == "COMPLETED"
    assert {row[:-1] for row in values(store)} == {row[:-1] for row in values(reference)}
    assert [row for row in values(store) if row[-1]] == values(reference)
