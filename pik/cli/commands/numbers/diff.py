"""`pik diff aggregates`: what the numbers should be, against what they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

from msgspec import structs

from pik.cli import options
from pik.cli.command import FOUND, PARTLY, CommandGroup
from pik.cli.commands.numbers.aggregates import TOTAL_COLUMNS
from pik.cli.commands.numbers.assumed import for_good, not_recorded
from pik.cli.commands.numbers.diff_rows import (
    DIFFERENCES,
    REMEDIES,
    TOTALS,
    ShortenedRows,
    compared_runs,
    file_notes,
    not_compared,
    side_labels,
)
from pik.cli.commands.numbers.sides import (
    AgainstFile,
    Key,
    LeftSide,
    RightSide,
    RunSide,
    Value,
    recent_side,
    scenario_of,
    uncertain,
)
from pik.cli.commands.repair.runs import WHOLE, next_command, replay_command
from pik.cli.context import Context
from pik.cli.options import option
from pik.errors import UsageError, command
from pik.model.run import RunRequest, RunState
from pik.model.window import Window
from pik.ports.fleet import LOCAL
from pik.runtime import exhaust

if TYPE_CHECKING:
    from pik.ports.store import Store
    from pik.usecases.metrics.diff import Diff
    from pik.usecases.metrics.totals import DiffTotals


diff = CommandGroup("Compare numbers with raw or with what a run wrote, and a log with what arrived.")


@diff.add(
    "aggregates",
    examples="""
    # is anything wrong? exit code 1 if so
    pik diff aggregates --from 2026-01-31 --to 2026-02-01

    # one entity; cents and half a percent of revenue do not matter
    pik diff aggregates --entity user-123 --since 7d --tolerance 0.01 --tolerance revenue=0.5%

    # what if that batch had never arrived?
    pik diff aggregates --from 2026-01-31 --assume without-batch=01J8Z3

    # which numbers of the ledger differ from what raw says?
    pik diff aggregates --against ledger.csv --key bucket=day,entity=customer --value revenue=net

    # why do they differ? and why do the totals of each day?
    pik diff aggregates --from 2026-01-31 --explain --limit 20
    pik diff aggregates --metric revenue --by bucket --explain

    # what has changed since Friday evening, by whatever promotion?
    pik diff aggregates --left current@2026-01-30T18:00:00Z --right current

    # by how much do the totals of each day differ from the ledger's?
    pik diff aggregates --against ledger.csv --metric revenue --by bucket

    # on a Spark cluster: the same numbers
    pik diff aggregates --from 2026-01-01 --to 2026-07-01 --on spark://spark-master:7077

    # what would promoting this run change?
    pik diff aggregates --run 01J8Z3 --limit 20 --stats
    """,
)
def aggregates(
    cli: Context,
    entity: options.Entities = None,
    metric: options.Metrics = None,
    *,
    period: options.WindowOptions,
    against: AgainstFile = None,
    key: Key = None,
    value: Value = None,
    left: LeftSide = None,
    right: RightSide = None,
    run: RunSide = None,
    tolerance: Annotated[
        list[str] | None,
        option(
            "--tolerance [METRIC=]ABS|REL%",
            "Ignore differences up to this (repeatable; one that covers a difference is enough).",
        ),
    ] = None,
    changed_only: Annotated[
        bool, option("--changed-only", "Only changed values (~) and failures (!): leave out + and -.")
    ] = False,
    as_of: options.AsOf = None,
    assume: options.Assume = None,
    explain: Annotated[bool, option("--explain", "Split each difference by cause, as `pik explain` does.")] = False,
    total: options.Total = False,
    by: options.TotalBy = None,
    stats: Annotated[bool, option("--stats", "Also count what was compared.")] = False,
    limit: options.Limit = None,
    on: options.On = LOCAL,
) -> int | None:
    """Recompute from raw and compare with the current values, without writing anything.

    Each row is a difference: ~ the value changed, + there is no current value yet, - there is a current value but no
    events (check for lost raw with `pik verify --full` first), ! it cannot be computed, with the reason. --limit only
    limits the rows that are shown. Exit codes: 0 no rows, 1 differences, 3 something cannot be computed, 2 nothing to
    compare.

    The digests of current values are checked only with --entity; `pik verify` checks all of them.

    With --against the numbers of the file take the place of the current values. Its columns are found by their usual
    names (bucket, day, date, …; entity_id, customer, …; the name of a metric), and what was taken is printed. Dates
    and times without an offset are those of the metric's timezone (without one, UTC), and numbers count as they are
    written; a number that cannot be read or comes twice is an error that names the line. The store's values that the
    file lacks are rows (+) too: --from, --to and --entity set the scope of both sides.

    The delta is always right minus left. A run is compared in the values that it wrote. What was current at some time
    follows from the promotions and rollbacks until then.

    --total and --by show the totals of both sides instead, as in `pik aggregates`, and how many of the values differ.
    The exit code is 1 if any of them does, whatever the totals. --explain splits each difference by cause, as
    `pik explain` does, and with --total or --by sums the shares.
    """
    from pik.usecases.metrics.chosen_sides import file_request, read_sides, refuse_scenario
    from pik.usecases.metrics.compare_sides import Comparing, compare_sides
    from pik.usecases.metrics.sides import LEFT, RIGHT, SideKind
    from pik.usecases.metrics.tolerance import read_tolerances
    from pik.usecases.metrics.totals import Combinations, DiffTotals

    scenario = scenario_of(cli, as_of, assume, period.timezone)
    sides = read_sides(left, right, against, run, options.typed_zone(period.timezone), now=options.now())
    request = file_request(sides[0], key or (), value or ())
    window: Window | None = period.window()
    tolerances = read_tolerances(tolerance or ())
    refuse_scenario(scenario, sides[1], run)
    if SideKind.RUN in (sides[0].kind, sides[1].kind):
        if period.given:
            raise UsageError(
                f"{'--run' if run else 'a run'} has its own window", hint="leave --from, --to and --since out"
            )
        window = None
    if total or by:
        if stats or changed_only:
            raise UsageError("--total goes with neither --stats nor --changed-only", hint="leave them out")
        if by == "run" and request is not None:
            raise UsageError("--by run: the numbers of a file have no run", hint="--by bucket")
    store, engine = cli.open_store(), cli.engine()
    sides = recent_side(cli, store, sides[0]), recent_side(cli, store, sides[1])
    asked = Comparing(
        *sides,
        request,
        scenario,
        metrics=metric or (),
        entities=entity or (),
        tolerances=tolerances,
        changed_only=changed_only,
        explains=explain,
        totals=DiffTotals(by, Combinations(store, engine), explains=explain) if total or by else None,
    )
    with ExitStack() as stack:
        diff = compare_sides(stack, store, engine, asked, window, cli.fleet(on, store), cli.progress)
        repair: Callable[[ShortenedRows], str | None] = lambda _: None  # noqa: E731
        if scenario:
            repair = lambda _: for_good(store, scenario, assume or ())  # noqa: E731
        elif sides == (LEFT, RIGHT) and not any("@" in one for one in metric or ()):
            repair = partial(_replay, store, window or Window(), entity, metric, diff)
        elif sides[0] == LEFT and diff.run is not None:
            repair = partial(_after_run, store, diff.run.run_id)
        return _shown(cli, store, diff, repair, stats, limit, asked.totals)


def _shown(
    cli: Context,
    store: Store,
    diff: Diff,
    repair: Callable[[ShortenedRows], str | None],
    stats: bool,
    limit: int | None,
    totals: DiffTotals | None,
) -> int | None:
    """Show the differences, or totals, and return the exit code."""
    from pik.usecases.inspect.events import without_value

    shown = ShortenedRows(diff.rows, limit, diff.file.extent if diff.file else None)
    counted = {name: partial(getattr, shown, name) for name in ("different", "failed", "truncated")}
    line = lambda: _next(repair, diff, shown)  # noqa: E731
    if totals is None:
        schema = DIFFERENCES if stats else DIFFERENCES.without("stats")
        cli.show(schema.labelled("differences", side_labels(diff)), diff, differences=shown, next=line, **counted)
    else:
        exhaust(shown)  # all are added first
        rows, more = options.first_rows(iter(totals.rows()), limit)
        others = [columns for name, columns in TOTAL_COLUMNS.items() if totals.by != name]
        left_out = [f"totals.{column}" for columns in others for column in columns]
        schema = TOTALS.without(*left_out).labelled("totals", side_labels(diff))
        cli.show(schema, diff, totals=rows, next=line, **counted | {"truncated": more})
    options.note_left_out(cli, diff.left_out)
    if diff.basis.without_value:
        cli.note(without_value(store, diff.basis.without_value, diff.effective))
    for missing in not_compared(diff):
        cli.note(missing)
    for missing in filter(None, (*file_notes(diff.file, shown.outside), str(shown.alike))) if diff.file else ():
        cli.note(missing)
    for missing in (*uncertain(diff.left, diff.right), *not_recorded(diff.scenario.assumptions)):
        cli.note(missing)
    if shown.failed or diff.unlisted or any(run.failed for run in compared_runs(diff)):
        return PARTLY
    return FOUND if shown.number else None


def _replay(
    store: Store, window: Window, entities: list[str] | None, metrics: list[str] | None, diff: Diff, rows: ShortenedRows
) -> str:
    """Return the command that recomputes what was compared, or what corrections changed of it: those that are its only
    cause, or without causes those that alone were recorded since."""
    from pik.usecases.metrics.corrected_since import corrected_since

    request = RunRequest(
        start=window.start, end=window.end, entities=tuple(entities or ()), metrics=tuple(metrics or ())
    )
    found = rows.corrections
    if not rows.explained:
        found = corrected_since(store, diff.effective, request.entities, rows.before, diff.basis.versions)
    by_correction = [structs.replace(request, correction=one) for one in found[:REMEDIES]]
    return "\n".join(map(replay_command, by_correction if len(found) <= REMEDIES and found else [request]))


def _after_run(store: Store, run_id: str, _: ShortenedRows) -> str | None:
    """Return the command that makes the run's values current: promote, or replay where all of it is out of date."""
    from pik.usecases.replay.promote import promote

    run = store.runs.get(run_id)
    if run.request.counts_duplicates:
        return None
    if run.is_active or run.state == RunState.CANCELLED:
        return next_command(run)
    moved = promote(store, run.run_id, 0, "", dry_run=True).counts.moved
    return command("promote", run.run_id) if moved else replay_command(run.request)


def _next(repair: Callable[[ShortenedRows], str | None], diff: Diff, rows: ShortenedRows) -> str | None:
    """Return what to type next. Where values would be removed, raw must be whole first."""
    if not rows.different:
        return rows.remedy
    line = repair(rows)
    # What only corrections took away is in raw, and so is what an assumption takes away.
    is_whole = rows.corrections or diff.scenario or not diff.stats.removed
    return line if is_whole or not line else f"{WHOLE} && {line}"
