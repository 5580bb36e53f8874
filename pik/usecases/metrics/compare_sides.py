"""A comparison of two sides, whichever they are: current, as of a time, recomputed, a run, a file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from pik.model.scenario import PLAIN, Scenario
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.fleet import Fleet
from pik.ports.store import Store
from pik.runtime import SILENT, Progress
from pik.usecases.metrics.causes import with_causes
from pik.usecases.metrics.diff import Diff, diff_aggregates
from pik.usecases.metrics.diff_recorded import diff_recorded, run_window
from pik.usecases.metrics.file_numbers import FileRequest, file_numbers
from pik.usecases.metrics.sides import LEFT, RIGHT, RecordedSide, Side, SideKind
from pik.usecases.metrics.tolerance import Tolerance
from pik.usecases.metrics.totals import DiffTotals


@dataclass(frozen=True, slots=True)
class Comparing:
    """What is compared, and how. `request` has the left side, where that is a file; with `explains` each difference is
    split by cause, and `totals` are known when the rows have been read."""

    left: Side = LEFT
    right: Side = RIGHT
    request: FileRequest | None = None
    scenario: Scenario = PLAIN
    metrics: Sequence[str] = ()
    entities: Sequence[str] = ()
    tolerances: Sequence[Tolerance] = ()
    changed_only: bool = False
    explains: bool = False
    totals: DiffTotals | None = None


def compare_sides(
    stack: ExitStack,
    store: Store,
    engine: Engine,
    asked: Comparing,
    window: Window | None,
    fleet: Fleet | None = None,
    progress: Progress = SILENT,
) -> Diff:
    """Return the differences, whose rows may be read until the stack is closed; without a window, those of the run that
    is one of the sides. A `fleet` recomputes and explains them, if there is one. Raises as `diff_aggregates`,
    `diff_recorded` and `file_numbers` do."""
    chosen: dict[str, Any] = {"metrics": asked.metrics, "entities": asked.entities}
    compared: dict[str, Any] = {"tolerances": asked.tolerances, "changed_only": asked.changed_only}
    if asked.totals is not None:
        compared["totals"] = asked.totals
    after = None if asked.right.kind == SideKind.RECOMPUTED else RecordedSide(store, asked.right)
    before = RecordedSide(store, asked.left) if asked.request is None else None
    within = window or run_window(before, after) or Window()
    file = None
    if asked.request is not None:
        numbers = file_numbers(store, engine, asked.request, within, scenario=asked.scenario, **chosen)
        file = stack.enter_context(numbers)
    if after is not None:
        found = diff_recorded(store, file or before or RecordedSide(store, LEFT), after, window, **chosen, **compared)
    else:
        recorded = None if asked.left == LEFT else before
        if recorded is not None and recorded.run is not None:
            chosen["entities"] = chosen["entities"] or recorded.run.request.entities
        compared |= {"scenario": asked.scenario, "file": file, "left": recorded, "fleet": fleet, "progress": progress}
        found = diff_aggregates(store, engine, within, **chosen, **compared)
    if not asked.explains:
        return found
    return with_causes(store, engine, found, asked.metrics, chosen["entities"], asked.totals, fleet)
