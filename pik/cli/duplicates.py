"""`pik duplicates`: deliveries that came again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pik.cli import options
from pik.cli.command import FOUND, Commands
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Instant, Json, Shown, Table
from pik.cli.render.text import shortened, visible
from pik.errors import UsageError
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.ports.store import Store
    from pik.usecases.duplicates import Change, Group, Wanted

commands = Commands()


@commands.add(
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
    limit: options.Limit = None,
) -> int | None:
    """List each delivery that is not the first of its event, by event_time, or count them."""
    from pik.usecases.duplicates import Wanted
    from pik.usecases.reading import Filter

    window = options.window_of(from_, to, since)
    wanted = Wanted(Filter(window, (entity,) if entity else (), source, type_), kind, min_deliveries)
    if by and show_payload_diff:
        raise UsageError("--by counts, so there is nothing for --show-payload-diff", hint="leave one of them out")
    store = cli.open_store()
    any_found = (
        _show_counts(cli, store, wanted, by, limit) if by else _show(cli, store, wanted, limit, show_payload_diff)
    )
    return FOUND if fail_if_any and any_found else None


def _show_counts(cli: Context, store: Store, wanted: Wanted, by: Group, limit: int | None) -> int:
    from pik.usecases.duplicates import count_duplicates

    rows = count_duplicates(store, wanted, by)
    total = sum(row.duplicates for row in rows)
    columns = [
        Column(by, get=lambda row: row.group),
        Column("duplicates", Count),
        Column("exact", Count),
        Column("conflict", Count),
    ]
    cli.show(
        Document(
            head={"window": wanted.filter.window, "by": by},
            tables=[Table("groups", columns, rows[:limit], empty=_none(wanted.filter.window))],
            tail={"duplicates": Count(total), "cut": limit is not None and len(rows) > limit},
        )
    )
    return total


def _show(cli: Context, store: Store, wanted: Wanted, limit: int | None, payload_diff: bool) -> int:
    from pik.usecases.duplicates import list_duplicates

    found = list_duplicates(store, wanted, limit=limit, payload_diff=payload_diff)
    columns = [
        Column("event_id"),
        Column("kind"),
        Column("event_time", Instant),
        Column("ingest_time", Instant, detail=True),
        Column("source"),
        Column("event_type"),
        Column("entity_id"),
        Column("deliveries"),
        Column("batch_id"),
        Column("seq"),
    ]
    if payload_diff:
        columns.append(Column("changes", get=lambda row: _changes(row.changes), cut=60))
    cli.show(
        Document(
            head={"window": wanted.filter.window},
            tables=[Table("duplicates", columns, found.rows, empty=_none(wanted.filter.window))],
            tail=lambda: {"matched": Count(found.matched), "cut": found.cut},
        )
    )
    return found.matched


def _none(window: Window) -> str:
    return f"no such duplicates in {window}"


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
