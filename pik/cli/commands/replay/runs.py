"""`pik runs`: follow replays."""

from __future__ import annotations

from itertools import islice

from pik.cli import options
from pik.cli.command import Commands
from pik.cli.commands.replay.promote import RunId
from pik.cli.commands.replay.run_fields import RUN_COLUMNS, exit_code, going_on, outcome_fields, plan_fields
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Instant, Moment, Table
from pik.model.run import RunState

commands = Commands("Follow replays: list, show, resume, cancel, wait.")


@commands.add(
    "list",
    examples="""
    # the last ten
    pik runs list --limit 10
    """,
)
def list_(cli: Context, limit: options.Limit = None) -> None:
    """List runs, newest first."""
    runs = cli.open_store().runs.newest_first()
    shown = islice(runs, limit)
    cli.show(
        Document(
            tables=[Table("runs", RUN_COLUMNS, shown, empty="no run yet; to make one: pik replay --all")],
            tail=lambda: {"truncated": limit is not None and next(runs, None) is not None},
        )
    )


@commands.add("show", examples="pik runs show 01J8Z3")
def show(cli: Context, run: RunId) -> None:
    """Show a run: what was asked for, how far it is, its dead letters, what was promoted and rolled back."""
    from pik.usecases.replay.runs import detail

    found = detail(cli.open_store(), run)
    letters = [
        Column("letter_id"),
        Column("attempts"),
        Column("reason", wrap=True),
        Column("hint", wrap=True, advice=True),
    ]
    promotions = [
        Column("kind"),
        Column("at", Moment),
        Column("moved", Count),
        Column("conflicts", Count),
        Column("reason", wrap=True),
    ]
    cli.show(
        Document(
            head={
                **plan_fields(found.run),
                "created_at": Instant(found.run.created_at),
                "finished_at": Instant(found.run.finished_at) if found.run.finished_at is not None else None,
                **outcome_fields(found.run),
                "driven": found.driven,
            },
            tables=[
                Table("dead_letters", letters, found.letters),
                Table("promotions", promotions, found.promotions),
            ],
        )
    )


@commands.add("resume", examples="pik runs resume 01J8Z3")
def resume(cli: Context, run: RunId) -> int | None:
    """Go on with a run that was interrupted: its open tasks, and only those."""
    from pik.usecases.replay.execute import Pace, carry_out

    store = cli.open_store()
    found = store.runs.get(run)
    if found.state in (RunState.PLANNED, RunState.RUNNING):
        cli.note(going_on(found))
    ended = carry_out(store, cli.engine(), found.run_id, Pace(), cli.progress)
    head = {**plan_fields(ended), "resumed": True, **outcome_fields(ended)}
    cli.show(Document(head=head))
    return exit_code(ended)


@commands.add(
    "wait",
    examples="""
    # in a script that started the replay in the background
    pik runs wait 01J8Z3 && pik promote 01J8Z3 --yes
    """,
)
def wait(cli: Context, run: RunId) -> int | None:
    """Wait until a run has ended. Exit code 3 if not all of it was computed."""
    from pik.usecases.replay.execute import wait as until_ended

    ended = until_ended(cli.open_store(), run, cli.progress)
    cli.show(Document(head={**plan_fields(ended), **outcome_fields(ended)}))
    return exit_code(ended)


@commands.add("cancel", examples="pik runs cancel 01J8Z3")
def cancel(cli: Context, run: RunId) -> None:
    """Cancel a run: nothing new is begun, what is in flight is finished first. It can never be promoted."""
    from pik.usecases.replay.runs import cancel as stop

    ended = stop(cli.open_store(), run)
    cli.show(Document(head={**plan_fields(ended), **outcome_fields(ended)}))
