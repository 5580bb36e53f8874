"""The lease: one holder at a time, for as long as it lives and a little longer. Clocks of others are not believed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pik.errors import Busy
from pik.stores.aws import lease
from pik.stores.aws.clients import Clients
from pik.stores.aws.lease import LASTING, alive, await_holders, held, holding, lives
from pik.stores.aws.table import Item, Key, Table
from tests.support.aws.emulator import make_stack

SKEW = 900 * 10**9


@pytest.fixture(params=["aws", "moto"])
def table(request: pytest.FixtureRequest) -> Table:
    clients: Clients = request.getfixturevalue(request.param)
    return Table(clients, make_stack(clients).index_table)


class Clock:
    """Time passes only while somebody sleeps; `happens` is called then."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.happens: Callable[[], object] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.happens()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lease, "monotonic", lambda: made.now)
    monkeypatch.setattr(lease, "sleep", made.sleep)
    return made


def left_behind(table: Table, ends: int, name: str = "a", holder: str = "gone") -> None:
    """The lease of another process, which ends `ends` nanoseconds from now by that one's clock."""
    table.put({"pk": "lease", "sk": name, "holder": holder, "ends": time.time_ns() + ends, "expires": 1})


def test_one_holds_a_name_at_a_time(table: Table) -> None:
    with holding(table, "a"):
        assert held(table, "a")
        assert not held(table, "b")
        with pytest.raises(Busy, match="another pik process is working on a"), holding(table, "a"):
            pass
        assert held(table, "a")  # whoever was refused gave nothing back
        with holding(table, "b"), pytest.raises(Busy, match="working on b"):
            await_holders(table, "a", lambda _: False)
    assert not held(table, "a")
    with holding(table, "a"):
        pass


def test_it_is_given_back_after_an_error(table: Table) -> None:
    with pytest.raises(ZeroDivisionError), holding(table, "a"):
        _ = 1 // 0
    assert not held(table, "a")


def test_it_is_renewed_while_it_is_held(table: Table) -> None:
    with holding(table, "a", lasting=3):
        key: Key[Item] = Key(("lease", "a"))
        begun = table.get(key)
        while (now := table.get(key)) == begun:
            time.sleep(0.1)
        assert now is not None
        assert begun is not None
        assert now["ends"] > begun["ends"]
        assert now["holder"] == begun["holder"]


@pytest.mark.parametrize("skew", [-SKEW, -1, int(LASTING * 1e9), SKEW])
def test_what_a_dead_process_left_is_taken_over_after_half_a_minute_whatever_its_clock(
    table: Table, clock: Clock, skew: int
) -> None:
    left_behind(table, skew)
    begun = clock.now
    with holding(table, "a"):
        assert LASTING <= clock.now - begun < LASTING + 2
        assert lives(table, "a")


@pytest.mark.parametrize("skew", [-SKEW, -1, SKEW])
def test_the_lease_of_a_living_process_is_not_taken_over_whatever_its_clock(
    table: Table, clock: Clock, skew: int
) -> None:
    left_behind(table, skew)
    begun = clock.now

    def renew() -> None:
        if clock.now - begun > 5:
            left_behind(table, skew + 10**9)

    clock.happens = renew
    with pytest.raises(Busy), holding(table, "a"):
        pass
    assert clock.now - begun < 10
    assert alive(table, "a")


def test_one_that_ended_long_ago_is_free(table: Table, clock: Clock) -> None:
    left_behind(table, -2 * 3600 * 10**9)
    begun = clock.now
    assert not lives(table, "a")
    with holding(table, "a"):
        assert clock.now == begun


def test_who_does_not_wait_believes_what_it_has_seen_before(table: Table, clock: Clock) -> None:
    left_behind(table, SKEW)
    assert (lives(table, "a"), held(table, "a")) == (True, True)
    clock.now += LASTING - 1
    assert lives(table, "a")
    clock.now += 2
    assert (lives(table, "a"), held(table, "a")) == (False, False)
    left_behind(table, SKEW + 1)
    assert lives(table, "a")


def test_who_needs_all_leases_waits_for_the_dead_and_not_for_the_living(table: Table, clock: Clock) -> None:
    left_behind(table, SKEW, "a")
    left_behind(table, -SKEW, "b")
    await_holders(table, "rebuild", lambda _: False)
    assert clock.now >= 1000 + LASTING
    clock.happens = lambda: left_behind(table, int(clock.now), "b", "another")
    left_behind(table, SKEW, "b", "another")
    with pytest.raises(Busy, match="working on b"):
        await_holders(table, "rebuild", lambda _: False)


def test_who_holds_a_lease_for_a_short_time_is_waited_for_and_who_gets_it_later_is_not(
    table: Table, clock: Clock
) -> None:
    left_behind(table, SKEW, "short", "first")

    def happens() -> None:  # it is renewed for two minutes; then others have it
        left_behind(table, int(clock.now), "short", "first" if clock.now < 1120 else f"later {clock.now}")

    clock.happens = happens
    await_holders(table, "rebuild", lambda name: name == "short")
    assert 1120 <= clock.now < 1130


def test_a_holder_that_lost_it_does_not_end_the_lease_of_another(table: Table, clock: Clock) -> None:
    with holding(table, "a", lasting=60):
        left_behind(table, -2 * 3600 * 10**9)  # as if this process had slept
        another = holding(table, "a")
        lease.HELD.clear()  # the other one is another process
        another.__enter__()
    assert held(table, "a")
    another.__exit__(None, None, None)
    assert not held(table, "a")
