"""Raw in a directory, beyond the contract."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from pik.errors import StoreError
from pik.stores.local import open_local
from pik.stores.local.raw import LocalRaw

KEY = "raw/event_date=2026-01-01/01J-1.ndjson.zst"


def test_promise_2_an_object_cannot_be_written_to_by_accident(tmp_path: Path) -> None:
    store = open_local(tmp_path, create=True)
    store.raw.create(KEY, b"1")
    with store.raw.files([KEY]) as [path]:
        assert path.stat().st_mode & 0o222 == 0
    assert list((tmp_path / "tmp").iterdir()) == []


def test_promise_1_an_object_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes, then the name, then the directory that holds the name and the one above."""
    store = open_local(tmp_path, create=True)
    done: list[int] = []
    sync, link = os.fsync, os.link

    def syncing(handle: int) -> None:
        done.append(os.fstat(handle).st_ino)
        sync(handle)

    def linking(temporary: str, target: Path) -> None:
        done.append(-1)
        link(temporary, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "link", linking)
    keys = [KEY, KEY.replace("-1.", "-2.")]
    for key in keys:
        store.raw.create(key, b"1")
    first, second = (tmp_path / key for key in keys)
    one, two, day, raw = (path.stat().st_ino for path in (first, second, first.parent, first.parent.parent))
    assert done == [one, -1, raw, day, two, -1, raw, day]


def test_promise_1_many_objects_are_on_disk_before_their_names_and_each_directory_is_synced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_local(tmp_path, create=True)
    synced: list[int] = []
    unsynced: list[Path] = []
    sync, link = os.fsync, os.link

    def syncing(handle: int) -> None:
        sync(handle)
        synced.append(os.fstat(handle).st_ino)

    def linking(temporary: str, target: Path) -> None:
        unsynced.extend([target] if os.stat(temporary).st_ino not in synced else [])
        link(temporary, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "link", linking)
    keys = [f"raw/event_date=2026-{month:02}-{day:02}/{n}" for month in (1, 2) for day in range(1, 28) for n in (1, 2)]
    store.raw.create_all([(key, key.encode()) for key in keys])
    directories = {(tmp_path / key).parent for key in keys} | {tmp_path / "raw"}
    assert unsynced == []
    assert sorted(synced) == sorted(path.stat().st_ino for path in [*directories, *(tmp_path / key for key in keys)])
    last = [path.stat().st_ino for path in directories]
    assert sorted(synced[-len(last) :]) == sorted(last)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_limit_of_open_files_is_not_taken_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()

    def refused(**_: object) -> tuple[int, str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    with pytest.raises(StoreError, match="Too many open files") as error:
        LocalRaw(tmp_path).create("raw/x", b"x")
    assert error.value.hint == "allow more open files, then run the same command again: ulimit -n 1024"


def test_a_path_that_cannot_be_followed_is_not_taken_for_missing_access_or_room(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot read") as error:
        open_local(tmp_path / "loop")
    assert error.value.hint == f"a link in '{tmp_path}/loop/format.json' leads back to itself"
    with pytest.raises(StoreError, match="cannot create a store") as error:
        open_local(tmp_path / "file" / "store", create=True)
    assert error.value.hint.startswith(f"a part of '{tmp_path}/file")
    assert error.value.hint.endswith(" is a file, not a directory")
