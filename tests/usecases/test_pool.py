"""The pool: results in order, whatever their size; a worker that is gone is told of, and nothing hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from pik.errors import InputError
from pik.runtime.parallel import TELL_SECONDS, Pool, Tell, WorkerDied

BIG = 3 << 20
"""More than a pipe holds."""


def _doubling(_tell: Tell) -> Callable[[bytes], bytes]:
    return lambda data: data + data


def _failing(_tell: Tell) -> Callable[[int], int]:
    def check(number: int) -> int:
        if number == 3:
            raise InputError("three", hint="another number")
        return number

    return check


def _dying(when: str, _tell: Tell) -> Callable[[bytes], object]:
    return partial(_die, when)


def _die(when: str, _data: bytes) -> object:
    if when == "at work":
        os.kill(os.getpid(), signal.SIGKILL)
    return [b"x" * BIG, _Deadly()]


class _Deadly:
    """Kills whoever pickles it, when what stands before it has been sent."""

    def __reduce__(self) -> tuple[object, ...]:
        os.kill(os.getpid(), signal.SIGKILL)
        return ()


@pytest.mark.parametrize("size", [0, 1, 3])
def test_results_come_in_order_large_ones_too(size: int) -> None:
    arguments = [bytes([number]) * (BIG if number % 3 else number) for number in range(8)]
    with Pool[bytes, bytes](_doubling, size) as pool:
        assert list(pool.map(arguments)) == [data + data for data in arguments]


@pytest.mark.parametrize("size", [0, 2])
def test_what_a_worker_raises_comes_out_where_its_result_would(size: int) -> None:
    with Pool[int, int](_failing, size) as pool:
        results = pool.map(range(6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InputError, match="three") as raised:
            next(results)
    assert raised.value.hint == "another number"


@pytest.mark.parametrize("when", ["at work", "while it answers"])
def test_a_worker_that_dies_is_reported(when: str, capfd: pytest.CaptureFixture[str]) -> None:
    argument = b"y" * BIG
    with Pool[bytes, object](partial(_dying, when), 2) as pool, pytest.raises(WorkerDied) as raised:
        list(pool.map([argument] * 5))
    assert raised.value.argument == argument
    assert capfd.readouterr().err == ""


def _sleeping(_tell: Tell) -> Callable[[int], int]:
    def sleep(number: int) -> int:
        if number:
            time.sleep(3600)
        return number

    return sleep


def test_work_in_progress_is_not_waited_for_after_an_interruption() -> None:
    interruption = threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])

    def work() -> None:
        with Pool[int, int](_sleeping, 2) as pool:
            for _ in pool.map([0, 1, 1]):
                interruption.start()

    with pytest.raises(KeyboardInterrupt):
        work()


def _telling(tell: Tell) -> Callable[[int], int]:
    def work(number: int) -> int:
        for _ in range(number):
            tell(1)
            time.sleep(TELL_SECONDS)
        return number

    return work


@pytest.mark.parametrize("size", [0, 2])
def test_workers_tell_how_far_they_are_before_they_are_done(size: int) -> None:
    told: list[int] = []
    with Pool[int, int](_telling, size) as pool:
        for result in pool.map([3, 0], told.append):
            if result:
                assert 2 <= sum(told) <= 3


def test_workers_end_with_the_pool_at_any_time() -> None:
    with Pool[bytes, bytes](_doubling, 2) as pool:
        assert next(pool.map([b"z" * BIG] * 9)) == b"z" * 2 * BIG  # and leaves two at work
