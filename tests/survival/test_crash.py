"""Promise 1, at every boundary between two durable steps: the process ends there, the same command goes on."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pik.errors import StoreError
from pik.inputs import blocks as blocks_module
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.batch_ingest import Outcome
from tests.support.faults import Crash, ExitAt, FailAt, Slow, Twice, wrapped
from tests.support.snapshot import assert_sound, snapshot
from tests.support.survival.child import small_blocks
from tests.survival.conftest import EXTRA, ingest, whole, without_index

BLOCK = 1500


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A few blocks, with events of several days, rejects, duplicates and conflicts in them."""
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(EXTRA[:40:2] + EXTRA[94::5] + EXTRA[:8]) + "\n")
    return path


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK", BLOCK)
    monkeypatch.setattr(blocks_module, "FIRST_READ", 100)


def steps(directory: Path, path: Path) -> list[str]:
    """The durable steps of an ingest, in order."""
    counting = FailAt(0)
    ingest(wrapped(open_store(str(directory / "steps"), create=True), counting, "raw", "batches"), path)
    return counting.calls


def test_the_order_of_the_durable_steps_is_what_makes_promise_1_true(tmp_path: Path, path: Path) -> None:
    calls = steps(tmp_path, path)
    assert calls[0] == "batches.open"
    assert calls[-3:] == ["batches.record", "raw.create", "batches.finish"]
    assert calls.count("batches.record") > 2
    recorded = [place for place, call in enumerate(calls) if call == "batches.record"]
    # The block's objects, then its block record, then the index.
    assert all(calls[place - 2 : place] == ["raw.create_all", "raw.create"] for place in recorded)


@pytest.mark.parametrize(
    ("after", "lost"),
    [
        (False, True),
        (True, False),
        pytest.param(False, False, marks=pytest.mark.slow),
        pytest.param(True, True, marks=pytest.mark.slow),
    ],
    ids=["before, index lost", "after, index kept", "before, index kept", "after, index lost"],
)
def test_promise_1_a_crash_at_every_durable_step(tmp_path: Path, path: Path, after: bool, lost: bool) -> None:
    expected = snapshot(whole(tmp_path, path))
    for number, _ in enumerate(steps(tmp_path, path), 1):
        store = open_store(str(tmp_path / f"store{number}"), create=True)
        with pytest.raises(Crash):
            ingest(wrapped(store, FailAt(number, after=after), "raw", "batches"), path)
        store = without_index(tmp_path / f"store{number}") if lost else store
        ingest(store, path)
        assert snapshot(store) == expected, f"step {number}"
        assert_sound(store)
        rebuild_index(store, SILENT)
        assert snapshot(store) == expected, f"step {number}, rebuilt"


def exit_at(url: str, path: Path, number: int, after: bool) -> None:
    small_blocks(BLOCK)
    ingest(wrapped(open_store(url, create=True), ExitAt(number, after), "raw", "batches"), path)


@pytest.fixture(scope="module")
def in_process() -> Callable[..., int]:
    """Runs a function in a process of its own and tells its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def run(function: Callable[..., None], *arguments: Any) -> int:
        process = context.Process(target=function, args=arguments)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    return run


def test_promise_1_an_exit_at_every_durable_step(tmp_path: Path, path: Path, in_process: Callable[..., int]) -> None:
    """Without a chance to roll back, to flush, or to let go of a lock."""
    expected = snapshot(whole(tmp_path, path))
    for number, _ in enumerate(steps(tmp_path, path), 1):
        url = str(tmp_path / f"store{number}")
        assert in_process(exit_at, url, path, number, number % 2 == 0) == 9
        store = open_store(url)
        ingest(store, path)
        assert snapshot(store) == expected, f"step {number}"
        assert_sound(store)


DURABLE_CALLS = ("fsync", "link", "unlink", "chmod", "mkdir")


def counted_calls(end_at: int) -> Callable[[], int]:
    """Counts the calls of the operating system that change the store's directory; ends the process at the n-th."""
    made = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == end_at:
                os._exit(9)
            return real(*arguments, **options)

        return call

    for name in DURABLE_CALLS:
        setattr(os, name, counting(getattr(os, name)))
    return lambda: made


def exit_at_call(url: str, path: Path, number: int) -> None:
    small_blocks(BLOCK)
    store = open_store(url, create=True)
    made = counted_calls(number)
    ingest(store, path)
    os._exit(100 if made() < number else 0)


@pytest.mark.parametrize("every", [30, pytest.param(4, marks=pytest.mark.slow)])
def test_promise_1_an_exit_at_every_call_of_the_operating_system(
    tmp_path: Path, path: Path, in_process: Callable[..., int], every: int
) -> None:
    """Between the many objects of a block, too: some files are there, some have names, some directories are synced."""
    expected = snapshot(whole(tmp_path, path))
    ended = 0
    for number in range(1, 1000, every):
        url = str(tmp_path / f"store{number}")
        code = in_process(exit_at_call, url, path, number)
        if code == 100:
            break
        assert code == 9
        ended += 1
        store = open_store(url)
        ingest(store, path)
        assert snapshot(store) == expected, f"call {number}"
        assert_sound(store)
    assert ended > 140 // every


@pytest.mark.parametrize("seeds", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_promise_1_crash_after_crash(tmp_path: Path, path: Path, seeds: int) -> None:
    """Each attempt gets a few steps further than the one before, or not even that."""
    expected = snapshot(whole(tmp_path, path))
    for seed in range(seeds):
        draw = random.Random(seed)
        store = open_store(str(tmp_path / f"store{seed}"), create=True)
        attempts = 0
        while True:
            attempts += 1
            fault = FailAt(draw.randint(1, 25), after=draw.random() < 0.5)
            try:
                done = ingest(wrapped(store, fault, "raw", "batches"), path)
            except Crash:
                continue
            break
        assert attempts == 1 or done.outcome == Outcome.RESUMED or len(fault.calls) == 0
        assert snapshot(store) == expected
        rebuild_index(store, SILENT)
        assert snapshot(store) == expected


def test_calls_that_are_repeated_change_nothing(tmp_path: Path, path: Path) -> None:
    expected = snapshot(whole(tmp_path, path))
    for seed in range(5):
        store = open_store(str(tmp_path / f"store{seed}"), create=True)
        ingest(wrapped(store, Twice(random.Random(seed)), "raw", "batches"), path)
        assert snapshot(store) == expected
        assert_sound(store)


def test_slow_calls_change_nothing(tmp_path: Path, path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    ingest(wrapped(store, Slow(0.02, random.Random(0)), "raw", "batches"), path)
    assert snapshot(store) == snapshot(whole(tmp_path, path))


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, error: OSError) -> None:
    """Let the n-th call of a function of the operating system fail."""
    real = getattr(os, name)
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)


def left(store: Store) -> list[Path]:
    return list((Path(store.url) / "tmp").iterdir())


@pytest.mark.parametrize("name", ["fsync", "link", "chmod", "unlink"])
def test_promise_1_an_error_of_the_disk_at_any_time(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No space left, or no access any more: nothing half-written is seen, and the next run goes on."""
    expected = snapshot(whole(tmp_path, path))
    for number in range(1, 7):
        store = open_store(str(tmp_path / f"store{number}"), create=True)
        with monkeypatch.context() as patch:
            failing(patch, name, number, OSError(28, "No space left on device"))
            with pytest.raises(StoreError, match="No space left on device"):
                ingest(store, path)
        assert left(store) == [] or name == "unlink"
        ingest(store, path)
        assert snapshot(store) == expected
        assert_sound(store)
