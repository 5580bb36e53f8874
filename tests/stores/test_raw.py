"""Raw in a directory, beyond the contract."""

from __future__ import annotations

from pathlib import Path

from pik.stores.local import open_local

KEY = "raw/event_date=2026-01-01/01J-1.ndjson.zst"


def test_promise_2_an_object_cannot_be_written_to_by_accident(tmp_path: Path) -> None:
    store = open_local(tmp_path, create=True)
    store.raw.create(KEY, b"1")
    with store.raw.files([KEY]) as [path]:
        assert path.stat().st_mode & 0o222 == 0
    assert list((tmp_path / "tmp").iterdir()) == []
