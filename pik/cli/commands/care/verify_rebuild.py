"""`pik verify --rebuild-index`: rebuild the index from raw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pik.cli.command import FOUND
from pik.cli.commands.care.verify_continue import forget_checks
from pik.cli.context import Context
from pik.cli.document import Column, Field, Rows, Schema
from pik.cli.values import Count
from pik.errors import command

if TYPE_CHECKING:
    from pik.usecases.care.rebuild import RebuildReport


def rebuild(cli: Context) -> int | None:
    """Rebuild the index, show what that changed, and return the exit code."""
    from pik.usecases.care.rebuild import rebuild_index

    store = cli.open_store()
    forget_checks(store)
    done = rebuild_index(store, cli.progress, cli.actor(store))
    cli.show(REBUILD if done.undecided else REBUILD.without("undecided"), done)
    return FOUND if done.revised or done.damaged or done.undecided or done.dropped else None


_EXTENTS = {
    "all": "read whole: its verdicts and times were kept",
    "part": "read in part: what can be read was kept",
    "none": "gone or empty: verdicts and times are those of raw",
}


def _place(place: tuple[str, int] | None) -> str:
    return f"{place[0]} record {place[1]}" if place else "(lost)"


def _no_revision(done: RebuildReport) -> str:
    """Return the sentence for where no winner is known to have changed."""
    if done.lost:
        return "no event got another accepted delivery, but deliveries are lost"
    if done.replaced != "all":
        return "no event is known to have another accepted delivery than before"
    return "every event kept its accepted delivery"


REBUILD = Schema(
    "pik verify --rebuild-index",
    Field("batches", Count),
    Field("segments", Count),
    Field("deliveries", Count),
    Field("unfinished_batches", Count, "batches without a record that no later one replaced", get="unfinished"),
    Field("superseded", Count, "segments that are copies of what others hold, as a crash leaves them"),
    Field("expired", Count, "segments whose raw has expired: they stay known, without their deliveries"),
    Field(
        "replaced_index",
        str,
        "how much of the old index could be read, and was kept: `all`, `part` or `none`",
        get="replaced",
        text=lambda done: _EXTENTS[done.replaced],
    ),
    Field("guessed_times", Count, "segments whose time of recording is lost: the ingest time stands in", get="guessed"),
    Field("unacknowledged_requests", Count, "API requests never recorded; they do not count", get="unacknowledged"),
    Field("uncertain_requests", Count, "API requests that may not have been recorded; they count", get="uncertain"),
    Field("lost_deliveries", Count, "deliveries known to exist that cannot be read", get="lost"),
    Field("lost_in", list[str] | None, "the segments that contained these, and ranges of their entities"),
    Field("revised_events", Count, "events that got another accepted delivery than was recorded", get="revised"),
    Field("undecided_events", Count, "events decided only by the order of arrival", get="undecided"),
    Field("dropped_batches", list[str] | None, "only the old index knew these; not restored", get="dropped"),
    Field(
        "times_not_counted",
        list[str] | None,
        "batches of which it cannot be told how their times were read, and why: `times_read` says nothing of them",
        get="uncounted",
    ),
    Field("damaged", list[str] | None, "what could not be read; the intact part of damaged segments was kept"),
    Rows(
        "revised",
        "the first hundred of the revised events",
        Column("event_id", str),
        Column("was_accepted", str, "batch and record, for people; `(lost)`", get=lambda one: _place(one.old)),
        Column("now_accepted", str, "batch and record, for people", get=lambda one: _place(one.new)),
        get=lambda done: done.examples,
        empty=_no_revision,
    ),
    Rows(
        "undecided",
        "the first hundred of the undecided events",
        Column("event_id", str),
        Column("now_accepted", str, "batch and record of the one that counts", get=lambda one: _place(one.counted)),
        Column("not_accepted", str, "batch and record of one with another content", get=lambda one: _place(one.other)),
        get=lambda done: done.undecided_examples,
        only="where there are any",
    ),
    Field(
        "truncated",
        bool,
        "there are more revised or undecided events than rows",
        get=lambda done: done.revised > len(done.examples) or done.undecided > len(done.undecided_examples),
    ),
    Field(
        "note",
        str | None,
        get=lambda done: "restore the damaged objects from a copy of the store first" if done.damaged else None,
    ),
    Field("next", str | None, get=lambda done: command("verify", "--rebuild-index") if done.damaged else None),
)
