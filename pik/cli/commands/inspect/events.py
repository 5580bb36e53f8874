"""`pik events`: what really arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from pik.cli import options
from pik.cli.command import FOUND, cli_command
from pik.cli.commands.inspect.corrected import (
    CORRECTED_COLUMNS,
    EFFECTS,
    effects_finder,
    effects_note,
    effects_of,
    notes,
)
from pik.cli.commands.inspect.follow import expect_followable, show_as_recorded
from pik.cli.commands.inspect.groups import GROUPED, Watched, read_by, shown_group, with_hours_without
from pik.cli.context import Context
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Rows, Schema
from pik.cli.options import option
from pik.cli.values import Count, EventId, Instant, Json, Lag, Shown
from pik.config import Format
from pik.errors import Invalid, UsageError
from pik.model.duration import parse_duration
from pik.model.instant import MAX_INSTANT, MIN_INSTANT
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.delivery import Filter
    from pik.model.path import EventPath
    from pik.ports.store import Store
    from pik.usecases.inspect.conditions import Conditions
    from pik.usecases.inspect.effects import Effects
    from pik.usecases.inspect.events import EventRow


@cli_command(
    "events",
    examples="""
    # what arrived for one customer in the last two hours
    pik events --entity customer-17 --since 2h

    # a day as people there know it, and its times by their clocks
    pik events --from 2026-03-29 --to 2026-03-30 --timezone Europe/Berlin --display-timezone Europe/Berlin

    # the newest refunds above 100, with their amounts
    pik events --type refund --where "(payload->>'amount')::DECIMAL(18, 2) > 100" --newest \\
        --column payload.amount

    # what was recorded in the last 15 minutes, although it happened more than an hour before
    pik events --recorded-since 15m --min-lag 1h

    # where a batch's events lie, hour by hour; which releases sent the conflicts
    pik events --batch 01J8Z3 --by hour
    pik events --class conflict --by payload.release

    # what comes in, as it is recorded
    pik events --type refund --follow --format jsonl
    """,
)
def events(
    cli: Context,
    entity: options.Entity = None,
    *,
    period: options.WindowOptions,
    type_: options.Type = None,
    source: options.Source = None,
    batch: Annotated[
        str | None, option("--batch BATCH", "Only of this batch: id or its beginning, latest, -2.")
    ] = None,
    recorded_since: Annotated[
        str | None, option("--recorded-since TIME", "Only what was recorded from then on: a time, or 15m ago.")
    ] = None,
    recorded_until: Annotated[
        str | None, option("--recorded-until TIME", "Only what was recorded before then; likewise.")
    ] = None,
    min_lag: Annotated[str | None, option("--min-lag DURATION", "Only with at least this lag: 90s, 15m, 2h.")] = None,
    kind: Annotated[
        Literal["accepted", "exact", "conflict"],
        option("--class CLASS", "accepted: deliveries that count; exact, conflict: duplicates of that kind."),
    ] = "accepted",
    where: Annotated[
        str | None, option("--where SQL", "Only those that meet a condition, as in a metric's where.")
    ] = None,
    not_counted: Annotated[
        str | None,
        option("--not-counted METRIC", "Only those that the current value of a metric does not count, and why."),
    ] = None,
    column: Annotated[
        list[str] | None,
        option("--column PATH", "Also show this: a JMESPath on the event, such as payload.amount (repeatable)."),
    ] = None,
    by: Annotated[
        str | None,
        option("--by WHAT", "Count them by hour, day, type, entity, source, batch, or a PATH as in --column."),
    ] = None,
    newest: Annotated[bool, option("--newest", "The newest first.")] = False,
    follow: Annotated[
        bool, option("--follow", "Show what is recorded from now on, or since --recorded-since, until Ctrl-C.")
    ] = False,
    as_received: options.AsReceived = False,
    limit: options.Limit = None,
    fail_if_any: Annotated[bool, option("--fail-if-any", "Exit with 1 if there is any.")] = False,
    fail_if_none: options.FailIfNone = False,
) -> int | None:
    """List the events of an entity, or of all entities, oldest first, or count them.

    On a terminal the first 50, without --limit; through a pipe and in the other formats all of them. Lag is
    received_time (or ingest_time without one) minus event_time; a negative one is clock skew. Duplicates are counted
    under deliveries; --class lists them, each with its own batch and seq. Recorded corrections apply: events are shown
    at their corrected times, and those that do not count are left out, unless --as-received is given. The window is
    that of event_time; --recorded-since and --recorded-until are about when the index recorded a delivery.

    --not-counted says why the current value does not count an event: there is no value of its entity and bucket (no
    value), it was recorded after the value was computed (late), it counts there only since a later rebuild of the index
    (verdict) or a later correction (corrected), or the metric's condition leaves it out (filter).

    --follow looks for newly recorded deliveries every two seconds and shows each once, in the order of recording, as a
    table or with --format jsonl.
    """
    from pik.model.delivery import Filter
    from pik.usecases.inspect.events import list_events, nothing_matches

    window = period.window()
    recorded = _recorded(recorded_since, recorded_until, period.timezone)
    lag = None if min_lag is None else _parsed("--min-lag", parse_duration, min_lag)
    paths = _paths("--column", column or ())
    grouping = None if by is None else read_by(by)
    if not_counted is not None and as_received:
        raise UsageError(
            "--not-counted compares with a current value, and corrections hold in what that should count",
            hint="--not-counted without --as-received",
        )
    if not_counted is not None and kind != "accepted":
        raise UsageError("values count accepted deliveries only", hint="--not-counted without --class")
    if grouping is not None and (paths or newest):
        raise UsageError("--by counts, so there is nothing for --column and --newest", hint="leave them out")
    if follow:
        not_followed = {"--by": by, "--newest": newest, "--where": where, "--not-counted": not_counted}
        expect_followable(cli, [name for name, given in not_followed.items() if given])
    store = cli.open_store()
    if not follow:
        limit = limit or cli.default_limit
    wanted = Filter(window, (entity,) if entity else (), source, type_)
    cut, conditions = _conditions(cli, store, wanted, kind, batch, recorded, lag, where, not_counted, as_received)
    if not follow:  # a batch that is being written gets other events
        wanted = cut
    head = {"window": window, "entity": entity}
    if follow:
        show_as_recorded(cli, store, wanted, conditions, _schema(cli, paths, not_counted=False), limit)
        return None
    effects = effects_finder(cli, store, wanted, as_received=as_received)
    if grouping is not None:
        any_found = _show_groups(cli, store, wanted, conditions, grouping, limit, head, effects)
    else:
        found = list_events(store, wanted, limit, conditions=conditions, newest=newest, progress=cli.progress)
        which = "newest" if newest else "oldest"
        cli.show(
            _schema(cli, paths, not_counted=not_counted is not None),
            head,
            events=found,
            matched=lambda: at_most(found.summary.matched, limit),
            truncated=lambda: found.summary.truncated,
            corrected=lambda: effects_of(effects()),
            note=lambda: notes(
                f"--limit N shows more than the {which} {limit:,}" if found.summary.truncated else None,
                effects_note(effects()),
            ),
        )
        any_found = found.summary.matched != 0
    if not any_found:
        cli.note(nothing_matches("events", store, replace(wanted, window=window)))
    return FOUND if (fail_if_any if any_found else fail_if_none) else None


def _parsed(name: str, parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except Invalid as error:
        raise UsageError(f"{name}: {error.message}") from None


def _recorded(since: str | None, until: str | None, timezone: str | None) -> Window:
    """Return the window of recording."""
    start = MIN_INSTANT if since is None else options.moment_or_ago("--recorded-since", since, timezone)
    end = MAX_INSTANT + 1 if until is None else options.moment_or_ago("--recorded-until", until, timezone)
    if start >= end:
        raise UsageError(
            "--recorded-until is not later than --recorded-since",
            hint="--recorded-until is the end of the window, which it leaves out",
        )
    return Window(start, end)


def _paths(name: str, texts: Sequence[str]) -> list[EventPath]:
    if not texts:
        return []
    from pik.model.path import EventPath

    return [EventPath(text, name) for text in dict.fromkeys(texts)]


def _conditions(
    cli: Context,
    store: Store,
    wanted: Filter,
    kind: str,
    batch: str | None,
    recorded: Window,
    min_lag: int | None,
    where: str | None,
    not_counted: str | None,
    as_received: bool,
) -> tuple[Filter, Conditions]:
    """Return what is asked of deliveries, and the filter, its window cut to what can hold them."""
    from pik.model.batch import Verdict
    from pik.ports.index import batch_of
    from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES
    from pik.usecases.inspect.conditions import Conditions, within_batch
    from pik.usecases.inspect.where import matching

    batch_id = None
    if batch is not None:
        found = batch_of(store.index, cli.recent(store, "batch", batch))
        batch_id, wanted = found.batch_id, within_batch(store, wanted, found, as_received=as_received)
    verdict = Verdict(kind)
    places = None
    if where is not None:
        duplicates = verdict != Verdict.ACCEPTED
        overrides = AS_RECEIVED if as_received else NO_OVERRIDES
        places = matching(store, cli.engine(), wanted, where, duplicates=duplicates, overrides=overrides)
    values = None
    if not_counted is not None:
        from pik.usecases.inspect.not_counted import CurrentValues

        values = CurrentValues(store, cli.engine(), wanted, not_counted)
    return wanted, Conditions(verdict, batch_id, recorded, min_lag, places, values, as_received)


def _show_groups(
    cli: Context,
    store: Store,
    wanted: Filter,
    conditions: Conditions,
    by: str | EventPath,
    limit: int | None,
    head: dict[str, Any],
    effects: Callable[[], Effects | None],
) -> bool:
    """Show how many events there are in each group, and return whether there is any."""
    from pik.usecases.inspect.count_events import count_events

    found = count_events(store, wanted, by, limit, conditions=conditions, progress=cli.progress)
    watched = Watched(found, by)

    def note() -> str | None:
        first = "first" if by in ("hour", "day") else "largest"
        more = f"--limit N shows more than the {first} {limit:,}" if found.summary.truncated else None
        return notes(more, watched.note, effects_note(effects()))

    is_for_people = cli.settings.format in (Format.TABLE, Format.MD)
    cli.show(
        shown_group(EVENTS_BY, by),
        {**head, "by": str(by)},
        groups=with_hours_without(watched) if by == "hour" and is_for_people else watched,
        events=lambda: found.summary.events,
        matched=lambda: found.summary.groups,
        truncated=lambda: found.summary.truncated,
        corrected=lambda: effects_of(effects()),
        note=note,
    )
    return found.summary.events > 0


def at_most(matched: int | None, limit: int | None) -> Shown | int:
    """Return how many rows matched, or where a limit left some uncounted, that they are more than that."""
    return Shown(None, f"more than {limit:,}") if matched is None else matched


MATCHED = Field("matched", Count | None, "how many there are; null where a limit left some out, which are not counted")


def _values(paths: Sequence[EventPath], row: EventRow) -> bytes:
    from pik.usecases.inspect.count_events import value_at

    return b"{%s}" % b",".join(b"%s:%s" % (_encode(path.text), value_at(path, row.delivery)) for path in paths)


_encode = msgspec.json.encode


def _found_at(path: EventPath, row: EventRow) -> object:
    """Return what the path finds for people: texts and numbers as they are, other values as JSON, None for nothing."""
    from pik.usecases.inspect.count_events import value_at

    found = value_at(path, row.delivery)
    if found.startswith((b'"', b"null")):
        return msgspec.json.decode(found)
    return Json(found) if found[:1] in b"{[tf" else Decimal(found.decode())


_OMISSION = ("events.not_counted", "events.known_until", "events.run_id")


def _schema(cli: Context, paths: Sequence[EventPath], *, not_counted: bool) -> Schema:
    """Return EVENTS with the columns asked for: in JSON all under `values`, otherwise one each."""
    schema = EVENTS if not_counted else EVENTS.without(*_OMISSION)
    if not paths:
        return schema.without("events.values")
    if cli.settings.format in (Format.JSON, Format.JSONL):
        return schema.replaced("events.values", Column("values", Json, get=partial(_values, paths)))
    return schema.replaced(
        "events.values", *(Column(path.text, get=partial(_found_at, path), cut=24) for path in paths)
    )


_WITH_METRIC = "with `--not-counted`"

EVENTS = Schema(
    "pik events",
    Field("window", Window),
    Field("entity", str | None),
    Rows(
        "events",
        "by `event_time`, then `event_id`; with `--newest` the other way round",
        Column("event_id", EventId),
        Column("event_time", Instant, "when it happened, corrections applied"),
        *CORRECTED_COLUMNS,
        Column("source", str, cut=16, drop=3),
        Column("event_type", str, cut=20),
        Column("entity_id", str, cut=24),
        Column("lag", Lag, "of the delivery", drop=1),
        Column("deliveries", int, "of the event, the accepted one included", drop=2),
        Column("values", Json, "by `--column`", only="with `--column`"),
        Column(
            "not_counted",
            str,
            "`no value`: there is none current, `late`: recorded after it was computed, `verdict`: it counts only since"
            " a later rebuild of the index, `corrected`: only since a later correction, `filter`: left out by it,"
            " `imported`: what it counts is not known",
            get="omission.reason",
            only=_WITH_METRIC,
        ),
        Column(
            "known_until",
            Instant | None,
            "of the current value; null: there is none",
            get="omission.known_until",
            only=_WITH_METRIC,
            detail=True,
        ),
        Column(
            "run_id",
            str | None,
            "that wrote the current value",
            get="omission.run_id",
            only=_WITH_METRIC,
            detail=True,
        ),
        Column("batch_id", str, "of the delivery: the one that counts, or with `--class` that", detail=True),
        Column("seq", int, "likewise: its position in the input", detail=True),
        Column("recorded_at", Instant, "when the index recorded it", detail=True),
        Column("payload", Json, detail=True),
        empty=lambda found: f"no such events {found['window'].within}",
    ),
    MATCHED,
    TRUNCATED,
    EFFECTS,
    NOTE,
)

EVENTS_BY = Schema(
    "pik events --by",
    Field("window", Window),
    Field("entity", str | None),
    Field("by", str, "what they are counted by"),
    Rows(
        "groups",
        "most first; hours in order",
        *GROUPED,
        Column("events", Count, "with `--class`: deliveries", bar=True),
        empty=lambda found: f"no such events {found['window'].within}",
    ),
    Field("events", Count, "in all groups, shown or not"),
    Field("matched", Count, "how many groups there are"),
    TRUNCATED,
    EFFECTS,
    NOTE,
)
