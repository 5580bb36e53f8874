"""`pik cluster pack` where it cannot be done: an error in words, and no part of a file is left."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import pytest

from pik.errors import StoreError, UsageError
from pik.runtime import SILENT
from pik.usecases.care import cluster_pack
from pik.usecases.care.cluster_pack import pack

PACKAGES = cluster_pack._packages


@pytest.fixture(autouse=True)
def small_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is packed is a few files, which do not get smaller by that. The directory is the place of the archive."""
    library = tmp_path / "library"
    library.mkdir()
    for number in range(20):
        (library / f"{number}.so").write_bytes(os.urandom(20_000))
    monkeypatch.setattr(cluster_pack, "_python", dict)
    monkeypatch.setattr(cluster_pack, "_packages", lambda _: cluster_pack._below(library, "library"))
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def test_it_is_there_and_whole(small_environment: Path) -> None:
    done = pack(Path("pik.tar.gz"), SILENT)
    assert (done.size, done.unpacked) == (Path("pik.tar.gz").stat().st_size, 400_000)
    assert os.listdir(small_environment) == ["pik.tar.gz"]


@contextmanager
def short_disk() -> Iterator[None]:
    """No file gets longer than this, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk(small_environment: Path) -> None:
    with short_disk(), pytest.raises(StoreError, match=r"cannot write 'pik\.tar\.gz': File too large") as raised:
        pack(Path("pik.tar.gz"), SILENT)
    assert "make room on the disk of" in raised.value.hint
    assert os.listdir(small_environment) == []


@contextmanager
def another_user() -> Iterator[None]:
    """Who is not root, and may not write here."""
    user = os.geteuid()
    Path().chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        Path().chmod(0o755)


def test_a_directory_of_another_user(small_environment: Path) -> None:
    with another_user(), pytest.raises(StoreError, match=r"cannot write 'pik\.tar\.gz': Permission denied") as raised:
        pack(Path("pik.tar.gz"), SILENT)
    assert raised.value.hint == "name a file in a directory that can be written to"
    assert os.listdir(small_environment) == []


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("pik.tar.gz", Path.touch, "exists already"),
        ("pik.tar.gz", Path.mkdir, "exists already"),
        ("pik.tar.gz", lambda path: path.symlink_to("/dev/full"), "exists already"),
        ("absent/pik.tgz", lambda _: None, "there is no directory 'absent'"),
        ("pik.zip", lambda _: None, "-o pik.zip: it does not end in .tar.gz"),
        ("s3://bucket/pik.tar.gz", lambda _: None, "-o s3:/bucket/pik.tar.gz: it is written to a file here"),
    ],
)
def test_a_place_that_is_not_free(
    small_environment: Path, name: str, make: Callable[[Path], Any], message: str
) -> None:
    make(Path(name))
    before = os.listdir(small_environment)
    with pytest.raises(UsageError, match=message) as raised:
        pack(Path(name), SILENT)
    if "it" in message:
        assert raised.value.hint == "pik cluster pack -o pik.tar.gz"
    assert os.listdir(small_environment) == before


def test_ctrl_c_in_the_middle(small_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[str] = []
    add = cluster_pack._add

    def interrupted(archive: Any, name: str, *rest: Any, **more: Any) -> None:
        if len(added) == 10:
            raise KeyboardInterrupt
        added.append(name)
        add(archive, name, *rest, **more)

    monkeypatch.setattr(cluster_pack, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(Path("pik.tar.gz"), SILENT)
    assert os.listdir(small_environment) == []


def test_what_killed_packs_have_left_is_removed(small_environment: Path) -> None:
    child = os.fork()
    if child == 0:
        cluster_pack._add = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        try:
            pack(Path("pik.tar.gz"), SILENT)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not Path("pik.tar.gz").exists()
    pack(Path("pik.tar.gz"), SILENT)
    assert os.listdir(small_environment) == ["pik.tar.gz"]


def test_a_file_of_a_package_that_is_gone(small_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(name="shape", files=[PurePath("shape/a.py")], locate_file=lambda file: Path("gone", file))
    monkeypatch.setattr(cluster_pack, "_needed", lambda: [package])
    monkeypatch.setattr(cluster_pack, "_packages", PACKAGES)
    with pytest.raises(StoreError, match=r"the package shape lacks its file shape/a\.py") as raised:
        pack(Path("pik.tar.gz"), SILENT)
    assert raised.value.hint == "pip install --force-reinstall shape"
    assert os.listdir(small_environment) == []
