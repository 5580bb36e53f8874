"""`pik replay`: compute aggregates again, beside those that are current."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from msgspec import structs

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.commands.repair.promote import corrected_since
from pik.cli.commands.repair.runs import OUTCOME, PLAN, PLANNING_FAILURE, exit_code, going_on, nothing_matched
from pik.cli.context import Context
from pik.cli.document import Field, Object, Schema
from pik.cli.options import option
from pik.cli.values import Instant
from pik.errors import NothingSelected, UsageError, command, number_of
from pik.model.assumption_text import replay_assumptions
from pik.model.ids import new_id
from pik.model.instant import display_instant
from pik.model.run import Run, RunRequest, RunState
from pik.ports.fleet import LOCAL

if TYPE_CHECKING:
    from pik.ports.store import Store
    from pik.usecases.replay.promote import Move


@cli_command(
    "replay",
    examples="""
    # what would it come to?
    pik replay --entity user-123 --from 2026-01-31 --to 2026-02-01 --dry-run

    # two entities, from their raw events; then look, then promote
    pik replay --entity user-123 --entity user-456 --from 2026-01-31 --to 2026-02-01 --reason 'late events'
    pik diff aggregates --run 01J8Z3
    pik promote 01J8Z3

    # every bucket that an event of this source touches, and make it current
    pik replay --source checkout --since 2d --reason 'double delivery' --promote --yes

    # every bucket that deliveries left or entered by a correction
    pik replay --correction 01J8Z3 --reason INC-42 --promote --yes

    # all of a stack's values, on a Spark cluster in the place of the stack's processors
    pik replay --all --store aws://pik --on spark://spark-master:7077 --reason 'new definition'

    # through the stack's HTTP API instead of its storage
    pik replay --entity user-123 --from 2026-01-31 --to 2026-02-01 --via api --store aws://pik
    """,
)
def replay(
    cli: Context,
    entity: options.Entities = None,
    everything: Annotated[bool, option("--all", "Every entity in the window.")] = False,
    *,
    period: options.WindowOptions,
    type_: options.Type = None,
    source: options.Source = None,
    metric: Annotated[
        list[str] | None, option("--metric NAME", "Only this metric, by its latest definition (repeatable).")
    ] = None,
    assume: Annotated[
        list[str] | None,
        option("--assume KIND=VALUE", "Only duplicates=counted: count duplicates too; the result cannot be promoted."),
    ] = None,
    correction: Annotated[
        str | None, option("--correction ID", "Only buckets that this correction, or its revocation, changes.")
    ] = None,
    reason: options.Reason = "",
    rate: Annotated[float | None, option("--rate N", "At most N tasks per second.", min=0.001)] = None,
    via: options.Via = None,
    no_wait: Annotated[bool, option("--no-wait", "With --via api: start the run without waiting for its end.")] = False,
    on: options.On = LOCAL,
    dry_run: options.DryRun = False,
    promote: Annotated[bool, option("--promote", "Make the result current; what failed stays unchanged.")] = False,
    yes: options.Yes = False,
) -> int | None:
    """Recompute aggregates from raw and write them next to the current ones.

    Buckets are computed whole, from all of their events: --source, --type and --correction choose buckets, never a
    bucket's inputs. They choose those in which events arrived, and those to which corrections moved them.
    An interrupted replay is continued by the same command, or by `pik runs resume`.
    """
    if not (entity or everything or source or type_ or correction):
        raise UsageError(
            "nothing selected to replay",
            hint="--entity ID, --source SOURCE, --type TYPE, --correction ID, or --all for every entity",
        )
    if entity and everything:
        raise UsageError("--entity and --all exclude each other", hint="leave one of them out")
    assumed = replay_assumptions(assume or ())
    if promote and assumed:
        raise UsageError("values that count duplicates cannot be promoted", hint="leave --promote out")
    if promote and not dry_run:
        options.able_to_ask(yes)
    window = period.window()
    request = RunRequest(
        start=window.start,
        end=window.end,
        entities=tuple(sorted(set(entity or ()))),
        metrics=tuple(sorted(set(metric or ()))),
        source=source,
        event_type=type_,
        assumed=assumed,
        correction=correction,
        reason=reason,
    )
    if via:
        _expect_possible(cli, request, rate, on, promote)
        return _replay_via_api(cli, request, dry_run=dry_run, wait=not no_wait)
    if no_wait:
        raise UsageError(
            "--no-wait goes with --via api", hint="`pik runs wait RUN` and `pik runs show RUN` follow a run"
        )
    return _replay(cli, request, rate, on, dry_run, promote, yes)


def _replay(
    cli: Context, request: RunRequest, rate: float | None, on: str, dry_run: bool, promote: bool, yes: bool
) -> int | None:
    """Go on with the run of this request or begin one, follow it to its end, and show what became of it."""
    from pik.rawlog.corrections import find_correction
    from pik.usecases.inspect.events import without_value
    from pik.usecases.replay.execute import Pace, execute_run
    from pik.usecases.replay.plan import expect_work, left_out_of, plan_replay, start

    store, engine = cli.open_store(), cli.engine()
    if on != LOCAL and not store.deployed:
        raise UsageError(
            "--on: a local store is written by one machine; a cluster replays those of stacks",
            hint="leave --on out: all processors of this machine replay",
        )
    nothing_of: tuple[str, ...] = ()
    if request.correction is not None:
        request = structs.replace(
            request,
            correction=find_correction(store, cli.recent(store, "correction", request.correction)).correction_id,
        )
    left_out = left_out_of(store, request)
    options.note_left_out(cli, left_out)
    run = None if dry_run else store.runs.unfinished(request)
    resumed = run is not None
    if run is not None:
        cli.note(going_on(run))
        fleet = cli.fleet(on, store)
    else:
        plan = plan_replay(store, engine, request, time.time_ns(), actor=cli.actor(store))
        expect_work(store, plan.run)
        if plan.without_value:
            nothing_of = plan.without_value
            cli.note(without_value(store, nothing_of, plan.run.effective))
        if plan.run.events_matched == 0 and not request.chooses_buckets:  # else the chosen buckets may have others
            cli.note(nothing_matched(request.window))
        if dry_run:
            cli.show(
                REPLAY_DRY_RUN, plan.run, entities_without_value=nothing_of, metrics_left_out=left_out, dry_run=True
            )
            return None
        fleet = cli.fleet(on, store)  # where it cannot be opened, no run is begun
        run = start(store, plan)
        chosen = "raw is damaged, so events are not counted"
        if run.events_matched is not None and run.buckets is not None:
            chosen = f"{number_of(run.events_matched, 'event')} in {number_of(run.buckets, 'bucket')}"
            if request.correction:  # whose events may not count any more
                chosen = f"{number_of(run.buckets, 'bucket')} that the correction changes"
        cli.note(f"run {run.run_id}: {chosen}, {number_of(run.tasks, 'task')}")
    run = execute_run(store, engine, run.run_id, Pace(rate=rate), cli.progress, fleet)
    move = _promote(cli, store, run, yes) if promote and run.state in (RunState.COMPLETED, RunState.PARTIAL) else None
    if move and yes and move.corrections:
        cli.note(corrected_since(move))
    versions, known_until = _basis(cli, store, run)
    schema = REPLAY if move else REPLAY.without("promotion")
    cli.show(
        schema,
        move.run if move else run,
        entities_without_value=nothing_of,
        metrics_left_out=left_out,
        resumed=resumed,
        metric_versions=versions,
        known_until=known_until,
        promotion=move and move.counts,
    )
    return PARTLY if move and move.counts.conflicts else exit_code(run)


def _basis(cli: Context, store: Store, run: Run) -> tuple[list[str] | None, int | None]:
    """Return the metric versions and the known until that a run which changed nothing rests on; else nothing, as the
    diff of the run shows it."""
    from pik.usecases.metrics.diff import basis_of

    if run.state != RunState.COMPLETED or run.new + run.changed + run.removed:
        return None, None
    basis = basis_of(store, run.run_id)
    versions = sorted(basis.versions)
    until = f", known until {display_instant(basis.known_until)}" if basis.known_until else ""
    cli.note(
        f"nothing changed: {number_of(run.unchanged, 'value')} computed by {', '.join(versions) or 'no metric'}{until}"
    )
    return versions, basis.known_until or None


def _promote(cli: Context, store: Store, run: Run, yes: bool) -> Move:
    from pik.cli.commands.repair.promote import plan_text
    from pik.usecases.replay.promote import promote

    if not yes:
        options.confirm(
            plan_text(promote(store, run.run_id, 0, "", dry_run=True)),
            yes,
            declined=f"run {run.run_id} is kept, and nothing was promoted",
            hint=command("promote", run.run_id),
        )
    return promote(store, run.run_id, time.time_ns(), run.request.reason, cli.actor(store))


def _expect_possible(cli: Context, request: RunRequest, rate: float | None, on: str, promote: bool) -> None:
    """Raises UsageError for an option that the API does not have."""
    without = "leave --via out"
    options.unknown_to_the_api(
        {
            "--source": (request.source is not None, f"the API replays all of an entity's buckets; {without}"),
            "--type": (request.event_type is not None, f"the API replays all of an entity's buckets; {without}"),
            "--correction": (request.correction is not None, f"the API replays all of an entity's buckets; {without}"),
            "--all": (not request.entities, f"the API replays one --entity; {without} for more"),
            "more than one --entity": (len(request.entities) > 1, "call it once for each entity"),
            "--on": (on != LOCAL, "the stack's own processors execute what the API starts"),
            "--rate": (rate is not None, "the stack's parameter ProcessorConcurrency limits its processors"),
            "--promote": (promote, "the API promotes nothing; when the run has ended: pik promote RUN"),
            **options.no_actor(cli),
            "a window without two ends": (not request.window.bounded, "--from TIME --to TIME"),
        }
    )


def _replay_via_api(cli: Context, request: RunRequest, *, dry_run: bool, wait: bool) -> int | None:
    """Begin a run, follow it to its end unless `wait` is false, and show what became of it."""
    from pik.usecases.replay.wait import follow

    api = cli.open_api()
    planned, left_out = api.replay(request, key=new_id(), dry_run=dry_run)
    options.note_left_out(cli, left_out)
    if dry_run:
        if planned.events_matched is None:
            raise UsageError(
                f"{request.window} is too large for the API to count in one call",
                hint="leave --dry-run out to replay it, --via api to count it, or ask for less",
            )
        if planned.events_matched == 0:
            cli.note(nothing_matched(request.window))
        cli.show(REPLAY_DRY_RUN.without(_WITHOUT_VALUE.name), planned, metrics_left_out=left_out, dry_run=True)
        return None
    waits = command("runs", "wait", planned.run_id)
    cli.note(f"run {planned.run_id} started; it continues without this command, and {waits} waits for it")
    run = follow(api, planned, cli.progress, to_its_end=wait)
    if run.state == RunState.COMPLETED and not run.events_matched and not run.values:  # one that was planned later
        raise NothingSelected(
            f"run {run.run_id} computed no value: there is neither a current one nor an event that a metric counts"
            f" of {request.entities[0]!r} {request.window.within}",
            hint=f"its events of all time: {command('events', '--entity', request.entities[0])}",
        )
    schema = REPLAY.without(_WITHOUT_VALUE.name, "metric_versions", "known_until", "promotion")
    cli.show(schema, run, metrics_left_out=left_out, resumed=False)
    return None if run.is_active else exit_code(run)


_STORAGE = "without `--via api`"

_WITHOUT_VALUE = Field(
    "entities_without_value",
    list[str] | None,
    "named entities with neither event nor current value; null: none, or the run was planned before",
    only=_STORAGE,
)

REPLAY_DRY_RUN = Schema(
    "pik replay --dry-run", *PLAN, _WITHOUT_VALUE, options.LEFT_OUT, Field("dry_run", bool, "true")
).without("run_id")
"""A dry run plans no run that has an id: the one of a later replay is another one."""

REPLAY = Schema(
    "pik replay",
    *PLAN,
    _WITHOUT_VALUE,
    options.LEFT_OUT,
    Field("resumed", bool, "whether it resumed an interrupted run"),
    *OUTCOME,
    PLANNING_FAILURE,
    Field("metric_versions", list[str] | None, "NAME@VERSION: what computed it, where nothing changed", only=_STORAGE),
    Field("known_until", Instant | None, "the last recording that it rests on, where nothing changed", only=_STORAGE),
    Field(
        "promotion",
        Object(
            Field("moved", int, "aggregates that it made current, those whose value is NULL among them"),
            Field("already", int, "that already were current"),
            Field("conflicts", int, "left unchanged because another promotion had changed them"),
        ),
        only="with `--promote`",
    ),
)
