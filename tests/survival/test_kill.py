"""Promise 1: killed at any instant, the same command again ends as an uninterrupted run would have."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from unittest.mock import Mock

import pytest

from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.segment_writer import increasing_times
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.snapshot import assert_sound, snapshot
from tests.support.survival.pools import KilledAhead, LastFirst
from tests.survival.conftest import PATIENCE, ingest, longer, pik, started, whole, without_index

BLOCK = 150_000


def until_ready(process: subprocess.Popen[str]) -> bool:
    """Whether it came to begin with the file; not, if that was ingested already."""
    assert process.stdout is not None
    return process.stdout.readline() == "ready\n"


def ended(process: subprocess.Popen[str]) -> str:
    """Wait until all of it has, the workers that inherited its output too; what it said of errors."""
    return process.communicate(timeout=PATIENCE)[1]


class Killer:
    """Ingests again and again, killed at random, until the file is in the store."""

    def __init__(self, path: Path, lasts: float, seed: int) -> None:
        self.path, self.lasts, self.draw, self.kills = path, lasts, random.Random(seed), 0

    def fill(self, url: Path) -> Store:
        for longest in longer(0.7 * self.lasts):
            process = started(url, self.path, block=BLOCK, workers=2, start_new_session=True)
            if until_ready(process):
                time.sleep(self.draw.uniform(0, longest))
                # killpg ends the workers as well, kill leaves them without a parent
                self.draw.choice([os.killpg, os.kill])(process.pid, signal.SIGKILL)
            errors = ended(process)
            if process.returncode == 0:
                assert errors == ""
                return open_store(str(url))
            # a worker whose parent is killed while it starts says something of its own, so errors are not looked at
            assert process.returncode == -signal.SIGKILL
            self.kills += 1
            self.rebuild(url)
        raise AssertionError

    def rebuild(self, url: Path) -> None:
        """Sometimes the index is rebuilt before the next attempt, sometimes from raw alone."""
        move = self.draw.choice(["nothing", "rebuild", "lose the index"])
        if move == "nothing" or not (url / "format.json").exists():
            return
        if move == "lose the index":
            without_index(url)
        else:
            assert rebuild_index(open_store(str(url)), SILENT).damaged == ()


@pytest.mark.parametrize("wanted", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_promise_1_killed_at_random_instants(
    request: pytest.FixtureRequest, tmp_path: Path, wanted: int, events: Path
) -> None:
    path = events if wanted < 50 else request.getfixturevalue("many_events")
    reference = whole(tmp_path, path)
    expected = snapshot(reference)
    process = started(tmp_path / "timed", path, block=BLOCK, workers=2)
    assert until_ready(process)
    began = time.monotonic()
    ended(process)
    killer = Killer(path, time.monotonic() - began, seed=wanted)
    number = 0
    while killer.kills < wanted:
        number += 1
        store = killer.fill(tmp_path / f"store{number}")
        assert snapshot(store) == expected
        assert_sound(store)
        if wanted > 50 and number % 5 == 0:
            rebuild_index(store, SILENT)
            assert snapshot(store) == expected


def test_promise_1_a_block_that_was_ahead_counts_after_those_before_it_when_the_index_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Path
) -> None:
    expected = snapshot(whole(tmp_path, events))
    url = tmp_path / "store"
    store = open_store(str(url), create=True)
    monkeypatch.setattr("pik.inputs.blocks.BLOCK", BLOCK)
    with monkeypatch.context() as patch:
        patch.setattr(
            "pik.usecases.ingest.batch_ingest.block_builders",
            lambda raw, _, options: KilledAhead(raw, options.reading),
        )
        with pytest.raises(InterruptedError):
            ingest(store, events)
    store = without_index(url)
    ingest(store, events)
    assert snapshot(store) == expected


def test_promise_1_a_block_that_was_never_recorded_and_ends_later_than_its_successor_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Path
) -> None:
    """Two attempts die between a block's record and the index. The second one cuts its blocks at other places."""
    expected = snapshot(whole(tmp_path, events))
    url = tmp_path / "store"
    store = open_store(str(url), create=True)
    for size, recorded in ((BLOCK, 2), (BLOCK // 2, 1)):
        monkeypatch.setattr("pik.inputs.blocks.BLOCK", size)
        at_record = FailAt(recorded + 1)  # the first call opens the batch
        with pytest.raises(Crash):
            ingest(wrapped(store, at_record, "batches"), events)
        assert at_record.calls[-1] == "batches.record"
    store = without_index(url)
    ingest(store, events)
    assert snapshot(store) == expected


def test_promise_1_blocks_keep_their_order_when_workers_do_not_and_the_index_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Path
) -> None:
    expected = snapshot(whole(tmp_path, events))
    url = tmp_path / "store"
    store = open_store(str(url), create=True)
    monkeypatch.setattr("pik.inputs.blocks.BLOCK", BLOCK)
    with monkeypatch.context() as patch:
        patch.setattr(
            "pik.usecases.ingest.batch_ingest.block_builders",
            lambda raw, _, options: LastFirst(raw, options.reading),
        )
        patch.setattr("pik.usecases.ingest.batch_ingest.write_record", Mock(side_effect=InterruptedError))
        with pytest.raises(InterruptedError):
            ingest(store, events)
    times = {one.key.rpartition("-")[2]: one.ingest_time for one in store.index.segments(ALL_TIME)}
    assert len(set(times.values())) > 5
    store = without_index(url)
    ingest(store, events)
    assert snapshot(store) == expected
    assert_sound(store)


def test_times_of_ingest_increase_also_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pik.rawlog.segment_writer.time_ns", Mock(side_effect=[5, 3, 3, 9]))
    assert list(islice(increasing_times(), 4)) == [5, 6, 7, 9]


@pytest.mark.parametrize("wait", [0.3, *(pytest.param(each, marks=pytest.mark.slow) for each in (0.0, 0.05, 0.6))])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, many_events: Path, wait: float) -> None:
    """At their work, waiting for more of it, and with a result that nobody takes any more."""
    process = started(tmp_path / "store", many_events, block=BLOCK, workers=2, start_new_session=True)
    assert until_ready(process)
    time.sleep(wait)
    process.kill()
    ended(process)


