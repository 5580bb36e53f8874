"""A store with what makes numbers hard, made by the command line, and the same store opened from Python."""

from __future__ import annotations

import pytest

from tests.cli.conftest import _first_made, once, pik  # noqa: F401 - fixtures

EXACT = "123456789012345678.123456789012345678"
METRICS = """
[[metric]]
name = "revenue"
where = "event_type = 'paid'"
value = "sum(CAST(payload->>'$.v' AS DECIMAL(38, 18)))"
timezone = "Europe/Berlin"
bucket = "1d"
"""


def line(minute, entity, value, hour=0, *, key=None, received=None):
    more = f', "idempotency_key": "{key}"' if key else ""
    more += f', "received_time": "{received}"' if received else ""
    time = f"2026-01-01T{hour:02}:{minute:02}:00.123456789Z"
    return (
        f'{{"source": "web", "event_type": "paid", "entity_id": "{entity}", "event_time": "{time}"{more},'
        f' "payload": {{"v": {value}, "n": {minute}}}}}\n'
    )


def build(run, directory):
    """Ingest, compute and promote; then a late event, a duplicate and a conflict arrive."""
    (directory / "metrics.toml").write_text(METRICS)
    first = line(1, "a", "1.5", received="2026-01-01T00:03:00Z") + line(2, "a", "2", key="k1") + line(3, "b", EXACT)
    (directory / "events.jsonl").write_text(first + line(4, "b", "0", received="2026-01-01T00:03:59Z"))
    (directory / "late.jsonl").write_text(line(1, "a", "1.5") + line(2, "a", "3", key="k1") + line(5, "a", "0.25"))
    for arguments in (
        ("ingest", "events.jsonl"),
        ("metrics", "apply", "metrics.toml"),
        ("replay", "--all", "--reason", "first", "--promote", "--yes"),
        ("ingest", "late.jsonl"),
    ):
        assert run(*arguments).code == 0, arguments


@pytest.fixture
def shop(pik, once, tmp_path):  # noqa: F811
    """The command line, in a directory with that store."""
    once(lambda: build(pik, tmp_path))
    return pik
