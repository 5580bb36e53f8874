"""`pik runs wait` for a run that another process drives."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from pik.errors import StoreError
from pik.model.run import RunState
from pik.runtime import SILENT, Progress
from pik.stores import open_store
from pik.usecases.replay.wait import wait
from tests.cli.test_replay_killed import command, events

__all__ = ["events"]


class Watching(Progress):
    """Notes what a progress shows, and tells when it is shown."""

    def __init__(self) -> None:
        self.shown = threading.Event()
        self.total: int | None = None
        self.before = self.done = 0

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.total, self.before = total, done

    def advance(self, done: int) -> None:
        self.done += done
        self.shown.set()

    def stop(self) -> None:
        """Nothing to clean up."""


@pytest.fixture
def driver(events: Path):
    """A replay in a process of its own, stopped in the middle of its work."""
    store = open_store(str(events))
    process = subprocess.Popen(**command(events, "replay", "--all", "--rate", "3", "--reason", "driven elsewhere"))
    while not (runs := [run for run in store.runs.newest_first() if run.state == RunState.RUNNING and run.done]):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGSTOP)
    yield store, runs[0].run_id, process
    process.kill()
    process.communicate()


def test_it_is_shown_as_it_goes_and_ends_with_the_run(driver) -> None:
    store, run_id, process = driver
    watching, ended = Watching(), []
    waiter = threading.Thread(target=lambda: ended.append(wait(store, run_id, watching)))
    waiter.start()
    assert watching.shown.wait(60)
    assert 0 < watching.before <= watching.before + watching.done < store.runs.get(run_id).tasks
    assert not ended
    os.kill(process.pid, signal.SIGCONT)
    waiter.join()
    assert process.wait() == 0
    assert ended[0].state == RunState.COMPLETED
    assert watching.before + watching.done == watching.total == ended[0].tasks


def test_it_ends_when_the_driver_is_killed(driver) -> None:
    store, run_id, process = driver
    process.kill()
    process.wait()
    with pytest.raises(StoreError, match=f"run {run_id} is RUNNING, but no process is working on it") as ended:
        wait(store, run_id, SILENT)
    assert ended.value.hint == f"pik runs resume {run_id}"
