"""`pik replay`: compute aggregates again, beside those that are current."""

from __future__ import annotations

from typing import Annotated

import typer

from pik.cli import options
from pik.cli.command import Commands
from pik.cli.commands.replay import replay_api, replay_store
from pik.cli.context import Context
from pik.errors import UsageError
from pik.model.run import RunRequest

commands = Commands()


@commands.add(
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

    # through the stack's HTTP API instead of its storage
    pik replay --entity user-123 --from 2026-01-31 --to 2026-02-01 --via api --store aws://pik
    """,
)
def replay(
    cli: Context,
    entity: options.Entities = None,
    everything: Annotated[bool, typer.Option("--all", help="Every entity in the window.")] = False,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
    type_: options.Type = None,
    source: options.Source = None,
    metric: options.Metrics = None,
    include_duplicates: Annotated[
        bool, typer.Option("--include-duplicates", help="As if nothing removed duplicates; never to be promoted.")
    ] = False,
    reason: options.Reason = "",
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", min=0.001, help="At most N tasks a second.")
    ] = None,
    via: options.Via = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="With --via api: begin the run, and do not wait for its end.")
    ] = False,
    dry_run: options.DryRun = False,
    promote: Annotated[
        bool, typer.Option("--promote", help="Make the result current, what failed left as it is.")
    ] = False,
    yes: options.Yes = False,
) -> int | None:
    """Compute aggregates again from raw and write them beside the current ones.

    Buckets are computed whole, from all of their events: --source and --type choose buckets, never a bucket's inputs.
    Interrupted, it goes on with the same command line, or with `pik runs resume`.
    """
    if not (entity or everything or source or type_):
        raise UsageError(
            "nothing selected to replay", hint="--entity ID, --source SOURCE, --type TYPE, or --all for every entity"
        )
    if entity and everything:
        raise UsageError("--entity and --all exclude each other", hint="leave one of them out")
    if promote and include_duplicates:
        raise UsageError("values that count duplicates cannot be promoted", hint="leave --promote out")
    if promote and not dry_run:
        options.able_to_ask(yes)
    window = options.window_of(from_, to, since)
    request = RunRequest(
        start=window.start,
        end=window.end,
        entities=tuple(sorted(set(entity or ()))),
        metrics=tuple(sorted(set(metric or ()))),
        source=source,
        event_type=type_,
        include_duplicates=include_duplicates,
        reason=reason,
    )
    if via:
        replay_api.expect_possible(request, rate, promote)
        return replay_api.replay(cli, request, dry_run=dry_run, wait=not no_wait)
    if no_wait:
        raise UsageError(
            "--no-wait goes with --via api", hint="`pik runs wait RUN` and `pik runs show RUN` follow a run"
        )
    return replay_store.replay(cli, request, rate, dry_run, promote, yes)
