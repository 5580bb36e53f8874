"""What a person sees on a terminal, which shows standard output and standard error together."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def seen(directory: Path, *arguments: str) -> list[str]:
    """The lines that a command prints to a terminal, without what moves the cursor and colours."""
    ours, theirs = pty.openpty()
    settings = {"TERM": "xterm", "COLUMNS": "100", "PIK_PAGER": "cat", "PIK_STORE": str(directory / ".pik")}
    with subprocess.Popen(
        [sys.executable, "-m", "pik", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | settings
    ) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # what Linux says at the end
                break
            if not part:
                break
            parts.append(part)
    os.close(ours)
    assert process.returncode == 0
    return _CONTROLS.sub("", b"".join(parts).decode()).replace("\r", "\n").split("\n")


@pytest.fixture
def days(pik, tmp_path):
    """A store with events, and duplicates of them, on three days."""
    lines = (
        {"source": "s", "event_type": "t", "entity_id": f"e{number % 9}", "event_time": f"2026-01-0{day}T00:00:00Z",
         "payload": {"n": number}}
        for day in (1, 2, 3) for number in range(200)
    )  # fmt: skip
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert pik("ingest", "events.jsonl").code == 0
    assert pik("ingest", "events.jsonl", "--again").code == 0
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (("events", "--limit", "300"), "window  all time"),
        (("duplicates", "--limit", "300"), "window  all time"),
        (("export", "--out", "-", "--as", "jsonl"), '{"event_id":'),
    ],
    ids=["events", "duplicates", "export"],
)
def test_a_progress_bar_makes_way_for_the_result(days: Path, arguments: tuple[str, ...], first: str) -> None:
    lines = seen(days, *arguments)
    (start,) = [number for number, line in enumerate(lines) if line.startswith(first)][:1]
    assert not [line for line in lines[start:] if "reading raw" in line or "exporting" in line]
    assert not [line for line in lines[:start] if first in line]
