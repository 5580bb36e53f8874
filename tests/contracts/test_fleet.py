"""The contract of the Fleet port: this process, and a Spark cluster of two executors."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import Damaged, StoreError
from pik.fleets.here import Here
from pik.fleets.session import Session
from pik.fleets.spark import SparkFleet
from pik.ports.fleet import Fleet
from pik.stores import open_store
from tests.support.contracts import fleet as of
from tests.support.fleet import RepeatingFleet
from tests.support.spark import LOCATION

pytestmark = pytest.mark.xdist_group("spark")

ENGINE = DuckEngine(threads=1)


@pytest.fixture(params=["here", "repeating", "spark"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """After each test no rows are left on the executors' disks, however it ended."""
    store = open_store(str(tmp_path / "store"), create=True)
    if request.param != "spark":
        yield {"here": Here, "repeating": RepeatingFleet}[request.param](store, ENGINE)
        return
    session = request.getfixturevalue("spark")
    yield SparkFleet(session, LOCATION, store, ENGINE)
    if not LOCATION.startswith("sc:"):  # whose client cannot ask
        assert dict(session.spark.sparkContext._jsc.getPersistentRDDs()) == {}


def test_results_come_in_the_order_of_the_items(fleet: Fleet) -> None:
    items = [3, 0, 1, *range(12), 40]  # more than run at a time; the last has more than fits into a row
    expected = [(item, number) for item in items for number in range(item * 1000)]
    assert list(fleet.map(of.multiples, items)) == expected
    assert list(fleet.map(of.multiples, [])) == []
    assert list(fleet.map(of.multiples, [0])) == []


def test_a_function_has_the_store_and_an_engine(fleet: Fleet) -> None:
    found = list(fleet.map(of.whereabouts, range(4)))
    assert [one[:3] for one in found] == [(item, fleet.store.url, ENGINE.version) for item in range(4)]  # type: ignore[attr-defined]
    is_here = {one[3] for one in found} == {os.getpid()}
    assert is_here == (not isinstance(fleet, SparkFleet))


def test_what_a_function_raises_is_raised_here(fleet: Fleet) -> None:
    with pytest.raises(Damaged, match="object 3 is damaged") as raised:
        list(fleet.map(of.failing, range(9)))
    assert raised.value.hint == "pik verify"
    with pytest.raises(Exception, match="of 0"):
        list(fleet.map(of.breaking, [0]))
    assert list(fleet.map(of.failing, [1])) == [1]  # and it can be used after that


def test_an_error_of_the_system_is_raised_here_as_it_was(fleet: Fleet, tmp_path: Path) -> None:
    """Not as one of the cluster: the message and its hint are those of this file."""
    with pytest.raises(FileNotFoundError) as raised:
        list(fleet.map(of.opening, [str(tmp_path / "absent")]))
    assert raised.value.filename == str(tmp_path / "absent")


def test_items_are_read_as_they_are_needed(fleet: Fleet, tmp_path: Path) -> None:
    """So that a plan of any length fits; those that no result is read of need not run."""
    taken = 0

    def items() -> Iterator[tuple[int, str]]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield number, str(tmp_path / "calls")

    results: Any = fleet.map(of.appending, items())
    assert list(islice(results, 3)) == [0, 1, 2]
    results.close()
    assert taken < 100
    assert len(set((tmp_path / "calls").read_text().splitlines())) <= taken


def test_ctrl_c_ends_what_runs(fleet: Fleet, tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    try:
        Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            list(fleet.map(of.endless, [str(tmp_path)] * 4))
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(fleet.map(of.failing, [1])) == [1]  # which would wait for those that go on


def test_values_are_merged_by_key_in_the_order_of_items(fleet: Fleet) -> None:
    expected = [
        (key, [pair for item in range(key + 1, 5) for pair in ((item * of.LONG // (key + 1), bytes([item])), (0, b""))])
        for key in (0, 1, 3)
    ]
    assert list(fleet.map_reduce(of.keyed, range(5), of.lengths, 6)) == expected
    assert list(fleet.map_reduce(of.keyed, [], of.lengths, 6)) == []


@pytest.mark.parametrize(
    ("body", "merge", "message"),
    [(of.failing_at_4, of.lengths, "object 4"), (of.keyed, of.unmerged, "cannot be merged")],
)
def test_what_fails_while_values_are_merged_is_raised_here(
    fleet: Fleet, body: Callable[..., Any], merge: Callable[..., Any], message: str
) -> None:
    with pytest.raises(Damaged, match=message):
        list(fleet.map_reduce(body, range(5), merge, 6))


def test_executors_with_other_versions_are_refused(spark: Session, tmp_path: Path) -> None:
    fleet = SparkFleet(spark, LOCATION, open_store(str(tmp_path / "store"), create=True), ENGINE)
    other = replace(fleet, expected="pik 0.0.9 (code 0123456789ab), duckdb 1.0, Python 3.9")
    with pytest.raises(StoreError, match=r"other versions than this process: pik .*, here it is pik 0\.0\.9") as raised:
        list(other.map(of.multiples, [1]))
    assert "pik cluster pack" in raised.value.hint
    with pytest.raises(StoreError, match="other versions"):
        list(other.map_reduce(of.keyed, range(3), of.lengths, 6))


def test_a_cluster_that_runs_one_task_at_a_time_is_not_taken_for_this_process(tmp_path: Path) -> None:
    session: Any = Session(None, 1, lambda: None)
    store = open_store(str(tmp_path / "store"), create=True)
    assert SparkFleet(session, LOCATION, store, ENGINE).slots > Here(store, ENGINE).slots == 1
