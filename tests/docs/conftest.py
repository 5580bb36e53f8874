"""Stores for the tests of the documents, made with the real commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pik.cli.demo.shop import write_data
from tests.support.docs.warm import REPOSITORY, program

Run = Callable[..., subprocess.CompletedProcess[str]]

DAY = ("--from", "2026-03-02", "--to", "2026-03-03")

PECULIAR = """\
{"source":"till","event_type":"sale","entity_id":"é","event_time":"2026-03-02T23:59:59.999999999Z","payload":{"n":1e1}}
{"source":"till","event_type":"sale","entity_id":"\U0001f600","event_time":"2026-03-03T01:00:00+01:00","received_time":"2026-03-02T23:59:00Z","payload":{ "b":0.1, "a":123456789012345678.123456 }}
{"source":"till","event_type":"sale","entity_id":"\ue000","event_time":"2026-03-03 01:00:00+01","received_time":"20260303T000001Z","payload":{"n":[9007199254740993,9007199254740993.0,1e400]},"shard":{"n":1.50}}

{"source":"till","event_type":"sale","entity_id":"a","event_time":"2026-03-03T00:00:00Z","idempotency_key":"k\\u00e9\\/","payload":{"a":1,"a":2}}
{"source":"till","event_type":"sale","entity_id":"a","event_time":"2026-03-04T00:00:00Z","idempotency_key":"ké/","payload":{"a":2},"received_time":"2026-03-04T00:00:00.5Z"}
{"source":"till","event_type":"sale","entity_id":"a","event_time":"2026-03-03T00:00:00.000Z","idempotency_key":"ké/","payload":{"a":2.0}}
{"source":"till","event_type":"sale"}
{"source":"till","event_type":"sale","entity_id":"a","event_time":"1969-12-31T23:59:59Z","payload":[[],{},null,"\\u007f\\u0001\\n"]}
not JSON
"""  # noqa: E501 - lines as they come

FOREIGN = '{"at":1772445725,"who":{"id":"customer-17"},"n":12345678901234567890.5}\n'


def run_pik(directory: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command line in the directory."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")}
    return subprocess.run(
        [*program(), *map(str, arguments)],
        cwd=directory,
        env=ours | {"PYTHONPATH": str(REPOSITORY), "PIK_ACTOR": "ana"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def expect(directory: Path, code: int, *arguments: object) -> str:
    """Run a command line that must end with this exit code; what it writes."""
    done = run_pik(directory, *arguments)
    assert done.returncode == code, f"pik {arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def demo_store(directory: Path) -> None:
    """The demo's incident before its repair: Monday's numbers are promoted, Tuesday morning's events have come."""
    write_data(directory)
    expect(directory, 0, "ingest", "monday.jsonl")
    expect(directory, 0, "metrics", "apply", "metrics.toml")
    expect(directory, 0, "replay", "--all", *DAY, "--reason", "numbers of 2 March", "--promote", "--yes")
    expect(directory, 0, "ingest", "tuesday-morning.jsonl")


@pytest.fixture(scope="session")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the demo's incident before its repair. Only to be read; copy it to change it."""
    directory = tmp_path_factory.mktemp("incident")
    demo_store(directory)
    return directory


@pytest.fixture(scope="session")
def varied(tmp_path_factory: pytest.TempPathFactory, incident: Path) -> Path:
    """A directory whose store has everything that the format knows. Only to be read."""
    directory = tmp_path_factory.mktemp("varied")
    for name in ("monday.jsonl", "tuesday-morning.jsonl"):
        expect(directory, 0, "ingest", incident / name)
    (directory / "peculiar.jsonl").write_text(PECULIAR, encoding="utf-8")
    with open(directory / "peculiar.jsonl", "ab") as file:
        file.write(b'{"source":"\xff"}\n')
    expect(directory, 3, "ingest", "peculiar.jsonl")
    (directory / "foreign.jsonl").write_text(FOREIGN, encoding="utf-8")
    mapping = {"source": "'till'", "event_type": "'sale'", "entity_id": "who.id", "event_time": "at", "payload": "@"}
    options = [word for field, found in mapping.items() for word in ("--map", f"{field}={found}")]
    expect(directory, 0, "ingest", "foreign.jsonl", "--time-format", "epoch", *options)
    return directory
