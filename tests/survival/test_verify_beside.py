"""`verify` while others write: what a batch that is being written has in raw is not a problem."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from pik.errors import NotFound
from pik.model.window import ALL_TIME
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import depth_of
from tests.support.stores import PlainEngine
from tests.survival.conftest import PATIENCE, started

LINES = 1500


def files(directory: Path, count: int) -> list[Path]:
    """Files over three days, with events in common, conflicts of keys and lines that are rejected."""
    made = []
    for number in range(count):
        draw = random.Random(number)
        lines = ["no event"]
        for _ in range(LINES):
            event = {
                "source": "s",
                "event_type": "t",
                "entity_id": f"e{draw.randrange(40)}",
                "event_time": f"2026-01-0{1 + draw.randrange(3)}T00:00:{draw.randrange(60):02}Z",
                "payload": {"n": draw.randrange(30)},
            }
            if draw.random() < 0.2:
                event["idempotency_key"] = f"k{draw.randrange(200)}"
            lines.append(json.dumps(event))
        made.append(directory / f"part{number}.jsonl")
        made[-1].write_text("\n".join(lines) + "\n")
    return made


@pytest.mark.parametrize(("writers", "each"), [(2, 2), pytest.param(4, 12, marks=pytest.mark.slow)])
def test_nothing_is_wrong_during_ingests(tmp_path: Path, writers: int, each: int) -> None:
    parts, url = files(tmp_path, writers * each), tmp_path / "store"
    running = [
        started(url, *parts[number * each : (number + 1) * each], block=8_000, workers=number % 2)
        for number in range(writers)
    ]
    looks = 0
    while looks < 4 or any(process.poll() is None for process in running):
        looks += look(url, full=looks % 4 != 3)
    for process in running:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert look(url, full=True) == 1


def test_what_a_killed_ingest_left_is_not_damage(tmp_path: Path) -> None:
    (part,), url = files(tmp_path, 1), tmp_path / "store"
    for _ in range(3):
        process = started(url, part, block=8_000, workers=1)
        while process.poll() is None and random.random() < 0.97:
            time.sleep(0.02)
            look(url, full=False)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        look(url, full=True)


def look(url: Path, *, full: bool) -> int:
    try:
        store = open_store(str(url))
    except NotFound:
        time.sleep(0.02)
        return 0
    found = verify(store, PlainEngine(), ALL_TIME, SILENT, depth_of(quick=not full, full=full))
    assert list(found) == []
    report = found.summary
    assert report.valid == report.segments
    return 1
