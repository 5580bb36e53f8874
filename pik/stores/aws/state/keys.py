"""Keys of the state table that several of its parts know. docs/aws-layout.md lists all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pik.model.run import Task

US = "\x1f"
"""Between the parts of a key. No name holds it, nor any character before it, so that keys sort as their parts do."""

SEALED = "sealed"

RUN = "run"
"""The sort key of a run's own item."""


def run_pk(run_id: str) -> str:
    """The partition of a run: itself, its promotions, its tasks and their states."""
    return f"run/{run_id}"


def sealed(item: Mapping[str, Any]) -> dict[str, Any]:
    """The copy of a definition or promotion that is written with it, so that one which is lost shows."""
    return {**item, "pk": f"{SEALED}/{item['pk']}"}


def task_sk(kind: str, task: Task) -> str:
    """The sort key of a task (`task`) or of its state (`state`)."""
    return f"{kind}/{task.number:08d}"


def time_key(instant: int) -> str:
    """An instant as 20 digits that sort as instants do, those before 1970 included."""
    return f"{instant + 2**63:020d}"


def key_time(text: str) -> int:
    """The instant of a `time_key`."""
    return int(text) - 2**63
