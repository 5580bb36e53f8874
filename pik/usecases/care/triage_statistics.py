"""The statistical checks of a triage: suspects, skew and gaps. Over a window without a beginning all of them look at
the same deliveries, which are loaded once: reading raw takes most of their time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from decimal import Decimal
from types import TracebackType

from pik.errors import Damaged, EngineError, command, number_of
from pik.model.delivery import Filter
from pik.model.duration import format_duration
from pik.model.instant import DAY, MIN_INSTANT, format_instant
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import DeliveryFiles, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Selection
from pik.usecases.care.triage_findings import Finding, Scope, by_source, only_one
from pik.usecases.inspect.suspects import SUSPECT_COLUMNS, SuspectRule, suspects_in, suspects_reach
from pik.usecases.timing.gaps import Question, gaps_columns, gaps_in, learned_window
from pik.usecases.timing.grouping import read_grouping
from pik.usecases.timing.skew import Verdict, skew_columns, skew_in

_RETRY = SuspectRule()
_BY_SOURCE = read_grouping("source", ("source",))
_COLUMNS = {*SUSPECT_COLUMNS, *skew_columns(Filter(ALL_TIME), _BY_SOURCE)}  # gaps need none but these

RULES = {
    "suspects": f"{_RETRY} (statistical)",
    "skew": "times of a source that are off by a constant, as lag --skew finds them (statistical)",
    "gaps": "silences, drops and spikes of a source against earlier days, as gaps finds them (statistical)",
}
"""The checks, with the rule that each follows."""


def search(scope: Scope) -> Iterator[Finding]:
    """Yield what each of the checks finds. One that cannot go on does not stop the others."""
    deliveries = _Deliveries(scope)
    with closing(deliveries):
        for check, look in (("suspects", _suspects), ("skew", _skew), ("gaps", _gaps)):
            try:
                with deliveries:
                    yield from look(scope, deliveries)
            except (Damaged, EngineError) as error:
                scope.failures[check] = error.message


class _Deliveries:
    """The deliveries of the scope, as files and tables, kept from one check to the next if this looks at the same time
    and the first does not fail. A check is made within the context, where what the engine raises is an EngineError."""

    def __init__(self, scope: Scope) -> None:
        self.wanted = Filter(scope.window, scope.entities)
        self._scope, self._stack = scope, ExitStack()
        self._loaded: tuple[DeliveryFiles, Tables] | None = None
        self._window, self._columns = scope.window, frozenset[str]()

    def __enter__(self) -> None:
        """Begin a check."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End a check."""
        if kind is not None:
            self._loaded = None
            self._stack.__exit__(kind, error, traceback)

    def close(self) -> None:
        """Give back the memory and the disk that they take."""
        self._loaded = None
        self._stack.close()

    def loaded(self, store: Store, window: Window, columns: Collection[str]) -> tuple[DeliveryFiles, Tables]:
        """Return those of a window, with these columns and perhaps others. Raises Damaged and EngineError."""
        if self._loaded is None or self._window != window or not self._columns.issuperset(columns):
            self.close()
            # Where the scope has no beginning, each check looks at all of it.
            self._columns = frozenset(_COLUMNS if self.wanted.window.start <= MIN_INSTANT else columns)
            self._window, entities = window, self.wanted.entities
            files = self._stack.enter_context(gather_deliveries(Selection(store, window, entities)))
            tables = self._stack.enter_context(self._scope.engine.tables(files, self._columns, window, entities))
            self._loaded = files, tables
        return self._loaded


def _suspects(scope: Scope, deliveries: _Deliveries) -> Iterator[Finding]:
    store, wanted = scope.readable("suspects"), deliveries.wanted
    files, tables = deliveries.loaded(store, suspects_reach(store, wanted, _RETRY), SUSPECT_COLUMNS)
    found = suspects_in(files, tables, wanted, _RETRY)
    sources = by_source((row.source, row.event_time) for row in found)
    words = ["duplicates", "--class", "suspect", *only_one(sources), *scope.options_of_one]
    for source, one in sources:
        yield Finding(
            "suspects",
            f"1 event from {source} may be a retry with a new time or key"
            if one.events == 1
            else f"{one.events:,} events from {source} may be retries with a new time or key",
            command(*words),
            scope=source,
            since=one.since,
            events=one.events,
        )


def _skew(scope: Scope, deliveries: _Deliveries) -> Iterator[Finding]:
    columns = skew_columns(deliveries.wanted, _BY_SOURCE)
    _, tables = deliveries.loaded(scope.readable("skew"), scope.window, columns)
    report = skew_in(tables, deliveries.wanted, _BY_SOURCE)
    unknown = sum(group.verdict == Verdict.UNKNOWN for group in report.groups)
    scope.notes.update(_unknown("skew", unknown, "too few events or hours"))
    for shift in report.shifts:
        by, zone = format_duration(shift.shift), format_duration(shift.zone) if shift.zone else ""
        until = "" if shift.until is None else f"; the last such event arrived at {format_instant(shift.until)}"
        near = (f", about {zone}" if zone not in ("", by) else "") + (": perhaps a time zone" if zone else "")
        yield Finding(
            "skew",
            f"times from {shift.group} are off by {by}{near}{until}",
            command("lag", "--skew", "--source", shift.group or "", *scope.options_of_one),
            scope=shift.group or "",
            since=shift.since,
            events=shift.events,
        )


def _gaps(scope: Scope, deliveries: _Deliveries) -> Iterator[Finding]:
    question = Question(deliveries.wanted, _BY_SOURCE)
    store = scope.readable("gaps")
    learned = learned_window(store, question)
    _, tables = deliveries.loaded(store, learned or scope.window, gaps_columns(question))
    report = gaps_in(store, tables, question, learned)
    unknown = sum(group.learned_from is None for group in report.groups)
    scope.notes.update(_unknown("gaps", unknown, "too few earlier days to learn from"))
    for silence in report.silences:
        yield _gap(scope, silence.group or "", "silence", silence.start, silence.end, silence.expected, 0)
    for one in report.changes:
        yield _gap(scope, one.group or "", one.kind, one.start, one.end, one.expected, one.events)


def _gap(scope: Scope, source: str, kind: str, start: int, end: int, expected: Decimal | None, events: int) -> Finding:
    usual = "" if expected is None else f", usually {expected}"
    lost = any(start < (segment.day + 1) * DAY and segment.day * DAY < end for segment, _ in scope.unreadable.values())
    perhaps = "; perhaps only because raw of that time cannot be read" if lost else ""
    return Finding(
        "gaps",
        f"{kind} of {source} for {format_duration(end - start)}: {events:,} events{usual}{perhaps}",
        command("gaps", "--source", source, *scope.options_of_one),
        cause=kind,
        scope=source,
        since=start,
        events=events,
    )


def _unknown(check: str, sources: int, why: str) -> dict[str, str]:
    """Return the note of a check that cannot judge some sources."""
    return {check: f"cannot know for {number_of(sources, 'source')}: {why}"} if sources else {}
