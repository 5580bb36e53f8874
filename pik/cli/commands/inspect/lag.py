"""`pik lag`: how long events took to arrive."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import FOUND, cli_command
from pik.cli.commands.inspect.corrected import EFFECTS, effects_finder, effects_note, effects_of, notes
from pik.cli.commands.inspect.groups import Watched
from pik.cli.context import Context
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Object, Rows, Schema
from pik.cli.options import option
from pik.cli.values import Count, Lag
from pik.errors import UsageError, command
from pik.model.duration import format_duration
from pik.model.instant import display_instant
from pik.model.window import Window
from pik.ports.fleet import LOCAL

if TYPE_CHECKING:
    from pik.usecases.timing.lag import Bar, Distribution, LagReport


@cli_command(
    "lag",
    examples="""
    # how late are the events of the last day, and from which sources?
    pik lag --since 1d

    # in a schedule: exit code 1 if an event took longer than an hour
    pik lag --since 1h --warn-after 5m --error-after 1h

    # is a clock off, or a time zone wrong?
    pik lag --since 7d --skew

    # which current values lack events that came later, and by how much?
    pik lag --since 7d --late

    # since which hour, and with which release of the app?
    pik lag --since 1d --by hour
    pik lag --since 1d --by payload.release

    # of a year, on a Spark cluster
    pik lag --from 2025-01-01 --to 2026-01-01 --on spark://spark-master:7077
    """,
)
def lag(
    cli: Context,
    entity: options.Entity = None,
    *,
    period: options.WindowOptions,
    type_: options.Type = None,
    source: options.Source = None,
    by: Annotated[
        str, option("--by WHAT", "Group by source, type, hour (of event_time), batch or payload.PATH.")
    ] = "source",
    warn_after: Annotated[str | None, option("--warn-after DURATION", "Warn of events with a greater lag.")] = None,
    error_after: Annotated[
        str | None, option("--error-after DURATION", "Exit with 1 if an event has a greater lag.")
    ] = None,
    skew: Annotated[
        bool, option("--skew", "Find clocks that are off: constant shifts of the lag, and negative lags.")
    ] = False,
    late: Annotated[
        bool,
        option("--late", "List current values whose events came after they were computed, and how that moves them."),
    ] = False,
    metric: options.Metrics = None,
    as_received: options.AsReceived = False,
    limit: options.Limit = None,
    on: options.On = LOCAL,
) -> int | None:
    """Show how long events took to arrive, as percentiles and as a histogram.

    Lag is received_time (or ingest_time without one) minus event_time; a negative one is clock skew, and is kept.
    Only events that count are measured, at the times that corrections give them; with --as-received all accepted ones,
    at their own times. Duplicates are not measured. Percentiles are exact, by nearest rank: the smallest lag that
    at least so many percent of the events do not exceed. With --warn-after and --error-after a group's state is that of
    its slowest event. Exit codes: 0 also for warnings and where there are no events, 1 if a group's state is error. On
    a terminal the first 50 groups, without --limit.

    With --skew: constant shifts of the lag per group (exit code 1), since when they are there, and whether they look
    like a time zone; and single negative lags (exit code 0). The rule is printed with its figures.

    With --late: the current values (of --metric) with events that were recorded after the value's known until, and by
    how much these move it (exit code 0). `pik diff aggregates` compares with all that raw holds, whatever the cause.
    """
    from pik.cli.commands.inspect.late import show_late
    from pik.cli.commands.inspect.skew import show_skew
    from pik.model.delivery import Filter
    from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES
    from pik.usecases.inspect.events import nothing_matches
    from pik.usecases.timing.grouping import read_grouping
    from pik.usecases.timing.lag import GROUPS, Limits, measure_lag

    window = period.window()
    warn = options.duration("--warn-after", warn_after) if warn_after else None
    limits = Limits(warn, options.duration("--error-after", error_after) if error_after else None)
    if limits.warn is not None and limits.error is not None and limits.warn > limits.error:
        raise UsageError(f"--warn-after {warn_after} is longer than --error-after {error_after}")
    wanted = Filter(window, (entity,) if entity else (), source, type_)
    grouping = read_grouping(by, GROUPS)
    if on != LOCAL and skew:
        raise UsageError(
            "--skew does not go with --on: it looks at the lags of a group in their order, which tasks do not share",
            hint="leave --on out, and choose a shorter window",
        )
    if on != LOCAL and late:
        raise UsageError(
            "--late does not go with --on: it looks at single values in this process",
            hint=f"late events as a cause of differences: {command('diff', 'aggregates', '--explain', '--on', on)}",
        )
    if late:
        if as_received:
            raise UsageError(
                "--late compares with current values, and corrections hold in what these should be",
                hint="what came since, as it came: pik events --as-received --recorded-since TIME",
            )
        if skew or limits != Limits() or source or type_ or by != "source":
            raise UsageError(
                "--late goes with a window, --entity, --metric and --limit only",
                hint="a bucket is always computed from all of its events",
            )
        return show_late(cli, window, wanted.entities, metric or (), limit)
    if metric:
        raise UsageError("--metric is for the values that late events move", hint="add --late")
    if skew:
        if limits != Limits() or limit or by == "hour":
            raise UsageError(
                "--skew does not go with --warn-after, --error-after, --limit or --by hour", hint="leave them out"
            )
        return show_skew(cli, wanted, grouping, as_received=as_received)
    store = cli.open_store()
    overrides = AS_RECEIVED if as_received else NO_OVERRIDES
    found = measure_lag(store, cli.engine(), wanted, grouping, limits, overrides, cli.fleet(on, store))
    effects = effects_finder(cli, store, wanted, as_received=as_received)
    watched = Watched(found.groups, by)
    groups, truncated = options.first_rows(iter(watched), limit or cli.default_limit)
    schema = LAG if limits != Limits() else LAG.without(*OF_LIMITS)
    cli.show(
        schema,
        {
            "window": window,
            "entity": entity,
            "by": by,
            "rule": _rule(limits),
            "all": found.total,
        },
        groups=((by, one) for one in groups),
        histogram=[(found, bar) for bar in found.histogram],
        truncated=truncated,
        corrected=lambda: effects_of(effects()),
        note=lambda: notes(watched.note, lag_note(found), effects_note(effects())),
    )
    if found.total is None:
        cli.note(nothing_matches("events", store, wanted))
        return None
    return FOUND if found.total.error else None


def _rule(limits: object) -> str | None:
    parts = [
        f"{name}: a lag above {format_duration(limit)}"
        for name in ("warn", "error")
        if (limit := getattr(limits, name)) is not None
    ]
    return "; ".join(parts) or None


def lag_note(found: LagReport) -> str | None:
    """Return the note on events that lack a received_time; None: there are none."""
    if found.total is None or not found.total.at_ingest:
        return None
    count = "no event has" if found.total.at_ingest == found.total.events else f"{found.total.at_ingest:,} events lack"
    return f"{count} a received_time: their lag lasts until they were ingested here"


def lag_bounds(row: tuple[LagReport, Bar]) -> str:
    """Return the bounds of a bar of the histogram in words."""
    bar = row[1]
    if bar.start is None:
        return f"below {format_duration(bar.end or 0)}"
    if bar.end is None:
        return f"{format_duration(bar.start)} or more"
    return f"{format_duration(bar.start)} to {format_duration(bar.end)}"


def _percent(row: tuple[LagReport, Bar]) -> Decimal:
    total = sum(bar.events for bar in row[0].histogram)
    return Decimal((row[1].events * 20_000 + total) // (2 * total)).scaleb(-2)


_LIMITED = "with `--warn-after`, `--error-after`"

OF_LIMITS = ("groups.above_warn", "groups.above_error", "groups.state")
"""Columns of LAG that are only there with a limit."""


def _part(attribute: str) -> Callable[[tuple[str, Distribution]], object]:
    return lambda row: getattr(row[1], attribute)


_MEASURES = (
    ("min", "least"),
    *((name, name) for name in ("p50", "p90", "p95", "p99")),
    ("max", "most"),
)

LAG = Schema(
    "pik lag",
    Field("window", Window),
    Field("entity", str | None),
    Field("by", str, "what `groups` are: `source`, `type`, `hour` (of `event_time`), `batch`, `payload.PATH`"),
    Field("rule", str | None, "when an event is slow; null: not asked"),
    Field(
        "all",
        Object(
            Field("events", Count),
            *(Field(name, Lag, get=attribute) for name, attribute in _MEASURES),
            null=True,
        ),
        "over all groups; null: no events",
    ),
    Rows(
        "groups",
        "hours in their order, else the one with the most slow events first, then the greatest p99",
        Column(
            "group",
            str | None,
            "null: the payload has no such field",
            get=lambda row: display_instant(int(row[1].group)) if row[0] == "hour" else row[1].group,
            cut=16,
        ),
        Column("events", Count, get=lambda row: row[1].events),
        *(
            Column(name, Lag, get=_part(attribute), drop=drop)
            for (name, attribute), drop in zip(_MEASURES, (3, 0, 4, 5, 0, 0), strict=True)
        ),
        Column("negative", Count, "events with a lag below 0", get=lambda row: row[1].negative, drop=2),
        *(
            Column(name, Count, about, get=_part(attribute), drop=1, only=_LIMITED)
            for name, about, attribute in (
                ("above_warn", "events above `--warn-after` only", "warn"),
                ("above_error", "events above `--error-after`", "error"),
            )
        ),
        Column("state", str, "`pass`, `warn`, `error`", get=_part("state"), only=_LIMITED),
        empty=lambda found: f"no such events {found['window'].within}",
    ),
    Rows(
        "histogram",
        "from the first to the last bar with events",
        Column("from", Lag | None, "included; null: no bound", get=lambda row: row[1].start, text=lag_bounds),
        Column("to", Lag | None, "excluded; null: no bound", get=lambda row: row[1].end, detail=True),
        Column("events", Count, get=lambda row: row[1].events, bar=True),
        Column("percent", Decimal, "of all events, to two digits after the point", get=_percent),
        empty="-",
    ),
    TRUNCATED,
    EFFECTS,
    NOTE,
)
