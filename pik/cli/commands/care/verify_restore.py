"""`pik verify --restore`: create missing and modified objects again from a copy of the store."""

from __future__ import annotations

from pik.cli.command import FOUND, PARTLY
from pik.cli.context import Context
from pik.cli.document import NEXT, Column, Field, Rows, Schema
from pik.cli.values import Count
from pik.errors import command
from pik.model.window import Window


def restore(cli: Context, text: str, window: Window, *, quick: bool, full: bool, dry_run: bool) -> int | None:
    """Restore from SOURCE what is missing or modified, show what became of it, and return the exit code."""
    from pik.usecases.care.restore_raw import Outcome, restore_raw
    from pik.usecases.care.restore_source import open_source
    from pik.usecases.care.verify_findings import depth_of

    store, source = cli.open_store(), open_source(text, cli.foreign)
    depth, actor = depth_of(quick=quick, full=full or not store.deployed), cli.actor(store)
    done = restore_raw(store, source, window, cli.progress, depth, dry_run=dry_run, actor=actor)
    remaining = sum(not one.is_whole for one in done.objects)
    again = command("verify", "--restore", text) if dry_run else command("verify")
    if done.unread and not (dry_run and done.objects):
        again = command("verify", "--rebuild-index")
    cli.show(
        RESTORED,
        done,
        source=source.name,
        check=depth,
        dry_run=dry_run,
        restored=done.count(Outcome.RESTORED),
        replaced=done.count(Outcome.REPLACED),
        not_restored=remaining,
        next=again if done.unread or len(done.objects) > remaining else None,
    )
    if not remaining:
        return FOUND if done.unread else None
    return FOUND if remaining == len(done.objects) else PARTLY


RESTORED = Schema(
    "pik verify --restore",
    Field("window", Window),
    Field(
        "check",
        str,
        "how missing and modified objects were found: `full`, `stored` or `quick`, as in `pik verify`",
    ),
    Field("source", str),
    Field("dry_run", bool, "whether nothing was written, and the outcomes are what would become of the objects"),
    Rows(
        "objects",
        "the missing, modified and unreadable objects",
        Column("object", str, wrap=True, get="key"),
        Column("problem", str, "`missing`, `modified` or `unreadable`", get="damage"),
        Column(
            "outcome",
            str,
            "`restored` (it is there again), `replaced` (a copy is read in its place), `not in the source`, `other"
            " content`, `digest unknown` (neither the index nor a record knows what it was)",
        ),
        Column("found_in", str | None, "what the source has of it", wrap=True, get="source"),
        Column("detail", str | None, "what is wrong with that", wrap=True, rare=True),
        empty="no object is missing or modified: nothing to restore",
    ),
    Field("restored", Count),
    Field("replaced", Count),
    Field("not_restored", Count, "still missing or modified"),
    Field(
        "unread",
        list[str] | None,
        "whole segments that the index was rebuilt without: they are not read before it is rebuilt again",
        get=lambda done: list(done.unread),
    ),
    NEXT,
)
