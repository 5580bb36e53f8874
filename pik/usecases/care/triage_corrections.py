"""The check of a triage that looks for what came since a correction, and that its selection would hit too; and whether
a correction came since a value was computed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pik.errors import NothingSelected, UsageError, command, number_of
from pik.model.assumption_text import read_assumption
from pik.model.calendar import Buckets
from pik.model.correction import Correction, active
from pik.model.scenario import Assumption, CountedConflict, LocalTime, Shift, WithoutSelected, WithoutSuspects
from pik.model.window import Window
from pik.ports.store import Store
from pik.rawlog.corrected import concerning
from pik.rawlog.selection import Selection
from pik.usecases.care.triage_findings import Finding, Scope
from pik.usecases.correct.hits import hits
from pik.usecases.metrics.winners import Winners

CHECK = "uncorrected"

RULE = "deliveries that came after a correction that holds, and that its selection hits as well"


class LastCorrections:
    """Tells whether a correction was recorded since a value was computed that may change what counts in its bucket: by
    it, a delivery that was recorded later may count, of an event that the value knows."""

    def __init__(self, store: Store) -> None:
        self._store, self._winners = store, Winners(store)
        self._last: dict[Window, int] = {}

    def since(self, buckets: Buckets, bucket: int, run_id: str) -> bool:
        """Return whether there is one since the run was planned."""
        window = buckets.widened(Window(bucket, bucket + 1))
        if window not in self._last:
            log = concerning(self._store, self._store.corrections.recorded(), window)
            self._last[window] = max((one.recorded_at for one in log), default=0)
        return self._last[window] > self._winners.corrections_known_to(run_id)


def uncorrected(scope: Scope) -> Iterator[Finding]:
    """Yield the corrections whose selection hits deliveries that came since. Of several of the same statement, as
    `--like` makes them, only the last one is asked, a revoked one too: that what it lists is right as it is was decided
    then. Nothing is read where nothing was recorded since."""
    if scope.store.copy is not None:
        return
    last = _last(scope.store.corrections.recorded())
    if not last:
        return
    needed = Selection(scope.store, scope.window, scope.entities).needed()
    recorded_at = max((one.segment.recorded_at for one in needed), default=0)
    for correction in last.values():
        if recorded_at > correction.selected_until:
            yield from _of_correction(scope, correction)


def _last(log: Sequence[Correction]) -> dict[str, Correction]:
    """Return by statement the last correction that holds, or a later one like it, though it was revoked."""
    holding, last = active(log), dict[str, Correction]()
    for one in log:
        if one.has_selection and (one in holding or (one.like and one.statement in last)):
            last[one.statement] = one
    return last


def _of_correction(scope: Scope, correction: Correction) -> Iterator[Finding]:
    deliveries = events = 0
    since: int | None = None
    problem, store = "", scope.readable(CHECK)
    for assumption in _within(scope, correction):
        try:
            with hits(store, scope.engine, assumption, time.time_ns(), unlike=correction) as hit:
                deliveries, events = deliveries + hit.deliveries, events + hit.events
                since = hit.window.start if since is None else min(since, hit.window.start)
        except NothingSelected:
            pass
        except UsageError as error:  # such as local times that came twice, which the selection did not meet before
            problem = error.message
    if deliveries or problem:
        came = f"{number_of(deliveries, 'delivery')} came after correction {correction.correction_id}"
        what = f"{came}, which would have hit them"
        if problem:
            what = f"what came after correction {correction.correction_id} cannot be corrected like that: {problem}"
        yield Finding(
            CHECK,
            f"{what}: {correction.statement} ({correction.reason})",
            command("correct", "--like", correction.correction_id, "--reason", correction.reason, "--dry-run"),
            cause=correction.kind,
            scope=correction.correction_id,
            since=since,
            events=None if problem else events,
            reason=correction.reason,
        )


def _within(scope: Scope, correction: Correction) -> Iterator[Assumption]:
    """Yield what the correction records, for the window and for each of the entities."""
    recorded = read_assumption(correction.statement, lambda path: (path,))
    assert isinstance(recorded, WithoutSelected | WithoutSuspects | CountedConflict | Shift | LocalTime)
    criteria = recorded.criteria
    start, end = max(criteria.window.start, scope.window.start), min(criteria.window.end, scope.window.end)
    if start >= end:
        return
    for entity in scope.entities or (criteria.entity,):
        if criteria.entity in (None, entity):
            yield replace(recorded, criteria=replace(criteria, window=Window(start, end), entity=entity))
