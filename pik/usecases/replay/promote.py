"""Making what a run wrote current, and going back."""

from __future__ import annotations

from dataclasses import dataclass

from pik.errors import UsageError, command
from pik.model.run import CANCELLED, PLANNED, RUNNING, Run
from pik.ports.state import Promoted
from pik.ports.store import Store

PROMOTE, ROLLBACK = "promote", "rollback"


@dataclass(frozen=True, slots=True)
class Move:
    """A promote or rollback (`kind`), done or, of a dry run, what it would do. Conflicts are aggregates that somebody
    else has moved since the run wrote its version; they are left as they are."""

    kind: str
    run: Run
    counts: Promoted
    dry_run: bool


def promote(store: Store, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Move:
    """Make the run's versions current. Raises NotFound; UsageError for a run that has not ended, that was cancelled, or
    that counted duplicates."""
    run = store.runs.get(run_id)
    if run.request.include_duplicates:
        raise UsageError(
            f"run {run.run_id} counted duplicates, so its values are not to become current",
            hint="replay without --include-duplicates to promote; to see them: "
            + command("diff", "aggregates", "--run", run.run_id),
        )
    if run.state in (PLANNED, RUNNING):
        raise UsageError(
            f"run {run.run_id} is {run.state}; only a whole run is promoted",
            hint=" or ".join(f"`{command('runs', verb, run.run_id)}`" for verb in ("wait", "resume")),
        )
    if run.state == CANCELLED:
        raise UsageError(f"run {run.run_id} was cancelled; only a whole run is promoted", hint="replay again")
    counts = store.aggregates.promote(run.run_id, at, reason, dry_run=dry_run)
    return Move(PROMOTE, store.runs.get(run.run_id), counts, dry_run)


def rollback(store: Store, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Move:
    """Make current what was so before the run was promoted. Raises NotFound."""
    run = store.runs.get(run_id)
    counts = store.aggregates.rollback(run.run_id, at, reason, dry_run=dry_run)
    return Move(ROLLBACK, store.runs.get(run.run_id), counts, dry_run)
