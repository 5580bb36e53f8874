"""`pik duplicates`: deliveries that came again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pik.cli import options
from pik.cli.command import FOUND, cli_command
from pik.cli.commands.inspect.events import MATCHED, at_most
from pik.cli.context import Context
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Object, Rows, Schema
from pik.cli.options import option
from pik.cli.text import shortened, visible
from pik.cli.values import Count, EventId, Instant, Json
from pik.errors import UsageError
from pik.model.instant import Window, parse_instant

if TYPE_CHECKING:
    from pik.usecases.inspect.duplicates import DuplicateRow


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
        option("--class CLASS", "exact: the same content. conflict: same key, other content."),
    ] = None,
    by: Annotated[
        Literal["source", "type", "entity", "batch", "hour"] | None,
        option("--by WHAT", "Count them by source, type, entity, batch or hour of event_time."),
    ] = None,
    min_deliveries: Annotated[int, option("--min-deliveries N", "Only events with at least N deliveries.", min=2)] = 2,
    show_payload_diff: Annotated[
        bool, option("--show-payload-diff", "For conflicts: what differs from the accepted delivery.")
    ] = False,
    fail_if_any: Annotated[bool, option("--fail-if-any", "Exit with 1 if there is any.")] = False,
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
        cli.show(
            DUPLICATES_BY.without(*(f"groups.{other}" for other in _GROUPS if other != by)),
            {"window": window, "entity": entity, "by": by},
            groups=groups,
            duplicates=lambda: groups.summary.duplicates,
            truncated=lambda: groups.summary.truncated,
            note=lambda: f"--limit N shows more than the {limit:,} largest" if groups.summary.truncated else None,
        )
        any_found = groups.summary.duplicates > 0
    else:
        found = list_duplicates(store, wanted, limit=limit, payload_diff=show_payload_diff, progress=cli.progress)
        schema = DUPLICATES if show_payload_diff else DUPLICATES.without("duplicates.changes")
        more = f"--limit N shows more than the first {limit:,}, --by counts them" if limit else None
        cli.show(
            schema,
            {"window": window, "entity": entity},
            duplicates=found,
            matched=lambda: at_most(found.summary.matched, limit),
            truncated=lambda: found.summary.truncated,
            note=lambda: more if found.summary.truncated else None,
        )
        any_found = found.summary.matched != 0
    if not any_found:
        cli.note(nothing_matches("duplicates", store, window, (entity,) if entity else ()))
    return FOUND if (fail_if_any if any_found else fail_if_none) else None


_LONGEST = 24
"""Columns that people see of each value."""


def _changes(row: DuplicateRow) -> str:
    lines = (f"{one.path}: {_short(one.accepted)} → {_short(one.conflicting)}" for one in row.changes)
    return "\n".join(map(visible, lines)) or "-"


def _short(value: bytes | None) -> str:
    return "nothing" if value is None else shortened(value.decode(), _LONGEST)


DUPLICATES = Schema(
    "pik duplicates",
    Field("window", Window),
    Field("entity", str | None),
    Rows(
        "duplicates",
        "by `event_time`, `event_id`, batch and seq",
        Column("event_id", EventId),
        Column("kind", str, "`exact` or `conflict`"),
        Column("event_time", Instant),
        Column("ingest_time", Instant, detail=True),
        Column("source", str, cut=16, drop=5),
        Column("event_type", str, cut=20, drop=3),
        Column("entity_id", str, cut=24),
        Column("deliveries", int, "of its event, the accepted one included", drop=1),
        Column("batch_id", str, drop=4),
        Column("seq", int, drop=2),
        Column(
            "changes",
            Object(
                Field("path", str, "such as `payload.amount`, `event_time`"),
                Field("accepted", Json | None, "its value in the accepted delivery; null: absent"),
                Field("conflicting", Json | None, "its value in this delivery; null: absent"),
                many=True,
            ),
            "where a conflict differs from the event",
            only="with `--show-payload-diff`",
            text=_changes,
            cut=60,
        ),
        empty=lambda found: f"no such duplicates {found['window'].within}",
    ),
    MATCHED,
    TRUNCATED,
    NOTE,
)

_GROUPS = ("source", "type", "entity", "batch", "hour")

DUPLICATES_BY = Schema(
    "pik duplicates --by",
    Field("window", Window),
    Field("entity", str | None),
    Field("by", str, "what they are counted by"),
    Rows(
        "groups",
        "most first",
        *(Column(name, str, get="group", only=f"with `--by {name}`") for name in _GROUPS[:-1]),
        Column("hour", Instant, "of `event_time`", get=lambda row: parse_instant(row.group), only="with `--by hour`"),
        Column("duplicates", Count, "exact + conflict"),
        Column("exact", Count),
        Column("conflict", Count),
        empty=lambda found: f"no such duplicates {found['window'].within}",
    ),
    Field("duplicates", Count, "over all groups"),
    TRUNCATED,
    NOTE,
)
