"""Locks that end with the process. Other processes are tested with the ports that use them (tests/contracts)."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from pik.errors import Busy, StoreError
from pik.stores.local.lock import held, holding

PROBE = (
    "import sys, pathlib; from pik.stores.local.lock import held; print(held(pathlib.Path(sys.argv[1]), sys.argv[2]))"
)


def held_elsewhere(path, name):
    """Whether another process sees the lock."""
    return subprocess.check_output([sys.executable, "-c", PROBE, str(path), name], text=True).strip() == "True"


def test_a_lock_is_held_until_its_context_ends(tmp_path):
    path = tmp_path / "locks"
    assert not held(path, "a")
    with holding(path, "a"):
        assert held(path, "a")
        assert not held(path, "b")
        assert held_elsewhere(path, "a")
        assert not held_elsewhere(path, "b")
    assert not held(path, "a")
    assert not held_elsewhere(path, "a")


def test_ending_one_lock_keeps_the_others_of_the_file(tmp_path):
    """Closing a file ends all POSIX locks on it, so nothing here may close one too early."""
    path = tmp_path / "locks"
    with holding(path, "a"):
        with holding(path, "b"):
            pass
        held(path, "c")
        assert held_elsewhere(path, "a")


def test_this_process_cannot_take_a_lock_twice(tmp_path):
    again = holding(tmp_path / "locks", "a")
    with holding(tmp_path / "locks", "a"), pytest.raises(Busy, match="working on a"), again:
        pass


def test_shared_locks_exclude_only_the_exclusive(tmp_path):
    path = tmp_path / "locks"
    with holding(path, "a", shared=True):
        with holding(path, "a", shared=True), pytest.raises(Busy), holding(path, "a"):
            pass
        assert held_elsewhere(path, "a")
    with holding(path, "a"), pytest.raises(Busy), holding(path, "a", shared=True):
        pass


def test_no_file_stays_open(tmp_path):
    gc.collect()  # or it may take away what other tests have left open
    before = len(os.listdir("/dev/fd"))
    for number in range(5):
        with holding(tmp_path / str(number), "a"):
            held(tmp_path / str(number), "b")
        held(tmp_path / str(number), "c")
    assert len(os.listdir("/dev/fd")) == before


def test_no_access_is_named(tmp_path):
    with pytest.raises(StoreError, match="cannot use the lock file"), holding(tmp_path / "missing" / "locks", "a"):
        pass
