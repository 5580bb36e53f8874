"""`pik pull`: a window of a store, to investigate without it."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.commands.care.problems import PROBLEMS
from pik.cli.context import Context
from pik.cli.document import Field, Rows, Schema
from pik.cli.options import option
from pik.cli.values import Count
from pik.errors import NotFound, command
from pik.model.delivery import Filter
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.ports.store import Store
    from pik.usecases.pull.pull import PullPlan, PullReport, PullRequest


@cli_command(
    "pull",
    examples="""
    # two days of production, to work with on the train
    pik pull --store aws://prod --from 2026-01-30 --to 2026-02-01 --into incident/
    pik diff aggregates --store incident/ --from 2026-01-30 --to 2026-02-01

    # how much would it be for one customer?
    pik pull --store aws://prod --entity customer-17 --since 7d --into incident/ --dry-run
    """,
)
def pull(
    cli: Context,
    into: Annotated[str, option("--into DIR", "A new directory, or one that was pulled into before.")],
    entity: options.Entities = None,
    *,
    period: options.WindowOptions,
    dry_run: options.DryRun = False,
) -> int | None:
    """Copy the raw, index, metrics and aggregates of a window into another store.

    There, every question about the window has the same answer. The window is extended to whole days and buckets. Each
    object's SHA-256 is checked; what is missing or damaged in the source is listed, with exit code 3. After an
    interruption, the same command continues; another window is added to the copy. Events cannot be ingested into a
    copy; replays and promotions change only the copy.
    """
    from pik.usecases.pull.pull import PullRequest, effective_window
    from pik.usecases.pull.pull import pull as copy_window

    request = PullRequest(period.window(), tuple(dict.fromkeys(entity or ())))
    source = cli.open_store()
    head = {"source": source.url, "into": into, "requested": request.window, "entities": request.entities}
    if dry_run:
        cli.show(PULL_DRY_RUN, _plan(cli, source, into, request), dry_run=True, **head)
        return None
    effective_window(source, request)  # before a directory is made
    done = copy_window(source, cli.open_copy(source, into, create=True), request, cli.progress)
    cli.show(PULL, done, **head, **_next(source, into, done, request))
    return PARTLY if done.problems else None


def _plan(cli: Context, source: Store, into: str, request: PullRequest) -> PullPlan:
    from pik.usecases.pull.pull import plan_pull

    try:
        copy: Store | None = cli.open_copy(source, into, create=False)
    except NotFound:
        copy = None
    return plan_pull(source, copy, request)


def _next(source: Store, into: str, done: PullReport, request: PullRequest) -> dict[str, str]:
    if done.problems:
        note = "when the source has been repaired, the same pull copies the rest"
        return {"note": note, "next": command("verify", "--store", source.url)}
    line = f"export PIK_STORE={shlex.quote(os.path.abspath(into))}"
    note = "after the next command, commands without --store use the copy"
    if not done.deliveries:
        from pik.usecases.inspect.events import nothing_matches

        note = f"{nothing_matches('events', source, Filter(done.effective, request.entities))}; {note}"
    return {"note": note, "next": line}


_HEAD = (
    Field("source", str, "the store's path or URL"),
    Field("into", str, "the copy"),
    Field("requested", Window),
    Field("entities", list[str] | None, "null: all"),
    Field("effective", Window, "the window that is pulled: whole days and buckets"),
)

PULL = Schema(
    "pik pull",
    *_HEAD,
    Field("outcome", str, "`pulled`, or `nothing new`", get=lambda done: "pulled" if done.changed else "nothing new"),
    Rows("problems", "what could not be copied", *PROBLEMS, empty="everything could be copied"),
    Field("segments", Count, "segments of the window"),
    Field("segments_elsewhere", Count, "of other days, with more deliveries of the window's events", get="elsewhere"),
    Field("deliveries", Count, "in all of these"),
    Field("copied", Count, "objects that the copy did not have yet"),
    Field("bytes_copied", Count, get="copied_size"),
    Field("batches", Count, "that these deliveries are of"),
    Field("metrics", Count, "definitions, the built-in one included"),
    Field("aggregates", Count, "current ones of the window"),
    Field("replaced", Count, "aggregates that had been promoted in the copy and are again as in the source"),
    Field("note", str),
    Field("next", str),
)

PULL_DRY_RUN = Schema(
    "pik pull --dry-run",
    Field("dry_run", bool, "true"),
    *_HEAD,
    Field("segments", Count, "of the window; whether others are needed shows when these are read"),
    Field("bytes", Count, get="size"),
    Field("to_copy", Count, "segments that the copy does not have yet", get="missing"),
    Field("bytes_to_copy", Count, get="missing_size"),
)
