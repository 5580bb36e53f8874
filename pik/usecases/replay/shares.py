"""Buckets with too much raw for one task: a group of tasks computes partial values, each of its share of the segments,
and one of them merges these.

A task keeps what its share comes to, once, and then looks which others have: so the last one sees all of them. The
first task that does remains the merger, so that what the group writes is counted once. No task waits for another,
and one that comes twice, is killed or redriven goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path

from pik.errors import NotFound
from pik.model.ids import creation_time
from pik.model.instant import DAY
from pik.model.metric import Metric
from pik.model.run import Task
from pik.ports.engine import Engine
from pik.ports.state import PARTIALS_KEPT
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Selection
from pik.runtime.storage import scratch
from pik.usecases.metrics.computation import ComputedStretch


def merged(
    selection: Selection, engine: Engine, metrics: Sequence[Metric], task: Task
) -> Generator[ComputedStretch, None, None]:
    """Keep what the task's share of the selection comes to. If the task is the one that merges, yield what all shares
    come to, valid until the generator ends. Raises Damaged, EngineError, and NotFound for a run that is too old."""
    store, run_id, definitions = selection.store, task.run_id, [metric.definition for metric in metrics]
    _expect_kept(run_id)
    first = task.number - task.share.number
    group = range(first, first + task.share.count)
    with scratch() as directory:
        if task.number not in store.partials.kept(run_id):
            target = directory / "share.parquet"
            with gather(selection.sharing(task.share)) as raw:
                engine.partial(raw.inputs, definitions, selection.window, target, selection.entities)
            store.partials.keep(run_id, task.number, target.read_bytes())
            target.unlink()
        is_last = store.partials.kept(run_id).issuperset(group)
        if is_last and store.partials.merger(run_id, first, task.number) == task.number:
            files = [_file(store, run_id, number, directory) for number in group]
            with engine.merge(files, definitions) as computation:
                yield ComputedStretch(selection.window, computation, task.known_until)


def _file(store: Store, run_id: str, number: int, directory: Path) -> Path:
    path = directory / f"{number}.parquet"
    store.partials.read(run_id, number, path)
    return path


def _expect_kept(run_id: str) -> None:
    """Raise NotFound for a run so old that partial values of its tasks may be gone: the others would wait for them."""
    if time.time_ns() - creation_time(run_id) > (PARTIALS_KEPT - 1) * DAY:
        raise NotFound(
            f"partial values of run {run_id} may be gone: stores keep them for {PARTIALS_KEPT} days",
            hint="plan it again: pik replay",
        )
