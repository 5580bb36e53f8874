"""The lease: one holder at a time, for as long as it lives and a little longer."""

from __future__ import annotations

import time

import pytest

from pik.errors import Busy
from pik.stores.aws.clients import Clients
from pik.stores.aws.lease import all_held, held, holding
from pik.stores.aws.table import Table
from tests.aws.emulator import make_stack


@pytest.fixture
def table(aws: Clients) -> Table:
    return Table(aws, make_stack(aws).index_table)


def test_one_holds_a_name_at_a_time(table: Table) -> None:
    with holding(table, "a"):
        assert held(table, "a")
        assert not held(table, "b")
        with pytest.raises(Busy, match="another pik process is at work on a"), holding(table, "a"):
            pass
        assert held(table, "a")  # whoever was refused gave nothing back
        with holding(table, "b"):
            assert all_held(table) == ["a", "b"]
    assert not held(table, "a")
    with holding(table, "a"):
        pass


def test_it_is_given_back_after_an_error(table: Table) -> None:
    with pytest.raises(ZeroDivisionError), holding(table, "a"):
        _ = 1 // 0
    assert not held(table, "a")


def test_it_is_renewed_while_it_is_held(table: Table) -> None:
    with holding(table, "a", lasting=3):
        begun = table.get(("lease", "a"))
        while (now := table.get(("lease", "a"))) == begun:
            time.sleep(0.1)
        assert now is not None
        assert begun is not None
        assert now["ends"] > begun["ends"]
        assert now["holder"] == begun["holder"]


def left_behind(table: Table) -> None:
    table.put({"pk": "lease", "sk": "a", "holder": "gone", "ends": time.time_ns() - 1, "expires": 1})


def test_what_somebody_left_behind_is_taken_over(table: Table) -> None:
    left_behind(table)
    assert not held(table, "a")
    assert all_held(table) == []
    with holding(table, "a"):
        assert held(table, "a")


def test_whoever_lost_it_does_not_end_the_lease_of_another(table: Table) -> None:
    with holding(table, "a", lasting=60):
        left_behind(table)  # as if this process had slept
        another = holding(table, "a")
        another.__enter__()
    assert held(table, "a")
    another.__exit__(None, None, None)
    assert not held(table, "a")
