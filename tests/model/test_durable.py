"""Durable writes: F_FULLFSYNC where the system has it, fsync elsewhere and where the file system does not take it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from pik.inputs.source import file_source
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.runtime.storage import sync, sync_directory
from pik.stores import open_store
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest

FULL = 51  # as macOS numbers it


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that make something durable, in order."""
    made: list[str] = []
    real, control = os.fsync, fcntl.fcntl

    def full(handle: int, command: int, *rest: int) -> int:
        if command != FULL:
            return control(handle, command, *rest)
        made.append("F_FULLFSYNC")
        return 0

    def plain(handle: int) -> None:
        made.append("fsync")
        real(handle)

    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", plain)
    return made


def test_fsync_alone_where_there_is_nothing_stronger(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    sync_directory(tmp_path)
    assert calls == ["fsync"]


def test_promise_1_a_whole_ingest_uses_nothing_weaker_where_there_is_f_fullfsync(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
    store = open_store(str(tmp_path / "store"), create=True)
    (tmp_path / "f").write_text(
        '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}\n'
    )
    ingest(store, file_source(str(tmp_path / "f")), IngestOptions(Reading(1 << 20), workers=0), SILENT)
    assert set(calls) == {"F_FULLFSYNC"}
    reader = store.index.database.read()  # type: ignore[attr-defined]
    assert reader.execute("PRAGMA fullfsync").fetchone() == (1,)
    assert reader.execute("PRAGMA checkpoint_fullfsync").fetchone() == (1,)


@pytest.mark.parametrize(
    ("code", "ends"), [(errno.ENOTSUP, "fsync"), (errno.EINVAL, "fsync"), (errno.EIO, "error"), (errno.ENOSPC, "error")]
)
def test_a_file_system_without_it_gets_fsync_and_a_failing_disk_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, ends: str
) -> None:
    def refuse(_handle: int, _command: int) -> int:
        raise OSError(code, os.strerror(code))

    made: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "fsync", made.append)
    if ends == "fsync":
        sync(7)
        assert made == [7]
    else:
        with pytest.raises(OSError, match=os.strerror(code)):
            sync(7)
        assert made == []
