"""A file that a command writes where its user said is whole under its name, or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pik.errors import StoreError, UsageError
from pik.runtime.new_file import created_whole


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_it_is_hidden_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with created_whole(path) as file:
        file.write(b"half")
        file.flush()
        [hidden] = names(tmp_path)
        assert hidden.startswith(".out.pik-")
    assert names(tmp_path) == ["out"]
    assert path.read_bytes() == b"half"
    with pytest.raises(UsageError, match="out' exists already"), created_whole(path):
        pass
    with pytest.raises(UsageError, match="--rejects -: it is written whole"), created_whole(Path("-"), "--rejects"):
        pass
    with pytest.raises(ZeroDivisionError), created_whole(path, replace=True) as file:
        file.write(bytes([1 // 0]))
    assert (names(tmp_path), path.read_bytes()) == (["out"], b"half")


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    """Whatever its number was: in a container each process has the same one."""
    for name in (".out.pik-0123abcd", f".out.{os.getpid()}.part", ".other.pik-0123abcd", ".out.pik-mine"):
        (tmp_path / name).write_text("left")
    with created_whole(tmp_path / "out") as first:
        first.write(b"first")
        with created_whole(tmp_path / "out") as second:
            second.write(b"second")
            assert len([name for name in names(tmp_path) if name.startswith(".out.pik-")]) == 3
        (tmp_path / "out").unlink()
    assert (tmp_path / "out").read_bytes() == b"first"
    assert ".out.pik-0123abcd" not in names(tmp_path)
    assert {".other.pik-0123abcd", ".out.pik-mine"} < set(names(tmp_path))


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(name, fail)


@pytest.mark.parametrize("call", ["os.fsync", "os.link", "pik.runtime.new_file.sync_directory"])
def test_a_full_disk_is_named_with_what_to_do_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    failing(monkeypatch, call, errno.ENOSPC)
    with pytest.raises(StoreError, match="No space left on device") as error, created_whole(tmp_path / "out") as file:
        file.write(b"much")
    assert (error.value.exit_code, names(tmp_path)) == (4, [])
    assert error.value.hint.startswith(f"make room on the disk of {tmp_path},")


def test_an_error_of_another_file_is_not_blamed_on_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="space"), created_whole(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "no space there")
    assert names(tmp_path) == []


def test_file_systems_without_links_have_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "os.link", errno.EPERM)
    with created_whole(tmp_path / "out") as file:
        file.write(b"whole")
    assert (names(tmp_path), (tmp_path / "out").read_bytes()) == (["out"], b"whole")
