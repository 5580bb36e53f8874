"""What recording a correction comes to: which deliveries it is about, which values change, and what it overrides."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pik.errors import Busy, UsageError, command
from pik.model.batch import BatchState
from pik.model.correction import Correction, active
from pik.model.criteria import Criteria
from pik.model.ids import new_id
from pik.model.scenario import (
    Assumption,
    CountedConflict,
    CountedDelivery,
    Scenario,
    Without,
    WithoutBatch,
    WithoutSelected,
)
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.index import batch_of
from pik.ports.store import Store, expect_unsealed
from pik.rawlog.correction_lists import PackedList, pack_lists, write_lists
from pik.rawlog.corrections import find_correction, recording
from pik.rawlog.selection import Selection
from pik.runtime.storage import Spool
from pik.usecases.correct.collisions import count_collisions, meeting_events
from pik.usecases.correct.consequences import EarlierHits, PlannedCorrection, planned, related
from pik.usecases.correct.draft import drafted
from pik.usecases.correct.hits import Hits, hits
from pik.usecases.correct.search import known_deliveries
from pik.usecases.correct.touched import around, withdrawal
from pik.usecases.metrics.impact import Impact, impact
from pik.usecases.metrics.scenario import applied, resolved


@dataclass(frozen=True, slots=True)
class Draft:
    """The id under which a correction is to be recorded, and its lists, which are created then (None: it is not to be).
    Its deliveries were looked for in `selection`, where the index knew so many."""

    correction_id: str
    lists: Spool[PackedList] | None
    selection: Selection
    known: int


@dataclass(frozen=True, slots=True)
class CorrectionPlan:
    """Corrections that are to be recorded together, a draft of each, and what they do to the metrics: `assumed` in the
    impact is with them. `until` is the moment until which deliveries are known to them."""

    store: Store
    corrections: tuple[PlannedCorrection, ...]
    drafts: tuple[Draft, ...]
    impact: Impact
    until: int
    known: tuple[str, ...]
    likes: tuple[Correction, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether no value differs."""
        return not any(one.differing or one.failed for one in self.impact.metrics)


def plan_correction(
    store: Store,
    engine: Engine,
    assumptions: Sequence[Assumption],
    *,
    likes: Sequence[Correction] = (),
    dry_run: bool = False,
) -> CorrectionPlan:
    """Plan to record these assumptions, in this order; with `likes`, one for each, what that one recorded is left out.
    Nothing is written. One of a `dry_run` cannot be recorded. Raises as `hits` and `applied` do, UsageError for a copy,
    a running batch, or one that is withdrawn."""
    refuse_copy(store)
    log = store.corrections.recorded()
    scenario = resolved(store, Scenario(assumptions=tuple(assumptions)))
    _expect_independent(scenario.assumptions)
    until, found, windows = time.time_ns(), list[PlannedCorrection](), list[Window]()
    earlier, drafts = EarlierHits(), list[Draft]()
    for number, assumption in enumerate(scenario.assumptions):
        like = likes[number] if likes else None
        if isinstance(assumption, WithoutBatch):
            _expect_withdrawable(store, assumption, active(log))
            windows.append(withdrawal(store, assumption.batch_id))
        with hits(store, engine, assumption, until, unlike=like, listed=related(store, assumption)) as hit:
            one = planned(store, assumption, hit, until, earlier)
            drafts.append(_draft(hit, is_listed=not dry_run or bool(likes)))
            meeting = meeting_events(hit.tables) if hit.kind.moves else None
            if len(drafts) < len(scenario.assumptions):
                earlier.add(hit)
            windows += [hit.window, *_moved_to(hit)]
        found.append(replace(one, collisions=0 if meeting is None else count_collisions(store, engine, meeting)))
    window = around(windows)
    if not likes:
        with applied(store, engine, scenario, window) as overrides:
            effect = impact(store, engine, window, overrides)
    else:  # an assumption would be about what those list, too
        new = [(draft.correction_id, one.kind, _lists_of(draft)) for draft, one in zip(drafts, found, strict=True)]
        with drafted(store, new) as (inner, overrides):
            effect = impact(inner, engine, window, overrides)
    known = tuple(one.correction_id for one in log)
    return CorrectionPlan(store, tuple(found), tuple(drafts), effect, until, known, tuple(likes))


def _draft(hit: Hits, *, is_listed: bool) -> Draft:
    correction_id = new_id()
    lists = Spool(PackedList, pack_lists(correction_id, hit.lines())) if is_listed else None
    return Draft(correction_id, lists, hit.selection, hit.known)


def _lists_of(draft: Draft) -> Spool[PackedList]:
    assert draft.lists is not None, "the plan of a dry run is not recorded"
    return draft.lists


