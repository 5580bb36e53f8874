"""Making current what a run wrote, and taking that back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from pik.errors import UsageError, command
from pik.model.aggregate import Aggregate
from pik.model.run import PromotionKind, Run, RunKind, RunState
from pik.ports.state import PointerCounts
from pik.ports.store import Store
from pik.rawlog.corrected import concerning
from pik.usecases.replay.wait import resume_command


@dataclass(frozen=True, slots=True)
class Move:
    """A promote or rollback, done or, of a dry run, what it would do. Conflicts are aggregates that others have moved
    since the run wrote its version; they are left as they are. `corrections` are those that may change what counts in
    the run's buckets and were recorded after it had been planned: the promoted values are without them. With
    `superseded`, all of its conflicts are with values that runs computed which were planned later."""

    kind: PromotionKind
    run: Run
    counts: PointerCounts
    dry_run: bool
    corrections: tuple[str, ...] = ()
    superseded: bool = False


def promote(store: Store, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> Move:
    """Make the run's versions current. Raises NotFound; UsageError for a run that has not ended, that was cancelled, or
    that counted duplicates."""
    run = store.runs.get(run_id)
    if run.request.counts_duplicates:
        raise UsageError(
            f"run {run.run_id} counted duplicates, so its values must not become current",
            hint="replay without --assume to promote; to see them: "
            + command("diff", "aggregates", "--run", run.run_id),
        )
    if run.is_active:
        raise UsageError(
            f"run {run.run_id} is {run.state}; only a whole run is promoted",
            hint=f"`{command('runs', 'wait', run.run_id)}` or `{resume_command(run)}`",
        )
    if run.state == RunState.CANCELLED:
        raise UsageError(f"run {run.run_id} was cancelled; only a whole run is promoted", hint="replay again")
    counts = store.promotions.promote(run.run_id, at, reason, actor, dry_run=dry_run)
    unknown = concerning(store, store.corrections.recorded(), run.effective) if run.kind == RunKind.REPLAY else []
    since = tuple(one.correction_id for one in unknown if one.recorded_at > run.corrections_until)
    superseded = counts.conflicts > 0 and _is_superseded(store, run)
    return Move(PromotionKind.PROMOTE, store.runs.get(run.run_id), counts, dry_run, since, superseded)


def _is_superseded(store: Store, run: Run) -> bool:
    """Return whether what is current in the place of the run's versions, but for what it found, is of later replays."""
    window, entities = run.effective, run.request.entities
    for metric, changes in groupby(store.aggregates.changes(run.run_id), key=lambda one: one.written.computed.metric):
        current = iter(store.aggregates.current(metric, window, entities))
        standing = next(current, None)
        for change in changes:
            place = _place(change.written)
            while standing is not None and _place(standing) < place:
                standing = next(current, None)
            if standing is None or _place(standing) != place:
                if change.base is not None:
                    return False  # a rollback has left none
                continue
            is_base = change.base is not None and standing.run_id == change.base.run_id
            if not is_base and (standing.run_id < run.run_id or standing.is_imported):
                return False
    return True


def _place(one: Aggregate) -> tuple[int, str]:
    return one.computed.bucket, one.computed.entity_id


def rollback(store: Store, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> Move:
    """Make current what was so before the run was promoted. Raises NotFound."""
    run = store.runs.get(run_id)
    counts = store.promotions.rollback(run.run_id, at, reason, actor, dry_run=dry_run)
    return Move(PromotionKind.ROLLBACK, store.runs.get(run.run_id), counts, dry_run)
