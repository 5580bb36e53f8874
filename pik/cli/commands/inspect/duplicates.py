"""`pik duplicates`: deliveries that came again."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal
from unicodedata import normalize

from pik.cli import options
from pik.cli.command import FOUND, PARTLY, cli_command
from pik.cli.commands.inspect.corrected import (
    CORRECTED_COLUMNS,
    EFFECTS,
    effects_finder,
    effects_note,
    effects_of,
    notes,
)
from pik.cli.commands.inspect.events import MATCHED, at_most
from pik.cli.commands.inspect.groups import GROUPED, Watched, read_by, shown_group
from pik.cli.context import Context
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Object, Rows, Schema
from pik.cli.options import option
from pik.cli.text import shortened
from pik.cli.values import Count, EventId, Instant, Json
from pik.errors import UsageError
from pik.model.visible import visible
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.delivery import Filter
    from pik.usecases.inspect.duplicates import DuplicateRow
    from pik.usecases.inspect.suspects import SuspectRule


@cli_command(
    "duplicates",
    examples="""
    # where do they come from?
    pik duplicates --since 1d --by source

    # the same idempotency key with other content, and what differs
    pik duplicates --class conflict --show-payload-diff

    # what did conflicts do to the amounts, and what would revenue be if the later ones counted?
    pik duplicates --class conflict --changes payload.amount
    pik duplicates --class conflict --impact

    # events that may be retries with a new time or key: are they the same payment, and which app sent them?
    pik duplicates --class suspect --column payload.order --column idempotency_key
    pik duplicates --class suspect --within 10s --by payload.app

    # in a runbook: exit code 1 if there is any
    pik duplicates --from 2026-01-31 --fail-if-any --limit 20
    """,
)
def duplicates(
    cli: Context,
    entity: options.Entity = None,
    *,
    period: options.WindowOptions,
    type_: options.Type = None,
    source: options.Source = None,
    kind: Annotated[
        Literal["exact", "conflict", "suspect"] | None,
        option(
            "--class CLASS",
            "exact: the same content. conflict: same key, other content. suspect: the content of another event, with "
            "another key or a moment later.",
        ),
    ] = None,
    within: Annotated[
        str | None, option("--within DURATION", "Suspects: the longest time between the two (default 5s, at most 1h).")
    ] = None,
    same: Annotated[
        list[str] | None,
        option("--same PATH[,PATH…]", "Suspects: what must be equal instead of the payload (repeatable)."),
    ] = None,
    any_source: Annotated[
        bool, option("--any-source", "Suspects: also of another source, as when a browser and a server send the same.")
    ] = False,
    column: Annotated[
        list[str] | None,
        option("--column PATH", "Suspects: also show what both have there, such as payload.amount (repeatable)."),
    ] = None,
    by: Annotated[
        str | None,
        option("--by WHAT", "Count them by source, type, entity, batch, hour or day of event_time, or PATH."),
    ] = None,
    min_deliveries: Annotated[int, option("--min-deliveries N", "Only events with at least N deliveries.", min=2)] = 2,
    show_payload_diff: Annotated[
        bool, option("--show-payload-diff", "For conflicts: what differs from the accepted delivery.")
    ] = False,
    changes: Annotated[
        str | None,
        option("--changes PATH", "For conflicts, and suspects with --same: old and new value there, counted."),
    ] = None,
    impact: Annotated[
        bool,
        option(
            "--impact", "Each metric as it is, and if duplicates counted, conflicts won, or suspects did not count."
        ),
    ] = False,
    fail_if_any: Annotated[bool, option("--fail-if-any", "Exit with 1 if there is any.")] = False,
    fail_if_none: options.FailIfNone = False,
    as_received: options.AsReceived = False,
    limit: options.Limit = None,
) -> int | None:
    """List each delivery that is not the first of its event, by event_time, or count them.

    On a terminal the first 50, without --limit; through a pipe and in the other formats all of them. PATH is a JMESPath
    on the event, such as payload.app. Recorded corrections apply: a duplicate is listed at its corrected time, unless
    it counts, its event was taken out, or its batch was withdrawn. --as-received shows what came.

    A suspect is an event with the source, type, entity and payload of another one, shortly after it, or at the same
    time under another idempotency key: perhaps a retry. That is a guess: suspects are listed only with --class suspect,
    and numbers count them.
    """
    from pik.cli.commands.inspect.duplicate_effects import show_effects
    from pik.cli.commands.inspect.suspects import show_suspects
    from pik.model.delivery import Filter
    from pik.model.path import EventPath
    from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates, list_duplicates

    window = period.window()
    selected = Filter(window, (entity,) if entity else (), source, type_)
    chosen = read_by(by) if by else None
    columns = [EventPath(path, "--column") for path in column or ()]
    _one_of(
        {
            "--column": column,
            "--by": by,
            "--changes": changes,
            "--impact": impact,
            "--show-payload-diff": show_payload_diff,
        }
    )
    path = EventPath(changes, "--changes") if changes else None
    if as_received and impact:
        raise UsageError(
            "--impact computes metrics, and corrections hold in these",
            hint="without corrections: pik diff aggregates --assume corrections=none",
        )
    if kind == "suspect":
        if any_source and impact:
            raise UsageError(
                "--impact leaves out suspects of the same source only",
                hint="without the event ids in a file: pik diff aggregates --assume without=@FILE",
            )
        rule = replace(_rule(within, same, min_deliveries, show_payload_diff), any_source=any_source)
        complete = True
        if path or impact:
            any_found, complete = show_effects(
                cli, selected, rule, path, limit or cli.default_limit, as_received=as_received
            )
        else:
            limit = limit or cli.default_limit
            any_found = show_suspects(cli, selected, rule, chosen, limit, columns=columns, as_received=as_received)
        ended = _ended(cli, "suspects", selected, any_found, fail_if_any, fail_if_none)
        return ended if complete else PARTLY
    for name, given in (("--within", within), ("--same", same), ("--any-source", any_source), ("--column", column)):
        if given:
            raise UsageError(f"{name} is for suspects", hint="add --class suspect")
    wanted = DuplicateFilter(selected, kind, min_deliveries, as_received)
    if path or impact:
        if path and kind != "conflict":
            raise UsageError("--changes compares two deliveries that differ", hint="add --class conflict")
        any_found, complete = show_effects(
            cli, selected, wanted, path, limit or cli.default_limit, as_received=as_received
        )
        ended = _ended(cli, "duplicates", selected, any_found, fail_if_any, fail_if_none)
        return ended if complete else PARTLY
    store = cli.open_store()
    limit = limit or cli.default_limit
    effects = effects_finder(cli, store, selected, as_received=as_received)
    if chosen:
        groups = count_duplicates(store, wanted, chosen, limit=limit, progress=cli.progress)
        watched = Watched(groups, chosen)
        cli.show(
            shown_group(DUPLICATES_BY, chosen),
            {"window": window, "entity": entity, "by": by},
            groups=watched,
            duplicates=lambda: groups.summary.duplicates,
            truncated=lambda: groups.summary.truncated,
            corrected=lambda: effects_of(effects()),
            note=lambda: notes(
                f"--limit N shows more than the {limit:,} largest" if groups.summary.truncated else None,
                watched.note,
                effects_note(effects()),
            ),
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
            corrected=lambda: effects_of(effects()),
            note=lambda: notes(more if found.summary.truncated else None, effects_note(effects())),
        )
        any_found = found.summary.matched != 0
    return _ended(cli, "duplicates", selected, any_found, fail_if_any, fail_if_none)


def _ended(
    cli: Context, things: str, wanted: Filter, any_found: bool, fail_if_any: bool, fail_if_none: bool
) -> int | None:
    """Note why nothing was found, if so, and return the exit code."""
    from pik.usecases.inspect.events import nothing_matches

    if not any_found:
        cli.note(nothing_matches(things, cli.open_store(), wanted))
    return FOUND if (fail_if_any if any_found else fail_if_none) else None


def _one_of(given: dict[str, object]) -> None:
    """Raise UsageError where several are given that show different things."""
    names = [name for name, value in given.items() if value]
    if len(names) > 1:
        raise UsageError(f"{names[0]} and {names[1]} show different things", hint="leave one of them out")


def _rule(within: str | None, same: list[str] | None, min_deliveries: int, show_payload_diff: bool) -> SuspectRule:
    """Return the rule for suspects. Raises UsageError for options that have no meaning for them."""
    from pik.model.path import EventPath
    from pik.model.scenario import MOST_WITHIN, RETRIED_WITHIN
    from pik.usecases.inspect.suspects import SuspectRule

    for name, given in (("--min-deliveries", min_deliveries > 2), ("--show-payload-diff", show_payload_diff)):
        if given:
            raise UsageError(f"{name} is for duplicates, and suspects are not counted as such", hint="leave it out")
    reach = RETRIED_WITHIN if within is None else options.duration("--within", within)
    if reach > MOST_WITHIN:
        raise UsageError(f"--within {within}: more than 1h", hint="a retry comes soon, such as --within 30s")
    return SuspectRule(reach, tuple(EventPath(path, "--same") for text in same or () for path in _paths(text)))


def _paths(text: str) -> list[str]:
    """Return the paths of a list with commas. Where commas may be part of an expression, the text is one path."""
    return [text] if _HAS_COMMAS.search(text) else [path.strip() for path in text.split(",")]


_HAS_COMMAS = re.compile(r"""[(\[{"'`]""")


_LONGEST = 40
"""Columns that people see of each value."""


def _changes(row: DuplicateRow) -> str:
    lines = (f"{one.path}: {' → '.join(_told_apart(one.accepted, one.conflicting))}" for one in row.changes)
    return "\n".join(map(visible, lines)) or "-"


def _told_apart(*values: bytes | None) -> list[str]:
    """Return values that differ as people see them: with escapes where they are letters with accents of two kinds."""
    texts = [_short(value) for value in values]
    if len(set(texts)) == len({normalize("NFC", text) for text in texts}):
        return texts
    return [text.encode("ascii", "backslashreplace").decode() for text in texts]


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
        Column("event_time", Instant, "when it happened, corrections applied", drop=1),
        *CORRECTED_COLUMNS,
        Column("ingest_time", Instant, detail=True),
        Column("source", str, cut=16, drop=6),
        Column("event_type", str, cut=20, drop=4),
        Column("entity_id", str, cut=24, drop=1),
        Column("deliveries", int, "of its event, the accepted one included", drop=2),
        Column("batch_id", str, drop=5),
        Column("seq", int, drop=3),
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
            wrap=True,
        ),
        empty=lambda found: f"no such duplicates {found['window'].within}",
    ),
    MATCHED,
    TRUNCATED,
    EFFECTS,
    NOTE,
)

DUPLICATES_BY = Schema(
    "pik duplicates --by",
    Field("window", Window),
    Field("entity", str | None),
    Field("by", str, "what they are counted by"),
    Rows(
        "groups",
        "most first",
        *GROUPED,
        Column("duplicates", Count, "exact + conflict", bar=True),
        Column("exact", Count),
        Column("conflict", Count),
        empty=lambda found: f"no such duplicates {found['window'].within}",
    ),
    Field("duplicates", Count, "over all groups"),
    TRUNCATED,
    EFFECTS,
    NOTE,
)