def repeated(store: Store, prefix: str) -> tuple[str, Correction]:
    """Return the assumption that the correction with this id, or beginning of one, recorded, and that correction.
    Raises NotFound, UsageError for one that has no selection."""
    before = find_correction(store, prefix)
    if not before.has_selection:
        raise UsageError(
            f"correction {before.correction_id} ({before.kind}) has no selection that could hit more",
            hint="--assume, as `pik diff aggregates` takes it",
        )
    return before.statement, before


def record_correction(plan: CorrectionPlan, typed: Sequence[str], reason: str, actor: str) -> list[Correction]:
    """Record what was planned, and return the corrections. Raises Busy where another one was recorded meanwhile, or
    deliveries with a time of recording before the plan's; UsageError where they are recorded already, StoreError."""
    store = plan.store
    with recording(store) as log:
        if not plan.likes:
            refuse_repeated(store, [one.assumption for one in plan.corrections], reason)
        if tuple(one.correction_id for one in log.recorded) != plan.known:
            raise Busy("another correction was recorded meanwhile, so the plan may be wrong", hint="look at it again")
        if any(known_deliveries(draft.selection) != draft.known for draft in plan.drafts):
            raise Busy("deliveries were recorded meanwhile, so the plan may be wrong", hint="look at it again")
        return log.record(
            [
                Correction(
                    format=store.format_version,
                    correction_id=draft.correction_id,
                    kind=one.kind,
                    recorded_at=0,
                    actor=actor,
                    reason=reason,
                    statement=str(one.assumption),
                    typed=text,
                    like=plan.likes[number].correction_id if plan.likes else "",
                    selected_until=plan.until,
                    batch_id=one.assumption.batch_id if isinstance(one.assumption, WithoutBatch) else "",
                    events=one.events,
                    lists=write_lists(store.raw, _lists_of(draft)),
                )
                for number, (one, draft, text) in enumerate(zip(plan.corrections, plan.drafts, typed, strict=True))
            ]
        )


def refuse_repeated(store: Store, assumptions: Sequence[Assumption], reason: str) -> None:
    """Raise UsageError if one of these assumptions holds already, recorded for the same reason: the command that did so
    was interrupted, or is given again, maybe by another actor (AWS may give each session of a role another ARN), and a
    time would be moved twice."""
    holding = {one.statement: one for one in active(store.corrections.recorded()) if one.reason == reason}
    for assumption in resolved(store, Scenario(assumptions=tuple(assumptions))).assumptions if holding else ():
        one = holding.get(str(assumption))
        # Of several events the statement has only the number; to take the same ones out again changes nothing.
        if one is not None and not (isinstance(assumption, Without) and len(assumption.event_ids) > 1):
            raise UsageError(
                f"--assume {one.statement}: recorded already for this reason, by correction {one.correction_id}",
                hint=f"for what has come since: {command('correct', '--like', one.correction_id)}"
                if one.has_selection
                else command("corrections", "show", one.correction_id),
            )


def refuse_copy(store: Store) -> None:
    """Raise UsageError for a copy of another store, which must not be corrected, StoreError for an evidence bundle."""
    expect_unsealed(store)
    if store.copy is not None:
        raise UsageError(
            f"{store.url} is a copy of {store.copy.source}; a correction belongs to that store",
            hint=f"the same command with --store {store.copy.source}",
        )


def _expect_independent(assumptions: Sequence[Assumption]) -> None:
    """Raise UsageError where what an assumption selects depends on which delivery counts by another one: both would be
    recorded for what they hit without the other."""
    for number, one in enumerate(assumptions):
        others: list[Assumption] = []
        if isinstance(one, WithoutSelected):
            others = [
                other for other in assumptions if isinstance(other, WithoutBatch | CountedDelivery | CountedConflict)
            ]
        elif isinstance(one, CountedConflict):
            others = [other for other in assumptions if isinstance(other, WithoutBatch)]
            if one.criteria != Criteria():
                others += [each for each in assumptions[:number] if isinstance(each, CountedDelivery | CountedConflict)]
        if others:
            raise UsageError(
                f"--assume {one}: what it selects depends on {others[0]}",
                hint=f"record them one after the other, first {command('correct', '--assume', str(others[0]))}",
            )


def _expect_withdrawable(store: Store, assumption: WithoutBatch, corrections: Sequence[Correction]) -> None:
    batch = batch_of(store.index, assumption.batch_id)
    if batch.state == BatchState.RUNNING:
        raise UsageError(f"batch {batch.batch_id} is still being written", hint=command("batches", batch.batch_id))
    by = next((one for one in corrections if one.batch_id == batch.batch_id), None)
    if by is not None:
        raise UsageError(
            f"batch {batch.batch_id} is withdrawn already, by correction {by.correction_id}",
            hint=command("corrections", "show", by.correction_id),
        )


def _moved_to(hit: Hits) -> list[Window]:
    """Return the window of the times to which deliveries move, if any do."""
    [[first, last]] = hit.tables.rows("SELECT min(time_ns), max(time_ns) FROM hit")
    return [] if first is None else [Window(first, last + 1)]
