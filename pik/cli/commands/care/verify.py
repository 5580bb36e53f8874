"""`pik verify`: is everything as it was written?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import FOUND, cli_command
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Shown, Table
from pik.cli.render.text import number_of
from pik.errors import UsageError, command, in_turn

if TYPE_CHECKING:
    from pik.model.window import Window
    from pik.usecases.listing import Listing
    from pik.usecases.rebuild.rebuild import Rebuilt
    from pik.usecases.verify.findings import Problem, VerifyReport


@cli_command(
    "verify",
    examples="""
    # read every byte and compare; exit code 1 if anything differs
    pik verify

    # sizes and presence only, of one day
    pik verify --quick --from 2026-01-31 --to 2026-02-01

    # the index is lost or differs: make it again from raw
    pik verify --rebuild-index
    """,
)
def verify(
    cli: Context,
    quick: Annotated[bool, typer.Option("--quick", help="Presence and sizes only.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Every byte, index row and aggregate (the default).")] = False,
    rebuild_index: Annotated[bool, typer.Option("--rebuild-index", help="Make the index again from raw.")] = False,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
) -> int | None:
    """Check each segment's digest, each index row against raw and back, and each aggregate's inputs.

    A window limits the check to the days that it touches. It may run while others write. No damage are: superseded
    objects, copies of recorded deliveries that a crash left; unacknowledged ones, whose sender was told that they were
    not recorded; those of batches in progress; and expired ones, gone because the store keeps raw for some days only.
    """
    if quick and full:
        raise UsageError("--quick and --full exclude each other", hint="leave one of them out")
    window = options.window_of(from_, to, since)
    if rebuild_index:
        if quick or full or from_ or to or since:
            raise UsageError("--rebuild-index takes no other option: it rebuilds all of the index")
        from pik.usecases.rebuild.rebuild import rebuild_index as make_again

        done = make_again(cli.open_store(), cli.progress)
        cli.show(_rebuilt(done))
        return FOUND if done.revised or done.damaged or done.undecided or done.dropped else None
    from pik.usecases.verify.verify import verify as check

    store = cli.open_store()
    problems = check(store, cli.engine(), window, cli.progress, full=not quick)
    cli.show(_verified(problems, window, not quick, store.copy.source if store.copy else None))
    found = problems.summary
    if found.full and found.aggregates is None:
        cli.note("aggregates were not checked: what raw, the index or the state lacks would make them look wrong")
    if found.full and found.expired_days:
        days = number_of(found.expired_days, "day")
        cli.note(f"aggregates of {days} were not checked: raw that they were made of has expired")
    return FOUND if found.damage else None


PROBLEMS = [
    Column("kind"),
    Column("what", wrap=True),
    Column("detail", wrap=True, advice=True),
    Column("day"),
    Column("entities", get=lambda problem: problem.entities or None, wrap=True),
]
"""Columns of what is missing, damaged or wrong, wherever it is listed."""


def _verified(found: Listing[Problem, VerifyReport], window: Window, full: bool, copy_of: str | None) -> Document:
    """What differs from what was written. `copy_of` names the store that this one is a copy of."""
    remedies: dict[str, None] = {}

    def problems() -> Iterator[Problem]:
        for problem in found:
            if problem.remedy:
                remedies[problem.remedy] = None
            yield problem

    return Document(
        head={"window": window, "check": "full" if full else "quick", "copy_of": copy_of},
        tables=[Table("problems", PROBLEMS, problems(), empty=lambda: _no_problem(found.summary))],
        tail=lambda: _tail(found.summary, list(remedies), copy_of),
    )


def _no_problem(found: VerifyReport) -> str:
    """What was looked at."""
    segments = number_of(found.segments, "segment")
    if not found.full:
        return f"no problem found in {segments}, of which presence and size were looked at"
    aggregates = "" if found.aggregates is None else f" and {number_of(found.aggregates, 'aggregate')}"
    return f"no problem found in {segments}{aggregates}"


def _tail(found: VerifyReport, remedies: list[str], copy_of: str | None) -> dict[str, object]:
    return {
        "result": f"{found.valid} of {found.segments} segments valid, {found.missing} missing,"
        f" {found.modified} modified, {found.not_indexed} not indexed"
        + (f", {found.expired} expired" if found.expired else ""),
        "segments": Count(found.segments),
        "valid": Count(found.valid),
        "missing": Count(found.missing),
        "expired": Count(found.expired),
        "modified": Count(found.modified),
        "not_indexed": Count(found.not_indexed),
        "superseded": Count(found.superseded),
        "unacknowledged": Count(found.unacknowledged),
        "in_progress": Count(found.in_progress),
        "deliveries": Count(found.deliveries),
        "aggregates": Shown(None, "not checked") if found.aggregates is None else Count(found.aggregates),
        "damage": Count(found.damage),
        **_next(found, remedies, copy_of),
    }


def _next(found: VerifyReport, remedies: list[str], copy_of: str | None) -> dict[str, str | None]:
    """What to type next, and what to do before. Remedies stand below the table, too: a cell breaks them."""
    from pik.usecases.verify.findings import ProblemKind

    note, line = None, None
    if copy_of and found.kinds & {ProblemKind.MISSING, ProblemKind.MODIFIED}:
        note = "pull the same window again, into a new directory if objects of this one are modified"
        line = command("pull", "--store", copy_of, "--into", "DIR")
    elif found.kinds & {ProblemKind.MISSING, ProblemKind.MODIFIED}:
        note = "restore the named objects from a copy of the store first (raw is immutable: any copy will do)"
        line = command("verify")
    elif ProblemKind.INDEX in found.kinds:
        line = in_turn(command("verify", "--rebuild-index"), command("verify"))
    elif ProblemKind.UNKNOWN in found.kinds:
        note = "look at the unknown objects; pik neither wrote them nor reads them, and may be too old to know them"
    elif ProblemKind.STATE in found.kinds:
        note = in_turn(*remedies) or None
    elif ProblemKind.AGGREGATE in found.kinds:
        note = "the diff tells what the aggregates should be; replayed and promoted, they are"
        line = command("diff", "aggregates")
    return {"note": note, "next": line}


def _rebuilt(done: Rebuilt) -> Document:
    """What the index was made of, and which events have another accepted delivery now, or may have."""
    return Document(
        head={
            "batches": Count(done.batches),
            "segments": Count(done.segments),
            "deliveries": Count(done.deliveries),
            "unfinished_batches": Count(done.unfinished),
            "superseded": Count(done.superseded),
            "expired": Count(done.expired),
            "replaced_index": Shown(done.replaced, _EXTENTS[done.replaced]),
            "guessed_times": Count(done.guessed),
            "unacknowledged_requests": Count(done.unacknowledged),
            "uncertain_requests": Count(done.uncertain),
            "lost_deliveries": Count(done.lost),
            "lost_in": list(done.lost_in) or None,
            "revised_events": Count(done.revised),
            "undecided_events": Count(done.undecided),
            "dropped_batches": list(done.dropped) or None,
            "damaged": list(done.damaged) or None,
        },
        tables=[
            Table("revised", _REVISED, done.examples, empty=_no_revision(done)),
            *([Table("undecided", _UNDECIDED, done.undecided_examples)] if done.undecided else []),
        ],
        tail={
            "truncated": done.revised > len(done.examples) or done.undecided > len(done.undecided_examples),
            "note": "restore the damaged objects from a copy of the store first" if done.damaged else None,
            "next": command("verify", "--rebuild-index") if done.damaged else None,
        },
    )


_EXTENTS = {
    "all": "read whole: its verdicts and times were kept",
    "part": "read in part: what it still says was kept",
    "none": "gone or empty: verdicts and times are those of raw",
}

_REVISED = [
    Column("event_id"),
    Column("was_accepted", get=lambda one: _place(one.old) if one.old else "(lost)"),
    Column("now_accepted", get=lambda one: _place(one.new)),
]

_UNDECIDED = [
    Column("event_id"),
    Column("now_accepted", get=lambda one: _place(one.counted)),
    Column("not_accepted", get=lambda one: _place(one.other)),
]


def _place(place: tuple[str, int]) -> str:
    batch_id, seq = place
    return f"{batch_id} record {seq}"


def _no_revision(done: Rebuilt) -> str:
    """What can be said where no winner is known to have changed."""
    if done.lost:
        return "no event got another accepted delivery, but deliveries are lost"
    if done.replaced != "all":
        return "no event is known to have another accepted delivery than before"
    return "every event kept its accepted delivery"
