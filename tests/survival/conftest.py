"""Files of events, processes that ingest them, and what an uninterrupted run leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate, repeat
from operator import mul
from pathlib import Path
from typing import Any

import pytest

from bench.gen_events import generate
from pik.inputs.source import file_source
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.batch_ingest import IngestOptions, IngestReport
from pik.usecases.ingest.batch_ingest import ingest as ingest_source

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")} | {
    "PYTHONPATH": str(ROOT)
}
PATIENCE = 600
"""Seconds after which a process counts as one that does not end, however slow the machine is."""

EXTRA = ["{", '{"source":""}', "", "x" * 300] + [
    f'{{"source":"s","event_type":"t","entity_id":"e{n % 3}","event_time":"2026-01-{1 + n % 28:02}T00:00:00Z",'
    f'"payload":{{"n":{n // 30}}},"idempotency_key":"k{n % 30}"}}'
    for n in range(120)
]
"""Lines that are rejected, and keys that come again with another time and content."""


def ingest(store: Store, path: Path, **options: Any) -> IngestReport:
    options = {"workers": 0, **options}
    return ingest_source(store, file_source(str(path)), IngestOptions(Reading(1 << 20), **options), SILENT)


def whole(directory: Path, path: Path) -> Store:
    """A store with the file, ingested in one go."""
    store = open_store(str(directory / f"whole-{path.name}"), create=True)
    ingest(store, path)
    return store


def without_index(url: Path) -> Store:
    """The store after its index was lost and made again from raw alone."""
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (url / name).unlink(missing_ok=True)
    store = open_store(str(url))
    assert rebuild_index(store, SILENT).damaged == ()
    return store


def longer(seconds: float) -> Iterator[float]:
    """Times after which a process is killed that is begun again each time. They grow: what was measured before may be
    less than it takes now to come to its first block."""
    return accumulate(repeat(1.2), mul, initial=seconds)


def started(store: Path, *files: Path, block: int, workers: int, **settings: Any) -> subprocess.Popen[str]:
    """A process that ingests the files."""
    command = [sys.executable, str(ROOT / "tests/support/survival/child.py"), str(store), str(block), str(workers)]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.Popen([*command, *map(str, files)], text=True, env=ENVIRONMENT, **settings)


def pik(*arguments: str, **settings: Any) -> subprocess.Popen[str]:
    """The program itself, as a process."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.Popen([sys.executable, "-m", "pik", *arguments], text=True, env=ENVIRONMENT, **settings)


def written(directory: Path, lines: int, seed: int = 7) -> Path:
    """A file of events, most of them new, some again, some none at all."""
    path = directory / f"events-{lines}-{seed}.jsonl"
    generate(lines, path, seed=seed)
    events = path.read_text().splitlines()
    step = max(1, len(events) // len(EXTRA))
    for number, extra in enumerate(EXTRA):
        events.insert(number * (step + 1), extra)
    path.write_text("\n".join(events) + "\n")
    return path


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 6,000 lines."""
    return written(tmp_path_factory.mktemp("events"), 6000)


@pytest.fixture(scope="session")
def many_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 30,000 lines."""
    return written(tmp_path_factory.mktemp("events"), 30_000)
