"""`pik aggregates import`: numbers of a file become current values."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from pik.cli import options
from pik.cli.buckets import shown_bucket
from pik.cli.command import PARTLY
from pik.cli.commands.numbers.aggregates import aggregates
from pik.cli.commands.repair.runs import FILE, file_text
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, Field, Schema
from pik.cli.options import argument, option
from pik.cli.values import Bucket, Count
from pik.errors import command, number_of
from pik.model.instant import display_instant
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.run import Run
    from pik.ports.state import PointerCounts
    from pik.usecases.metrics.imports import ImportPlan

__all__ = ["aggregates"]


@aggregates.add(
    "import",
    examples="""
    # what would become current? then do it
    pik aggregates import ledger.csv --metric revenue --value revenue=net --dry-run
    pik aggregates import ledger.csv --metric revenue --value revenue=net --reason 'the ledger is right'

    # one entity and one day of it, in a runbook
    pik aggregates import ledger.csv --metric revenue --entity user-123 --from 2026-01-31 --to 2026-02-01 --yes
    """,
)
def import_(
    cli: Context,
    file: Annotated[str, argument("FILE", "CSV, TSV, Parquet or JSON, plain or compressed; - is stdin.")],
    metric: Annotated[str, option("--metric NAME", "The metric whose values the numbers are.")],
    key: Annotated[
        list[str] | None,
        option("--key bucket=COLUMN,entity=COLUMN", "The file's columns, if they have unusual names."),
    ] = None,
    value: Annotated[
        list[str] | None, option("--value METRIC=COLUMN", "The column of the metric, if it has an unusual name.")
    ] = None,
    entity: options.Entities = None,
    from_: options.From = None,
    to: options.To = None,
    timezone: options.Timezone = None,
    reason: options.Reason = "",
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> int | None:
    """Make numbers from outside (a warehouse, a ledger, a dashboard) current values of a metric.

    The file is read as `pik diff aggregates --against` reads it: columns are found by their usual names, what was taken
    is printed, dates and times without an offset are those of the metric's timezone; they must be starts of buckets of
    the metric. Numbers count as they are written. Those that are current already stay as they are, so the same file
    imported again changes nothing. The others are written by a run of kind import, next to what is current, and
    promoted; `pik rollback` takes that back.

    What an imported value counts is not known. It keeps the digest of its file instead; `pik verify` lists it as not
    provable, and `pik explain` has one cause for it, imported. A later replay writes computed values next to imported
    ones, and its promotion replaces them.

    An interrupted import is continued by the same command. Exit codes: 0 done, 2 the file or the command line is wrong,
    or has no number in scope, 3 another promotion has changed some of the values meanwhile.
    """
    from pik.inputs.source import file_source
    from pik.usecases.metrics.file_numbers import FileRequest, read_names
    from pik.usecases.metrics.imports import import_numbers, planned_import

    if not dry_run:
        options.able_to_ask(yes)
    columns = read_names("--key", key or (), ("bucket", "entity")), read_names("--value", value or (), (metric,))
    request = FileRequest(file_source(file), *columns)
    window = options.window_of(from_, to, None, timezone)
    store, engine = cli.open_store(), cli.engine()
    why: dict[str, Any] = {"created_at": time.time_ns(), "reason": reason, "actor": cli.actor(store)}
    with planned_import(store, engine, request, metric, window, entity or (), **why) as plan:
        _note(cli, plan)
        if dry_run or plan.is_done:
            _show(cli, plan, plan.run if plan.resumed else None, None, dry_run=dry_run)
            return None
        options.confirm(_plan_text(plan), yes)
        done = import_numbers(store, plan, time.time_ns())
        _show(cli, plan, done.run, done.moved, dry_run=False)
    return PARTLY if done.moved.conflicts else None


def _note(cli: Context, plan: ImportPlan) -> None:
    """Say what of the file is left out, or not as it is written, and which run is gone on with."""
    from pik.cli.commands.numbers.diff_rows import file_notes

    for text in file_notes(plan.numbers, 0):
        cli.note(text)
    if plan.resumed:
        cli.note(f"going on with run {plan.run.run_id}, which was interrupted")


def _plan_text(plan: ImportPlan) -> str:
    """Return what an import is about to do, in some lines."""
    extent, file = plan.numbers.extent, plan.run.request.file
    assert file is not None
    entities = f"of {number_of(extent.entities, 'entity')}, " if file.entity else ""
    metric = f"{plan.metric.name}@{plan.metric.version}"
    return (
        f"import {number_of(extent.values, 'number')} of {metric}:"
        f" {plan.new:,} new, {plan.changed:,} changed, {plan.same:,} current already"
        f"\n{entities}{display_instant(extent.first)} to {display_instant(extent.last)}"
        f"\nfrom {file_text(file).replace(', SHA-256', chr(10) + 'SHA-256')}"
    )


def _show(cli: Context, plan: ImportPlan, run: Run | None, moved: PointerCounts | None, *, dry_run: bool) -> None:
    cli.show(
        IMPORT,
        plan,
        dry_run=dry_run,
        run_id=run and run.run_id,
        state=run and run.state,
        **{name: getattr(moved, name) if moved else None for name in ("moved", "already", "conflicts")},
        note=_outcome(plan, dry_run=dry_run, moved=moved),
        next=_next(plan, moved),
    )


def _outcome(plan: ImportPlan, *, dry_run: bool, moved: PointerCounts | None) -> str | None:
    if plan.is_done:
        return f"nothing to import: {number_of(plan.same, 'number')} of {plan.numbers.name} are current already"
    if dry_run or moved is None:
        return None
    if moved.conflicts:
        return "another promotion changed some of the values meanwhile; the same command again compares with those"
    return f"to undo: {command('rollback', plan.run.run_id)}"


def _next(plan: ImportPlan, moved: PointerCounts | None) -> str | None:
    from pik.cli.commands.repair.runs import import_command

    return import_command(plan.run.request) if moved and moved.conflicts else None


def _file_text(plan: ImportPlan) -> str | None:
    file = plan.run.request.file
    return None if file is None else file_text(file)


IMPORT = Schema(
    "pik aggregates import",
    Field("dry_run", bool),
    Field("run_id", str | None, "the run; null: nothing was written"),
    Field("state", str | None, "of the run"),
    Field("metric", str, "NAME@VERSION", get=lambda plan: f"{plan.metric.name}@{plan.metric.version}"),
    Field("imported_file", FILE, "what was read", get="run.request.file", text=_file_text),
    Field("requested", Window, get="run.request.window"),
    Field("effective", Window, "the buckets of the numbers, from the first to the last", get="run.effective"),
    Field("entities", list[str] | None, "as requested; null: all", get="run.request.entities"),
    Field("numbers", Count, "in scope", get="numbers.extent.values"),
    Field("of_entities", Count, get="numbers.extent.entities"),
    Field(
        "first",
        Bucket,
        "the first bucket",
        get=lambda plan: shown_bucket(plan.metric.name, plan.numbers.extent.first),
    ),
    Field("last", Bucket, "the last bucket", get=lambda plan: shown_bucket(plan.metric.name, plan.numbers.extent.last)),
    Field("new", Count, "numbers without a current value"),
    Field("changed", Count, "numbers with another current value"),
    Field("same", Count, "numbers that were current already; they stay as they are"),
    Field("left_out", Count, "numbers outside the window or the entities", get="numbers.left_out"),
    Field("other_metrics", Count, "numbers of other metrics", get="numbers.other_metrics"),
    Field("approximate", list[str], "columns of floating point", get=lambda plan: list(plan.numbers.approximate)),
    Field("moved", Count | None, "aggregates that became current; null: nothing was promoted"),
    Field("already", Count | None, "that the interrupted import had made current"),
    Field("conflicts", Count | None, "left unchanged because another promotion had changed them"),
    Field("reason", str | None, get="run.request.reason"),
    Field("actor", str | None, "who imports", get="run.actor"),
    NOTE,
    NEXT,
)
