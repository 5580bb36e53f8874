"""The report of an incident: what the other chapters find in a window, each part bounded, and a part that cannot be
known with the reason in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Generic, TypeVar

import msgspec

from pik.errors import Damaged, EngineError, Invalid, NothingSelected, PikError, UsageError
from pik.model.delivery import Filter
from pik.model.instant import MAX_INSTANT
from pik.model.metric import Metric
from pik.model.run import Run
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.selection import Selection
from pik.runtime import SILENT, Progress
from pik.usecases.care.triage import Triage, triage
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Problem, VerifyReport
from pik.usecases.correct.standing import Standing, list_corrections
from pik.usecases.inspect.duplicates import DuplicateFilter, GroupRow, GroupTotals, count_duplicates
from pik.usecases.metrics.definitions import computed, known
from pik.usecases.metrics.history import HistoryEntry, Scope, history, scope_of
from pik.usecases.metrics.zones import programs
from pik.usecases.report.arrivals import Arrivals, read_arrivals
from pik.usecases.report.kept import ROWS, Kept, kept, kept_listing
from pik.usecases.report.numbers import NonAdditiveMetrics, Shown, Sums, compare_sums, compare_values, shown_metrics

Value = TypeVar("Value", covariant=True)


@dataclass(frozen=True, slots=True)
class ReportPart(Generic[Value]):
    """A part of a report. Without a `value` there is `nothing` to show, for that reason, or it could not be looked at,
    because of the `failure`."""

    value: Value | None
    failure: str = ""
    nothing: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is about: a window, entities and metrics (none named: all)."""

    window: Window
    entities: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """All parts of a report. `known_until` is the last recording among the deliveries of the window's days
    (nanoseconds; 0: there is none), `programs` are those that computed it, `definitions` the latest of each metric that
    it is about, `shown` the metrics whose numbers are shown."""

    question: Question
    known_until: int
    store_format: int
    programs: tuple[str, ...]
    definitions: tuple[Metric, ...]
    shown: Shown
    triage: Triage
    arrivals: ReportPart[Arrivals]
    sums: ReportPart[Sums]
    values: ReportPart[NonAdditiveMetrics]
    duplicates: ReportPart[Kept[GroupRow, GroupTotals]]
    history: ReportPart[Kept[HistoryEntry, Scope]]
    corrections: ReportPart[Kept[Standing, None]]
    runs: ReportPart[Kept[Run, None]]
    verify: ReportPart[Kept[Problem, VerifyReport]]

    @property
    def parts(self) -> tuple[ReportPart[object], ...]:
        """All parts but the triage, which notes with each check what it could not look at."""
        return (
            *(self.arrivals, self.sums, self.values, self.duplicates),
            *(self.history, self.corrections, self.runs, self.verify),
        )

    @property
    def is_complete(self) -> bool:
        """Whether everything could be looked at."""
        return not any(part.failure for part in self.parts) and not any(one.failure for one in self.triage.checks)

    @property
    def found(self) -> bool:
        """Whether anything is wrong."""
        damage = self.verify.value.summary.damage if self.verify.value is not None else 0
        return bool(self.triage.findings or damage)


def report(store: Store, engine: Engine, asked: Question, progress: Progress = SILENT) -> Report:
    """Look at all of it. Raises NothingSelected where there is nothing in the window, or for an unknown metric, NotHeld
    where its raw has expired or was not pulled, and StoreError where the store cannot be read."""
    window, entities = asked.window, asked.entities
    shown = shown_metrics(store, engine, asked.metrics, entities)
    found = triage(store, engine, window, entities, (), progress)
    wanted = Filter(window, entities)
    definitions = known(store.metrics, asked.metrics) if asked.metrics else computed(store.metrics)
    none = "the report has no metric"
    return Report(
        *(asked, Selection(store, window, entities).known_until, store.format_version),
        tuple(programs(definitions, engine.version)),
        tuple(definitions),
        shown,
        found,
        arrivals=_part(lambda: read_arrivals(store, engine, wanted, shown.all)),
        sums=_part(lambda: compare_sums(store, engine, window, shown.sums, entities))
        if shown.sums
        else ReportPart(None, nothing="no metric of the report adds up" if shown.all else none),
        values=_part(lambda: compare_values(store, engine, window, shown.others, entities, ROWS))
        if shown.others
        else ReportPart(None, nothing="every metric of the report adds up" if shown.all else none),
        duplicates=_part(lambda: _duplicates(store, wanted, progress)),
        history=_part(lambda: _history(store, asked)),
        corrections=_part(lambda: kept(list_corrections(store), None)),
        runs=_part(lambda: kept(_runs(store, asked), None)),
        verify=_part(lambda: kept_listing(verify(store, engine, window, progress))),
    )


def _part(look: Callable[[], Value]) -> ReportPart[Value]:
    """Return what there is, or why there is nothing or nothing is known."""
    try:
        return ReportPart(look())
    except NothingSelected as error:
        return ReportPart(None, nothing=error.message)
    except (Damaged, EngineError, Invalid, UsageError) as error:
        return ReportPart(None, failure=_with_hint(error))


def _with_hint(error: PikError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _duplicates(store: Store, wanted: Filter, progress: Progress) -> Kept[GroupRow, GroupTotals]:
    return kept_listing(count_duplicates(store, DuplicateFilter(wanted), "source", progress=progress))


def _history(store: Store, asked: Question) -> Kept[HistoryEntry, Scope]:
    """Return what happened since the window began, newest first. What became of a run is counted for each entry that is
    read, so the others are not counted."""
    scope = scope_of(store, history_window(asked.window), only(asked.metrics), only(asked.entities))
    if scope.unread is not None:
        raise Damaged(scope.unread)
    each = history(store, scope)
    first = tuple(islice(each, ROWS))
    return Kept(first, 0 if next(each, None) is None else None, scope)


def history_window(window: Window) -> Window:
    """Return the time in which what happened to a window's numbers did: since it began."""
    return Window(window.start, MAX_INSTANT + 1)


def only(names: Sequence[str]) -> str | None:
    """Return the name where there is just one: history can be limited to one."""
    return names[0] if len(names) == 1 else None


def _runs(store: Store, asked: Question) -> Iterator[Run]:
    """Yield the runs and imports that concern the window, the entities and the metrics, newest first."""
    for run in store.runs.newest_first():
        effective = run.effective
        is_near = effective.start < asked.window.end and effective.end > asked.window.start
        pairs = ((asked.entities, run.request.entities), (asked.metrics, run.request.metrics))
        if is_near and all(not some or not others or set(some) & set(others) for some, others in pairs):
            yield run


def definition_digest(metric: Metric) -> str:
    """Return the SHA-256 of a definition, of what it computes: its name and description do not matter."""
    plain = msgspec.structs.replace(metric.definition, name="", description="")
    return sha256(msgspec.json.encode(plain)).hexdigest()


def last_recording(store: Store) -> int:
    """Return when the last delivery of the store was recorded (nanoseconds); 0 for an empty store."""
    return Selection(store, Window()).known_until
