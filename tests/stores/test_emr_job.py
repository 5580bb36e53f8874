"""What a job writes to its standard error comes in whole lines, once, whatever S3 refuses meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from pik.errors import StoreError
from pik.stores.aws import emr_job


@dataclass
class Refusing:
    """Takes what is put, but for the second time; while it takes it, more is written."""

    path: Path
    ended: Event
    more: list[bytes]
    put_: dict[str, bytes] = field(default_factory=dict)
    calls: int = 0

    def put(self, name: str, data: bytes) -> None:
        self.calls += 1
        with self.path.open("ab") as file:
            file.write(self.more.pop(0) if self.more else b"")
        if not self.more:
            self.ended.set()
        if self.calls == 2:
            raise StoreError("slow down")
        assert name not in self.put_
        self.put_[name] = data


def test_standard_error_is_sent_in_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emr_job, "SENT_EVERY", 0.001)
    path, ended = tmp_path / "stderr", Event()
    path.write_bytes(b"one\ntw")
    files: Any = Refusing(path, ended, [b"o\n", "dr\u00e9".encode()[:-1], "\u00e9".encode()[1:] + b"i\n", b"four"])
    emr_job._send(files, path, ended)
    sent = [files.put_[name] for name in sorted(files.put_)]
    assert b"".join(sent) == "one\ntwo\ndr\u00e9i\nfour".encode()
    assert all(one.endswith(b"\n") for one in sent[:-1])
    assert len(sent) > 2
