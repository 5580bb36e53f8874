"""Backoff between attempts."""

from __future__ import annotations

import pytest

from pik.errors import Busy, StoreError
from pik.runtime.retries import Backoff, attempts, retry

pytestmark = pytest.mark.usefixtures("no_delays")

FEW = Backoff(first=1, longest=4, attempts=5)


def test_delays_are_random_parts_of_a_doubling_limit() -> None:
    slept: list[float] = []
    assert len(list(attempts(FEW, slept.append))) == 5
    assert all(0 <= delay <= limit for delay, limit in zip(slept, (1, 2, 4, 4), strict=True))


def test_no_attempt_begins_when_patience_is_used_up() -> None:
    assert list(Backoff(patience=-1).delays()) == []


def test_retry_returns_the_first_success() -> None:
    failures = [Busy("a"), Busy("b")]

    def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert retry(call, lambda error: isinstance(error, Busy), FEW) == "done"


def test_retry_raises_at_once_what_is_not_transient_and_in_the_end_what_is() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        raise StoreError("no")

    with pytest.raises(StoreError):
        retry(call, lambda error: isinstance(error, Busy), FEW)
    assert calls == 1
    with pytest.raises(StoreError):
        retry(call, lambda error: True, FEW)
    assert calls == 6
