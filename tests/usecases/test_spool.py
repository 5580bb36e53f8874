"""Temporary files that hold what memory should not."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from pik.model.aggregate import Computed
from pik.runtime import storage
from pik.runtime.storage import Sorter, Spool, scratch


def test_a_spool_returns_what_was_added_again_and_again() -> None:
    rows = [Computed("m", 0, f"e{n}\u2028", Decimal("0.10"), n, "0" * 32, "f" * 32) for n in range(100)]
    for in_memory in (100, 1 << 20):
        spool = Spool(Computed, rows[:50], in_memory=in_memory)
        for row in rows[50:]:
            spool.add(row)
        assert len(spool) == 100
        assert list(spool) == list(spool) == rows


def test_the_directory_of_a_killed_process_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of a living one, nor one that was just made, and may not be locked yet, nor anything of the user's."""
    program = (
        "import os, time; from pik.runtime.storage import scratch as s; w = s(); p = w.__enter__()\n(p / 'f').touch()"
    )
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    for rest in ("os.kill(os.getpid(), 9)", "os.utime(p, (0, 0)); os.kill(os.getpid(), 9)"):
        subprocess.run([sys.executable, "-c", f"{program}; {rest}"], env=variables, check=False)
    new, old = sorted(tmp_path.iterdir(), key=lambda one: -one.stat().st_mtime)
    (tmp_path / "pik-tmp-research").mkdir()
    os.utime(tmp_path / "pik-tmp-research", (0, 0))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch() as living:
        os.utime(living, (0, 0))
        storage._remove_abandoned.cache_clear()
        with scratch():
            assert (living.is_dir(), new.is_dir(), old.exists()) == (True, True, False)
    assert {one.name for one in tmp_path.iterdir()} == {new.name, "pik-tmp-research"}


def test_a_sorter_has_few_files_open_and_keeps_the_order_of_what_is_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_MERGED", 3)
    sorter: Sorter[tuple[int, int]] = Sorter(lambda pair: pair[0], in_memory=2)
    before = len(os.listdir("/dev/fd"))
    for number in range(1000):
        sorter.add((number % 7, number))
    assert len(os.listdir("/dev/fd")) - before <= 2 * 7  # of 3**6 runs two at each level
    assert list(sorter) == sorted((number % 7, number) for number in range(1000))


def test_a_sorter_merges_what_it_wrote_to_disk_with_what_it_holds() -> None:
    numbers = [n * 7919 % 1000 for n in range(1000)]
    for in_memory in (1, 7, 1000, 5000):
        for reverse in (False, True):
            sorter: Sorter[int] = Sorter(lambda n: n, reverse=reverse, in_memory=in_memory)
            for number in numbers:
                sorter.add(number)
            assert list(sorter) == list(sorter) == sorted(numbers, reverse=reverse)


def test_scratch_is_gone_in_the_end() -> None:
    with pytest.raises(ZeroDivisionError), scratch() as directory:
        (directory / "a").write_bytes(b"a" * (1 // len(list(directory.iterdir()))))
    assert not directory.exists()


def test_a_reader_of_the_output_that_left_is_not_a_fault_of_the_directory() -> None:
    with pytest.raises(BrokenPipeError), scratch():
        raise BrokenPipeError(32, "Broken pipe")
