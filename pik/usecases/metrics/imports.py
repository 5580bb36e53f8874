"""Importing numbers of a file as current values: a run that writes them and promotes them, and that can be rolled back.

What such values count is not known. Only those are written that differ from what is current, so that the same file
imported again changes nothing. An interrupted import has made none of its values current, or is gone on with by the
same request.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from msgspec import structs

from pik.errors import StoreError, UsageError, command
from pik.inputs.advice import STANDARD_INPUT
from pik.model.aggregate import Computed
from pik.model.ids import new_id
from pik.model.metric import Metric
from pik.model.run import ImportedFile, Run, RunRequest, RunState, Task, TaskState
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.state import PointerCounts
from pik.ports.store import Store
from pik.usecases.metrics.computation import compare, sound
from pik.usecases.metrics.definitions import pin
from pik.usecases.metrics.file_numbers import FileNumbers, FileRequest, file_numbers
from pik.usecases.metrics.zones import programs


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import would write: numbers without a current value (`new`), and those with another one (`changed`). The
    `same` ones stay as they are. `run` is stored already if it was interrupted (`resumed`)."""

    run: Run
    metric: Metric
    numbers: FileNumbers
    new: int
    changed: int
    same: int
    resumed: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.new or self.changed or self.resumed)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """An import that is done: its run, and what of it became current."""

    run: Run
    moved: PointerCounts


@contextmanager
def planned_import(
    store: Store,
    engine: Engine,
    file: FileRequest,
    metric: str,
    window: Window,
    entities: Sequence[str] = (),
    *,
    created_at: int,
    reason: str = "",
    actor: str = "",
) -> Iterator[ImportPlan]:
    """Read the numbers of one metric, compare them with what is current, and provide the plan; nothing is written.

    Raises as `file_numbers` does, UsageError for NAME@VERSION, Damaged for a current value of a named entity that is
    not as it was written.
    """
    if "@" in metric:
        name = metric.partition("@")[0]
        raise UsageError(f"--metric {metric}: numbers are imported for the latest definition", hint=f"--metric {name}")
    with file_numbers(store, engine, file, window, metrics=[metric], entities=entities) as numbers:
        [definition] = numbers.metrics
        named = tuple(sorted(set(entities)))
        request = RunRequest(
            start=window.start,
            end=window.end,
            entities=named,
            metrics=(metric,),
            reason=reason,
            file=_file(numbers),
        )
        run = store.runs.unfinished(request)
        resumed = run is not None
        if run is None:
            extent = numbers.extent
            run = Run(
                run_id=new_id(),
                request=request,
                actor=actor,
                state=RunState.PLANNED,
                created_at=created_at,
                finished_at=None,
                effective_start=extent.first,
                effective_end=definition.buckets.end_of(extent.last),
                events_matched=None,
                buckets=None,
                tasks=1,
            )
        counts = Counter(what for what, _ in _compared(store, numbers, definition, named))
        yield ImportPlan(run, definition, numbers, counts["new"], counts["changed"], counts["same"], resumed=resumed)


def import_words(request: RunRequest) -> list[str]:
    """Return the words of the command that imports the same numbers again."""
    file, window = request.file, request.window
    assert file is not None
    [metric] = request.metrics
    words = ["aggregates", "import", "-" if file.name == STANDARD_INPUT else file.name, "--metric", metric]
    key = {"bucket": file.bucket, "entity": file.entity}
    words += ["--key", ",".join(f"{name}={column}" for name, column in key.items() if column)]
    words += [] if file.metric else ["--value", f"{metric}={file.value}"]
    options = [*(("--entity", one) for one in request.entities), ("--from", window.from_text), ("--to", window.to_text)]
    for option, text in [*options, ("--reason", request.reason)]:
        words += [option, text] if text else []
    return words


def _file(numbers: FileNumbers) -> ImportedFile:
    columns = numbers.columns
    [value] = columns.values.values()
    return ImportedFile(
        name=numbers.name,
        digest=numbers.digest,
        bucket=columns.bucket,
        entity=columns.entity,
        value=value,
        metric=columns.metric,
    )


def _compared(
    store: Store, numbers: FileNumbers, metric: Metric, entities: Sequence[str]
) -> Iterator[tuple[str, Computed]]:
    """Yield each number of the file, and how it compares with the current value: new, changed, same."""
    window = Window(numbers.extent.first, numbers.extent.last + 1)
    current = sound(store.aggregates.current(metric.name, window, entities))
    found = (one.computed for one in numbers.current(metric.name, window))
    for before, number in compare(current, found):
        if number is not None:
            value = None if before is None else before.computed.value
            yield "new" if value is None else "same" if value == number.value else "changed", number


def import_numbers(store: Store, plan: ImportPlan, at: int) -> ImportReport:
    """Write the numbers that differ from what is current, and make them current.

    The run stays RUNNING until that is done. Raises Busy while another process does it, StoreError where the run was
    cancelled meanwhile.
    """
    run, request = plan.run, plan.run.request
    task = Task(
        run_id=run.run_id,
        number=0,
        metrics=(pin(plan.metric),),
        start=run.effective_start,
        end=run.effective_end,
        entities=request.entities,
    )
    if not plan.resumed:
        store.runs.create(run, [task])
    with store.runs.driving(run.run_id):
        store.runs.set_state(run.run_id, RunState.RUNNING)
        store.aggregates.write(
            task,
            _versions(store, plan),
            versions={plan.metric.name: plan.metric.version},
            known_until=0,
            reason=request.reason,
            actor=run.actor,
            computed_by=programs([plan.metric]),
        )
        store.runs.mark(task, TaskState.DONE)
        _expect_not_cancelled(store, run)
        moved = store.promotions.promote(run.run_id, at, request.reason, run.actor)
        store.runs.set_state(run.run_id, RunState.COMPLETED, time.time_ns())
    return ImportReport(store.runs.get(run.run_id), moved)


def _versions(store: Store, plan: ImportPlan) -> Iterator[Computed]:
    digest = plan.numbers.digest
    for what, number in _compared(store, plan.numbers, plan.metric, plan.run.request.entities):
        if what != "same":
            yield structs.replace(number, input_ids=digest[:32], input_contents=digest[32:])


def _expect_not_cancelled(store: Store, run: Run) -> None:
    if store.runs.get(run.run_id).state == RunState.CANCELLED:
        raise StoreError(
            f"run {run.run_id} was cancelled, and none of its values became current",
            hint=command("runs", "show", run.run_id),
        )