def test_a_worker_that_is_killed_is_an_error_and_the_next_run_resumes(tmp_path: Path, events: Path) -> None:
    url = tmp_path / "store"
    killed = started(url, events, block=10_000, workers=2)
    assert until_ready(killed)
    workers: list[int] = []
    while killed.poll() is None and not workers:
        workers = _workers(killed.pid)
    for worker in workers:
        with suppress(ProcessLookupError):  # it has done its work
            os.kill(worker, signal.SIGKILL)
    errors = ended(killed)
    assert killed.returncode == 0 or "a worker process died" in errors
    assert ended(started(url, events, block=10_000, workers=2)) == ""
    assert snapshot(open_store(str(url))) == snapshot(whole(tmp_path, events))


def _workers(parent: int) -> list[int]:
    """The processes that it started, as far as this system tells."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [row.split(None, 2) for row in listed.splitlines()]
    return [int(pid) for pid, of, args in rows if of == str(parent) and "spawn_main" in args]


INTERRUPTED = 130


@pytest.mark.parametrize("wait", [0.2, *(pytest.param(each, marks=pytest.mark.slow) for each in (0.0, 0.1, 0.4, 0.6))])
def test_ctrl_c_ends_at_once_and_the_next_run_resumes(tmp_path: Path, wait: float, large: Path) -> None:
    store = tmp_path / "store"
    command = ("ingest", str(large), "--store", str(store), "--format", "json")
    open_store(str(store), create=True)
    process = pik(*command, start_new_session=True)
    while not any((store / "tmp").iterdir()) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    errors = ended(process)
    assert "Traceback" not in errors, errors
    if process.returncode == INTERRUPTED:
        assert json.loads(errors)["error"] == "interrupted; run the same command again"
    else:
        assert process.returncode == 0
    again = pik(*command)
    _, errors = again.communicate(timeout=PATIENCE)
    assert (again.returncode, "Traceback" in errors) == (0, False)
    assert_sound(open_store(str(store)))
    assert open_store(str(store)).index.totals().deliveries == LINES


LINES = 14_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for several blocks of the program's own size."""
    path = tmp_path_factory.mktemp("large") / "events.jsonl"
    filler = "x" * 2000
    with path.open("w") as file:
        file.writelines(
            f'{{"source":"s","event_type":"t","entity_id":"e{n % 100}","event_time":"2026-01-01T00:00:00.{n:06d}Z",'
            f'"payload":{{"n":{n},"filler":"{filler}"}}}}\n'
            for n in range(LINES)
        )
    return path
