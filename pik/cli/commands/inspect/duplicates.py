"""`pik duplicates`: deliveries that came again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pik.cli import options
from pik.cli.command import FOUND, cli_command
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, EventId, Instant, Json, Shown, Table
from pik.cli.render.text import shortened, visible
from pik.errors import UsageError

if TYPE_CHECKING:
    from pik.model.window import Window
    from pik.usecases.inspect.duplicates import Change, DuplicateList, GroupList


@cli_command(
    "duplicates",
    examples="""
    # where do they come from?
    pik duplicates --since 1d --by source

    # the same idempotency key with other content, and what differs
    pik duplicates --class conflict --show-payload-diff

    # in a runbook: exit code 1 if there is any
    pik duplicates --from 2026-01-31 --fail-if-any --limit 20
    """,
)
def duplicates(
    cli: Context,
    entity: options.Entity = None,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
    type_: options.Type = None,
    source: options.Source = None,
    kind: Annotated[
        Literal["exact", "conflict"] | None,
        typer.Option("--class", metavar="CLASS", help="exact: the same content. conflict: same key, other content."),
    ] = None,
    by: Annotated[
        Literal["source", "type", "entity", "batch", "hour"] | None,
        typer.Option("--by", metavar="WHAT", help="Count them by source, type, entity, batch or hour of event_time."),
    ] = None,
    min_deliveries: Annotated[
        int, typer.Option("--min-deliveries", metavar="N", min=2, help="Only events with at least N deliveries.")
    ] = 2,
    show_payload_diff: Annotated[
        bool, typer.Option("--show-payload-diff", help="For conflicts: what they say otherwise than the event.")
    ] = False,
    fail_if_any: Annotated[bool, typer.Option("--fail-if-any", help="Exit with 1 if there is any.")] = False,
    fail_if_none: options.FailIfNone = False,
    limit: options.Limit = None,
) -> int | None:
    """List each delivery that is not the first of its event, by event_time, or count them.

    On a terminal the first 50, without --limit; through a pipe and in the other formats all of them.
    """
    from pik.model.filter import Filter
    from pik.usecases.inspect.duplicates import Wanted, count_duplicates, list_duplicates
    from pik.usecases.inspect.events import nothing_matches

    window = options.window_of(from_, to, since)
    wanted = Wanted(Filter(window, (entity,) if entity else (), source, type_), kind, min_deliveries)
    if by and show_payload_diff:
        raise UsageError("--by counts, so there is nothing for --show-payload-diff", hint="leave one of them out")
    store = cli.open_store()
    limit = limit or cli.default_limit
    if by:
        groups = count_duplicates(store, wanted, by, limit=limit, progress=cli.progress)
        cli.show(_counted(groups, by, entity, limit))
        any_found = groups.duplicates > 0
    else:
        found = list_duplicates(store, wanted, limit=limit, payload_diff=show_payload_diff, progress=cli.progress)
        cli.show(_listed(found, entity, limit, payload_diff=show_payload_diff))
        any_found = found.matched != 0
    if not any_found:
        cli.note(nothing_matches("duplicates", store, window, (entity,) if entity else ()))
    return FOUND if (fail_if_any if any_found else fail_if_none) else None


def _listed(found: DuplicateList, entity: str | None, limit: int | None, *, payload_diff: bool) -> Document:
    """Each duplicate, with `payload_diff` and what a conflict says otherwise."""
    window = found.window
    changes = Column("changes", get=lambda row: _changes(row.changes), cut=60)
    return Document(
        head={"window": window, "entity": entity},
        tables=[Table("duplicates", [*_COLUMNS, changes] if payload_diff else _COLUMNS, found.rows, _none(window))],
        tail=lambda: {
            "matched": Shown(None, f"more than {limit:,}") if found.matched is None else Count(found.matched),
            "truncated": found.truncated,
            "note": f"--limit N shows more than the first {limit:,}, --by counts them" if found.truncated else None,
        },
    )


def _counted(groups: GroupList, by: str, entity: str | None, limit: int | None) -> Document:
    """The groups, or the first of them, and how many duplicates there are in all."""
    window = groups.window
    columns = [
        Column(by, get=lambda row: row.group),
        Column("duplicates", Count),
        Column("exact", Count),
        Column("conflict", Count),
    ]
    return Document(
        head={"window": window, "entity": entity, "by": by},
        tables=[Table("groups", columns, groups.rows, _none(window))],
        tail=lambda: {
            "duplicates": Count(groups.duplicates),
            "truncated": groups.truncated,
            "note": f"--limit N shows more than the {limit:,} largest" if groups.truncated else None,
        },
    )


def _none(window: Window) -> str:
    return f"no such duplicates in {window}"


_COLUMNS = [
    Column("event_id", EventId),
    Column("kind"),
    Column("event_time", Instant),
    Column("ingest_time", Instant, detail=True),
    Column("source", cut=16, drop=5),
    Column("event_type", cut=20, drop=3),
    Column("entity_id", cut=24),
    Column("deliveries", drop=1),
    Column("batch_id", drop=4),
    Column("seq", drop=2),
]

_LONGEST = 24
"""Columns that people see of each value."""


def _changes(changes: Sequence[Change]) -> Shown:
    lines = [f"{one.path}: {_short(one.accepted)} → {_short(one.came)}" for one in changes]
    return Shown([_change(one) for one in changes], "\n".join(map(visible, lines)) or "-")


def _short(value: bytes | None) -> str:
    return "nothing" if value is None else shortened(value.decode(), _LONGEST)


def _change(change: Change) -> dict[str, object]:
    return {
        "path": change.path,
        "accepted": None if change.accepted is None else Json(change.accepted),
        "came": None if change.came is None else Json(change.came),
    }
