"""`pik diff aggregates`: what the numbers should be, against what they are."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from pik.cli import diff_fields, options
from pik.cli.command import FOUND, Commands
from pik.cli.context import Context
from pik.errors import UsageError
from pik.model.window import Window

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
        bool, typer.Option("--changed-only", help="Only values that are another (~): leave out + and -.")
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Count what was compared, too.")] = False,
    limit: options.Limit = None,
) -> int | None:
    """Recompute from raw and compare with what is current, writing nothing.

    Each row is a difference: ~ another value, + not current yet, - current but without events (lost raw makes such
    rows: `pik verify --full` first). --limit only shortens what is shown. Exit code 1 if there are differences, 0 if
    there are none.
    """
    from pik.usecases.diff import diff_aggregates, diff_run
    from pik.usecases.tolerance import read_tolerances

    tolerances = read_tolerances(tolerance or ())
    window = options.window_of(from_, to, since)
    chosen = {"metrics": metric or (), "entities": entity or ()}
    store = cli.open_store()
    if run is None:
        diff = diff_aggregates(store, cli.engine(), window, tolerances=tolerances, changed_only=changed_only, **chosen)
        repair: str | None = _replay(window, entity, metric)
    elif from_ or to or since:
        raise UsageError("--run has its own window", hint="leave --from, --to and --since out")
    else:
        diff = diff_run(store, run, tolerances=tolerances, changed_only=changed_only, **chosen)
        counted_twice = store.runs.get(run).request.include_duplicates
        repair = None if counted_twice else f"pik promote {run}"
    shown = diff_fields.Shortened(diff.rows, limit)
    cli.show(diff_fields.differences(diff, shown, repair, stats=stats))
    if not diff.stats.compared:
        cli.note(f"nothing was compared: no such events and no such aggregates in {diff.effective}")
    return FOUND if shown.number else None


def _replay(window: Window, entities: list[str] | None, metrics: list[str] | None) -> str:
    """The command that recomputes what was compared."""
    words = ["pik", "replay"]
    for entity in entities or ():
        words += ["--entity", entity]
    if not entities:
        words.append("--all")
    for option, text in (("--from", window.from_text), ("--to", window.to_text)):
        words += [option, text] if text else []
    for metric in metrics or ():
        words += ["--metric", metric]
    return shlex.join(words)
