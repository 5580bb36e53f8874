"""`pik runs`: follow replays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pik.cli import options
from pik.cli.command import PARTLY, CommandGroup
from pik.cli.context import Context
from pik.cli.document import TRUNCATED, Column, Field, Object, Rows, Schema, or_null
from pik.cli.values import Count, Entity, Instant, Moment, words
from pik.errors import command, number_of
from pik.model.instant import display_instant
from pik.model.run import ImportedFile, Run, RunKind, RunRequest, RunState
from pik.model.window import Window

if TYPE_CHECKING:
    pass


runs = CommandGroup("Follow replays: list, show, resume, cancel, wait.")


@runs.add(
    "list",
    examples="""
    # the last ten
    pik runs list --limit 10
    """,
)
def list_(cli: Context, limit: options.Limit = None) -> None:
    """List runs, newest first."""
    store = cli.open_store()
    found, truncated = options.first_rows(store.runs.newest_first(), limit)
    cli.show(RUNS, runs=found, truncated=truncated)
    if store.sealed:
        cli.note("an evidence bundle: the runs that wrote its values are in its rows/runs.jsonl")
    elif store.copy is not None:
        cli.note(f"a copy: runs of its source are not in it; {command('runs', 'list', '--store', store.copy.source)}")


@runs.add("show", examples="pik runs show 01J8Z3")
def show(cli: Context, run: options.RunId) -> None:
    """Show a run: its request, progress and dead letters, and what was promoted and rolled back."""
    from pik.usecases.replay.runs import detail

    store = cli.open_store()
    found = detail(store, cli.recent(store, "run", run))
    cli.show(RUN_DETAIL, found.run, driven=found.driven, dead_letters=found.letters, promotions=found.promotions)


@runs.add("resume", examples="pik runs resume 01J8Z3")
def resume(cli: Context, run: options.RunId) -> int | None:
    """Resume an interrupted run: execute its open tasks, and only those."""
    from pik.usecases.replay.execute import Pace, execute_run

    store = cli.open_store()
    found = store.runs.get(cli.recent(store, "run", run))
    if found.is_active and found.kind == RunKind.REPLAY:
        cli.note(going_on(found))
    ended = execute_run(store, cli.engine(), found.run_id, Pace(), cli.progress)
    cli.show(RESUMED, ended, resumed=True)
    return exit_code(ended)


@runs.add(
    "wait",
    examples="""
    # in a script that started the replay in the background
    pik runs wait 01J8Z3 && pik promote 01J8Z3 --yes
    """,
)
def wait(cli: Context, run: options.RunId) -> int | None:
    """Wait until a run has ended. Exit code 3 if not all of it was computed."""
    from pik.usecases.replay.wait import wait as until_ended

    store = cli.open_store()
    ended = until_ended(store, cli.recent(store, "run", run), cli.progress)
    cli.show(RUN, ended)
    return exit_code(ended)


@runs.add("cancel", examples="pik runs cancel 01J8Z3")
def cancel(cli: Context, run: options.RunId) -> None:
    """Cancel a run: running tasks finish, no others start. It can never be promoted."""
    from pik.usecases.replay.runs import cancel as stop

    store = cli.open_store()
    ended = stop(store, cli.recent(store, "run", run))
    cli.show(RUN, ended)


def going_on(run: Run) -> str:
    """Return the note on a run that was interrupted, and is gone on with."""
    if run.state == RunState.PLANNING:
        return f"going on with run {run.run_id}, which is not planned yet"
    return f"going on with run {run.run_id}: {run.done:,} of {number_of(run.tasks, 'task')} were done already"


def nothing_matched(window: Window) -> str:
    """Return the note on a run that has no events to compute from."""
    return f"there is no such event {window.within}: what is current there becomes null"


def exit_code(run: Run) -> int | None:
    """3 for a run that did not compute everything."""
    return None if run.state == RunState.COMPLETED else PARTLY


def _progress(run: Run) -> str:
    aggregates = f", {number_of(run.failed_aggregates, 'aggregate')} failed" if run.failed_aggregates else ""
    return f"{run.done} of {run.tasks}" + (f", {run.failed} failed" if run.failed else "") + aggregates


WHOLE = command("verify", "--full")
"""Comes before a repair that removes values: lost raw looks as if there had been no events."""


def next_command(run: Run) -> str | None:
    """Return what to type next about a run. That ends: a dead letter names what helps, a promotion is last."""
    if run.request.file is not None and (run.is_active or run.state == RunState.CANCELLED):
        return import_command(run.request)
    if run.state == RunState.PLANNING:
        return command("runs", "wait", run.run_id)
    if run.is_active:
        return command("runs", "resume", run.run_id)
    if run.state == RunState.CANCELLED or run.planning_failure:
        return replay_command(run.request)
    if run.failed:
        return command("dlq", "list", "--run", run.run_id)
    if run.promoted >= run.values or not run.new + run.changed + run.removed:
        return None
    diff = command("diff", "aggregates", "--run", run.run_id)
    if run.removed:
        diff = f"{WHOLE} && {diff}"
    return diff if run.request.counts_duplicates else f"{diff}\n{command('promote', run.run_id)}"


def replay_command(request: RunRequest) -> str:
    """Return the command that computes the same again, or imports it again."""
    if request.file is not None:
        return import_command(request)
    words = ["replay"]
    filters = {"--source": request.source, "--type": request.event_type, "--correction": request.correction}
    for entity in request.entities:
        words += ["--entity", entity]
    if not request.entities and not any(filters.values()):
        words.append("--all")
    times = {"--from": request.window.from_text, "--to": request.window.to_text}
    for option, text in {**times, **filters}.items():
        words += [option, text] if text else []
    for metric in request.metrics:
        words += ["--metric", metric]
    for assumption in request.assumed:
        words += ["--assume", assumption]
    return command(*words)


def import_command(request: RunRequest) -> str:
    """Return the command that imports the same numbers again."""
    from pik.usecases.metrics.imports import import_words

    return command(*import_words(request))


def failures_text(run: Run) -> str | None:
    """Return the aggregates that failed, one on a line: all are counted, the first are listed."""
    texts = []
    for each in run.failures:
        events = f" (event {', '.join(each.event_ids)})" if each.event_ids else ""
        texts.append(
            f"{each.metric} of {words(Entity(each.entity_id))} at {display_instant(each.bucket)}: {each.reason}{events}"
        )
    left_out = run.failed_aggregates - len(texts)
    return "\n".join([*texts, *([f"… and {left_out:,} more"] if left_out else [])]) if texts else None


_STATES = (
    "`PLANNING` (it has no tasks yet), `PLANNED`, `RUNNING`, `COMPLETED`, `CANCELLED`; some tasks or aggregates failed:"
    " `PARTIAL`; all, or it could not be planned: `FAILED`"
)

FILE = Object(
    Field("name", str, "as it was typed"),
    Field("digest", str, "its SHA-256"),
    Field("bucket", str, "the column of buckets"),
    Field("entity", str | None, "the column of entities"),
    Field("value", str, "the column of values"),
    Field("metric", str | None, "the column that names the metric of each row, if there is one"),
    null=True,
)
"""The kind of a field with the file of an import."""


def file_text(file: ImportedFile) -> str:
    """Return a file in words: its name, what was taken from it, the beginning of its digest."""
    columns = {"bucket": file.bucket, "entity": file.entity, "metric": file.metric, "value": file.value}
    taken = ", ".join(f"{name}={column}" for name, column in columns.items() if column)
    return f"{file.name} ({taken}), SHA-256 {file.digest}"


def _file_text(run: Run) -> str | None:
    return None if run.request.file is None else file_text(run.request.file)


def _matched_text(run: Run) -> str | None:
    """Return for people what the number is of a run that a correction chose: its events may count no more."""
    if run.request.correction is None or run.events_matched is None:
        return None
    if not run.events_matched:
        return "0: none of the correction's events counts now"
    return f"{run.events_matched:,}, those of the correction's events that count now"


PLAN = (
    Field("run_id", str),
    Field("requested", Window, get="request.window"),
    Field("effective", Window, "the whole buckets that the requested window touches"),
    Field("entities", list[str] | None, "as requested; null: all", get="request.entities"),
    Field("metrics", list[str] | None, "as requested; null: all", get="request.metrics"),
    Field("source", str | None, get="request.source"),
    Field("type", str | None, get="request.event_type"),
    Field("assumed", list[str] | None, "`duplicates=counted`; null: what counts today", get="request.assumed"),
    Field("correction", str | None, "chooses the buckets that this correction changes", get="request.correction"),
    Field("reason", str | None, get="request.reason"),
    Field("actor", str | None, "who asked for it; null: not known"),
    Field(
        "events_matched",
        Count | None,
        "events that chose buckets, of those that count; null: too many to count, raw is damaged, or `PLANNING`",
        text=_matched_text,
    ),
    Field("buckets", Count | None, "whole buckets that were chosen, counted for each metric"),
    Field("tasks", Count),
)
"""What a run was asked for, and what that comes to."""

FAILURES = Field(
    "failures",
    Object(
        Field("metric", str),
        Field("bucket", Instant),
        Field("entity_id", Entity | None, "null: over all entities"),
        Field("reason", str, "it may quote a payload"),
        Field("events_to_blame", Count, "events that cannot be computed on their own", get="events"),
        Field("event_ids", list[str], "the first of these"),
        many=True,
        null=True,
    ),
    "the first of them; null: there are none",
    text=failures_text,
)

OUTCOME = (
    Field("state", str, _STATES),
    Field("done", Count, "tasks"),
    Field("failed", Count, "tasks that ended among the dead letters"),
    Field("failed_aggregates", Count, "aggregates that could not be computed; what is current there stays"),
    FAILURES,
    Field("new", Count, "values that had no current one"),
    Field("changed", Count, "values that differ from the current one"),
    Field("unchanged", Count),
    Field(
        "without_value",
        Count | None,
        "buckets whose value is NULL, or no event that its metric counts: `buckets` is the sum of these four"
        " and `failed_aggregates`, unless events arrived in between; null until all tasks are done",
    ),
    Field("removed", Count, "current values without events any more (not among `buckets`), or that would become NULL"),
    Field("promoted", Count, "aggregates that this run made current, less those that were rolled back"),
    Field("rolled_back", Count, "aggregates that a rollback took back"),
    Field("computed_by", list[str] | None, "the programs and their versions, such as `pik 0.1.0`, each once"),
    Field("next", str | None, get=next_command),
)
"""How far a run is, or how it ended."""

PLANNING_FAILURE = Field(
    "planning_failure",
    str | None,
    "why it could not be planned; null: it was, or may still be",
    get=or_null("planning_failure"),
)

RUN = Schema("pik runs wait, pik runs cancel", *PLAN, *OUTCOME, PLANNING_FAILURE)

RESUMED = Schema("pik runs resume", *PLAN, Field("resumed", bool, "true"), *OUTCOME)

RUN_DETAIL = Schema(
    "pik runs show",
    Field("kind", str, "`replay` or `import`"),
    *PLAN,
    Field("imported_file", FILE, "what an import read; null: it is a replay", get="request.file", text=_file_text),
    Field("created_at", Instant),
    Field("finished_at", Instant | None),
    Field(
        "corrections_until",
        Instant | None,
        "its values are with the corrections until then; null: there were none",
        get=or_null("corrections_until"),
    ),
    *OUTCOME,
    PLANNING_FAILURE,
    Field("driven", bool, "whether a process is working on it"),
    Rows(
        "dead_letters",
        "its tasks that failed too often",
        Column("letter_id", str),
        Column("attempts", int),
        Column("reason", str, wrap=True),
        Column("hint", str | None, "a hint; null: only another attempt can help", wrap=True, advice=True),
    ),
    Rows(
        "promotions",
        "newest first",
        Column("kind", str, "`promote` or `rollback`"),
        Column("at", Moment),
        Column("moved", Count),
        Column("conflicts", Count),
        Column("actor", str | None, "who did it; null: not known", drop=1),
        Column("reason", str | None, wrap=True),
    ),
)


def _file_name(run: Run) -> str | None:
    return None if run.request.file is None else run.request.file.name


RUN_COLUMNS = (
    Column("run_id", str),
    Column("state", str, _STATES),
    Column("created_at", Moment, drop=3),
    Column("window", Window, "the effective one", get="effective", drop=1),
    Column("tasks", int, text=_progress),
    Column("done", Count, "tasks", detail=True),
    Column("failed", Count, "tasks that ended among the dead letters", detail=True),
    Column("failed_aggregates", Count, "aggregates that could not be computed", detail=True),
    *(Column(name, Count, drop=2) for name in ("new", "changed", "unchanged", "removed")),
    Column("promoted", Count, "aggregates that it made current, less those that were rolled back"),
    Column(
        "rolled_back",
        Count | None,
        "aggregates that a rollback took back; null: none",
        get=or_null("rolled_back"),
        rare=True,
    ),
    Column("actor", str | None, "who asked for it; null: not known", drop=4),
    Column("reason", str | None, get="request.reason", wrap=True),
    Column("finished_at", Moment | None, detail=True),
    Column("events_matched", Count | None, detail=True),
)

RUNS = Schema(
    "pik runs list",
    Rows(
        "runs",
        "newest first",
        RUN_COLUMNS[0],
        Column("kind", str, "`replay` or `import`", drop=3),
        *RUN_COLUMNS[1:],
        Column("file", str | None, "that an import read", get=_file_name, detail=True),
        empty="no run yet; to make one: pik replay --all",
    ),
    TRUNCATED,
)
