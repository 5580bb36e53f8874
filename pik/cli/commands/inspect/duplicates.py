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
    from pik.usecases.inspect.duplicates import DuplicateRow, FieldChange, GroupRow, GroupTotals
    from pik.usecases.listing import Extent, Listing


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
    from pik.model.delivery import Filter
    from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates, list_duplicates
    from pik.usecases.inspect.events import nothing_matches

    window = options.window_of(from_, to, since)
    wanted = DuplicateFilter(Filter(window, (entity,) if entity else (), source, type_), kind, min_deliveries)
    if by and show_payload_diff:
        raise UsageError("--by counts, so there is nothing for --show-payload-diff", hint="leave one of them out")
    store = cli.open_store()
    limit = limit or cli.default_limit
    if by:
        groups = count_duplicates(store, wanted, by, limit=limit, progress=cli.progress)
        cli.show(_counted(groups, window, by, entity, limit))
        any_found = groups.summary.duplicates > 0
    else:
        found = list_duplicates(store, wanted, limit=limit, payload_diff=show_payload_diff, progress=cli.progress)
        cli.show(_listed(found, window, entity, limit, payload_diff=show_payload_diff))
        any_found = found.summary.matched != 0
    if not any_found:
        cli.note(nothing_matches("duplicates", store, window, (entity,) if entity else ()))
    return FOUND if (fail_if_any if any_found else fail_if_none) else None


def _listed(
    found: Listing[DuplicateRow, Extent], window: Window, entity: str | None, limit: int | None, *, payload_diff: bool
) -> Document:
    """Return each duplicate, with `payload_diff` also where a conflict differs from the accepted delivery."""
    changes = Column("changes", get=lambda row: _changes(row.changes), cut=60)

    def tail() -> dict[str, object]:
        extent = found.summary
        return {
            "matched": Shown(None, f"more than {limit:,}") if extent.matched is None else Count(extent.matched),
            "truncated": extent.truncated,
            "note": f"--limit N shows more than the first {limit:,}, --by counts them" if extent.truncated else None,
        }

    return Document(
        head={"window": window, "entity": entity},
        tables=[Table("duplicates", [*_COLUMNS, changes] if payload_diff else _COLUMNS, found, _none(window))],
        tail=tail,
    )


def _counted(
    groups: Listing[GroupRow, GroupTotals], window: Window, by: str, entity: str | None, limit: int | None
) -> Document:
    """Return the groups, or the largest of them, and how many duplicates there are in all."""
    columns = [
        Column(by, get=lambda row: row.group),
        Column("duplicates", Count),
        Column("exact", Count),
        Column("conflict", Count),
    ]
    return Document(
        head={"window": window, "entity": entity, "by": by},
        tables=[Table("groups", columns, groups, _none(window))],
        tail=lambda: {
            "duplicates": Count(groups.summary.duplicates),
            "truncated": groups.summary.truncated,
            "note": f"--limit N shows more than the {limit:,} largest" if groups.summary.truncated else None,
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


def _changes(changes: Sequence[FieldChange]) -> Shown:
    lines = [f"{one.path}: {_short(one.accepted)} → {_short(one.conflicting)}" for one in changes]
    return Shown([_change(one) for one in changes], "\n".join(map(visible, lines)) or "-")


def _short(value: bytes | None) -> str:
    return "nothing" if value is None else shortened(value.decode(), _LONGEST)


def _change(change: FieldChange) -> dict[str, object]:
    return {
        "path": change.path,
        "accepted": None if change.accepted is None else Json(change.accepted),
        "conflicting": None if change.conflicting is None else Json(change.conflicting),
    }
