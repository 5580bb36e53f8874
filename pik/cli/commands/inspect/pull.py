"""`pik pull`: a window of a store, to investigate without it."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.commands.care.verify import PROBLEMS
from pik.cli.context import Context
from pik.cli.render import Count, Document, Table
from pik.errors import NotFound, command

if TYPE_CHECKING:
    from pik.ports.store import Store
    from pik.usecases.pull.pull import PullReport, PullRequest


@cli_command(
    "pull",
    examples="""
    # two days of production, to go on with on the train
    pik pull --store aws://prod --from 2026-01-30 --to 2026-02-01 --into incident/
    pik diff aggregates --store incident/ --from 2026-01-30 --to 2026-02-01

    # how much would it be for one customer?
    pik pull --store aws://prod --entity customer-17 --since 7d --into incident/ --dry-run
    """,
)
def pull(
    cli: Context,
    into: Annotated[
        str, typer.Option("--into", metavar="DIR", help="A new directory, or one that was pulled into before.")
    ],
    entity: options.Entities = None,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
    dry_run: options.DryRun = False,
) -> int | None:
    """Copy the raw, index, metrics and aggregates of a window into a store of its own.

    For what was pulled, every question has the same answer there. The window becomes whole days and buckets. Each
    object's SHA-256 is checked; what is missing or damaged in the source is listed, with exit code 3. Run again after
    an interruption it goes on; another window adds to the copy. Events cannot be ingested into it; replays and
    promotions are its own.
    """
    from pik.usecases.pull.pull import PullRequest, effective_window
    from pik.usecases.pull.pull import pull as copy_window

    request = PullRequest(options.window_of(from_, to, since), tuple(dict.fromkeys(entity or ())))
    source = cli.open_store()
    if dry_run:
        cli.show(_planned(cli, source, into, request))
        return None
    effective_window(source, request)  # before a directory is made
    done = copy_window(source, cli.open_copy(source, into, create=True), request, cli.progress)
    cli.show(_document(source, into, request, done))
    return PARTLY if done.problems else None


def _head(source: Store, into: str, request: PullRequest) -> dict[str, object]:
    return {"source": source.url, "into": into, "requested": request.window, "entities": request.entities or None}


def _planned(cli: Context, source: Store, into: str, request: PullRequest) -> Document:
    from pik.usecases.pull.pull import plan_pull

    try:
        copy: Store | None = cli.open_copy(source, into, create=False)
    except NotFound:
        copy = None
    plan = plan_pull(source, copy, request)
    return Document(
        head={
            "dry_run": True,
            **_head(source, into, request),
            "effective": plan.effective,
            "segments": Count(plan.segments),
            "bytes": Count(plan.size),
            "to_copy": Count(plan.missing),
            "bytes_to_copy": Count(plan.missing_size),
        }
    )


def _document(source: Store, into: str, request: PullRequest, done: PullReport) -> Document:
    return Document(
        head={
            **_head(source, into, request),
            "effective": done.effective,
            "outcome": "pulled" if done.changed else "nothing new",
        },
        tables=[Table("problems", PROBLEMS, done.problems, empty="everything could be copied")],
        tail={
            "segments": Count(done.segments),
            "segments_elsewhere": Count(done.elsewhere),
            "deliveries": Count(done.deliveries),
            "copied": Count(done.copied),
            "bytes_copied": Count(done.copied_size),
            "batches": Count(done.batches),
            "metrics": Count(done.metrics),
            "aggregates": Count(done.aggregates),
            "replaced": Count(done.replaced),
            **_next(source, into, done),
        },
    )


def _next(source: Store, into: str, done: PullReport) -> dict[str, str]:
    if done.problems:
        note = "once the source is mended, the same pull brings the rest"
        return {"note": note, "next": command("verify", "--store", source.url)}
    line = f"export PIK_STORE={shlex.quote(os.path.abspath(into))}"
    return {"note": "after that, commands without --store look into the copy", "next": line}
