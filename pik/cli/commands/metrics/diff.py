"""`pik diff aggregates`: what the numbers should be, against what they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import FOUND, PARTLY, Commands
from pik.cli.commands.metrics import diff_fields
from pik.cli.commands.replay.run_next import next_command, replay_command
from pik.cli.context import Context
from pik.errors import UsageError, command
from pik.model.run import RunRequest, RunState
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.ports.store import Store

commands = Commands("Compare numbers: with what raw says, or with what a run wrote.")


@commands.add(
    "aggregates",
    examples="""
    # is anything wrong? exit code 1 if so
    pik diff aggregates --from 2026-01-31 --to 2026-02-01

    # one entity; cents and half a percent of revenue do not matter
    pik diff aggregates --entity user-123 --since 7d --tolerance 0.01 --tolerance revenue=0.5%

    # what would promoting this run change?
    pik diff aggregates --run 01J8Z3 --limit 20 --stats
    """,
)
def aggregates(
    cli: Context,
    entity: options.Entities = None,
    metric: options.Metrics = None,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Compare what this run wrote; nothing is recomputed.")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            "--tolerance",
            metavar="[METRIC=]ABS|REL%",
            help="Differences up to this do not count (repeatable; one that covers is enough, in any order).",
        ),
    ] = None,
    changed_only: Annotated[
        bool, typer.Option("--changed-only", help="Only values that are another (~), and !: leave out + and -.")
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Count what was compared, too.")] = False,
    limit: options.Limit = None,
) -> int | None:
    """Recompute from raw and compare with what is current, writing nothing.

    Each row is a difference: ~ another value, + not current yet, - current but without events (lost raw makes such
    rows: `pik verify --full` first), or ! what cannot be computed, and why. --limit only shortens what is shown. Exit
    code 0 if there are no rows, 1 if there are differences, 3 if something cannot be computed, 2 if there is nothing to
    compare.

    Current values are taken as the store has them: only with --entity are their digests checked, and pik verify checks
    all of them.
    """
    from pik.usecases.inspect.events import without_value
    from pik.usecases.metrics.diff import diff_aggregates, diff_run
    from pik.usecases.metrics.tolerance import read_tolerances

    tolerances = read_tolerances(tolerance or ())
    window = options.window_of(from_, to, since)
    chosen = {"metrics": metric or (), "entities": entity or ()}
    store = cli.open_store()
    if run is None:
        diff = diff_aggregates(store, cli.engine(), window, tolerances=tolerances, changed_only=changed_only, **chosen)
        repair: Callable[[], str | None] = partial(_replay, window, entity, metric)
    elif from_ or to or since:
        raise UsageError("--run has its own window", hint="leave --from, --to and --since out")
    else:
        diff = diff_run(store, run, tolerances=tolerances, changed_only=changed_only, **chosen)
        repair = partial(_after_run, store, run)
    shown = diff_fields.Shortened(diff.rows, limit)
    cli.show(diff_fields.differences(diff, shown, repair, stats=stats))
    if diff.basis.without_value:
        cli.note(without_value(store, diff.basis.without_value, diff.effective))
    for missing in diff_fields.not_compared(diff):
        cli.note(missing)
    if shown.failed or diff.unlisted or (diff.run is not None and diff.run.failed):
        return PARTLY
    return FOUND if shown.number else None


def _replay(window: Window, entities: list[str] | None, metrics: list[str] | None) -> str:
    """The command that recomputes what was compared."""
    request = RunRequest(
        start=window.start, end=window.end, entities=tuple(entities or ()), metrics=tuple(metrics or ())
    )
    return replay_command(request)


def _after_run(store: Store, run_id: str) -> str | None:
    """What makes the run's values current: to promote it, or where all of it is out of date, to compute it again."""
    from pik.usecases.replay.runs import promote

    run = store.runs.get(run_id)
    if run.request.include_duplicates:
        return None
    if run.state in (RunState.PLANNED, RunState.RUNNING, RunState.CANCELLED):
        return next_command(run)
    moved = promote(store, run.run_id, 0, "", dry_run=True).counts.moved
    return command("promote", run.run_id) if moved else replay_command(run.request)
