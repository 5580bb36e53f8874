"""`pik gaps`: what did not come."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.bars import spark
from pik.cli.command import FOUND, cli_command
from pik.cli.commands.inspect.corrected import EFFECTS, effects_finder, effects_note, effects_of, notes
from pik.cli.commands.inspect.groups import Watched
from pik.cli.context import Context
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Object, Rows, Schema
from pik.cli.options import option
from pik.cli.values import Count, Instant, Lag, Moment
from pik.errors import UsageError, number_of
from pik.model.duration import format_duration
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.usecases.timing.gaps import GapsReport, LearnedGroup


@cli_command(
    "gaps",
    examples="""
    # which sources were silent, or had far fewer or more events than usual, in the last day?
    pik gaps --since 1d

    # in a schedule: exit code 1 if the till was silent for five minutes
    pik gaps --since 1h --source till --every 5m

    # which numbers of a producer's sequence never came?
    pik gaps --from 2026-01-31 --to 2026-02-01 --sequence-field payload.number
    """,
)
def gaps(
    cli: Context,
    entity: options.Entity = None,
    *,
    period: options.WindowOptions,
    type_: options.Type = None,
    source: options.Source = None,
    by: Annotated[str, option("--by WHAT", "Look separately at each source, type, entity or payload.PATH.")] = "source",
    every: Annotated[
        str | None, option("--every DURATION", "Events come at least this often; without it, that is learned.")
    ] = None,
    history: Annotated[
        str | None,
        option("--history DURATION", "Learn what is usual from this long before the window too (default 28d)."),
    ] = None,
    sequence_field: Annotated[
        str | None, option("--sequence-field payload.PATH", "Find missing numbers of this field, per group.")
    ] = None,
    as_received: options.AsReceived = False,
    limit: options.Limit = None,
) -> int | None:
    """Find silences, drops and spikes of the volume, and missing numbers of a sequence.

    Times are event_time, of what counts, at the times that corrections give it, or with --as-received of what was
    accepted, at its own times: an event that was moved or taken out may leave a gap. Without --every, the same hours of
    the 28 earlier days and weeks show what is usual: a silence is longer than expected, a drop or spike is an hour or a
    day far from it. These findings are statistical; the rule is printed with its figures, and a note says where nothing
    can be known, because there are fewer than 7 earlier days. With --every, longer silences are found exactly, and
    drops and spikes only with --history. The search ends with the window (--to, or now with --since), else with the
    last event of any source and type. Exit codes: 0 nothing found, 1 found, 2 no events, or none with an integer in
    --sequence-field.
    """
    from pik.model.delivery import Filter
    from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES
    from pik.usecases.timing.gaps import GROUPS, Question, find_gaps
    from pik.usecases.timing.grouping import payload_text, read_grouping
    from pik.usecases.timing.usual import HISTORY

    window = period.window()
    if period.since is not None and period.to is None:
        window = Window(window.start, time.time_ns())  # what is silent now is found
    learned = options.duration("--history", history) if history else None if every else HISTORY
    number = payload_text(sequence_field, "--sequence-field") if sequence_field else None
    for narrowed, name in ((type_, "type"), (entity, "entity")):
        if number and narrowed and by != name:
            raise UsageError(
                f"--sequence-field with --{name}: the numbers of the others would be missing",
                hint=f"leave --{name} out, or if each {name} has its own numbers: --by {name}",
            )
    wanted = Filter(window, (entity,) if entity else (), source, type_)
    silent = options.duration("--every", every) if every else None
    question = Question(wanted, read_grouping(by, GROUPS), silent, learned, number)
    store = cli.open_store()
    found = find_gaps(store, cli.engine(), question, AS_RECEIVED if as_received else NO_OVERRIDES)
    effects = effects_finder(cli, store, wanted, as_received=as_received)
    watched = Watched(found.groups, by)
    tables, truncated = {}, []
    for table in ("silences", "changes", "missing_ranges", "sequences", "groups"):
        rows = watched if table == "groups" else getattr(found, table)
        tables[table], more = options.first_rows(iter(rows), limit or cli.default_limit)
        truncated.append(more)
    schema = GAPS if number else GAPS.without("missing_ranges", "sequences")
    cli.show(
        schema,
        {"window": window, "looked_at": found.scope, "entity": entity, "by": by, "rule": found.rule},
        **{name: rows for name, rows in tables.items() if number or name not in ("missing_ranges", "sequences")},
        truncated=lambda: sum(more() for more in truncated) > 0,
        corrected=lambda: effects_of(effects()),
        note=lambda: notes(watched.note, _note(found), effects_note(effects())),
    )
    return FOUND if found.found else None


def _note(found: GapsReport) -> str | None:
    if not found.unknown:
        return None
    groups = number_of(found.unknown, "group")
    return (
        f"cannot know what is usual for {groups}: fewer than 7 whole days of events before the end of the window"
        " (--every DURATION needs none)"
    )


def _volume(group: LearnedGroup) -> str:
    counts = [one.events for one in group.volume]
    starts = [one.start for one in group.volume[:2]]
    length = f" in {format_duration(starts[1] - starts[0])}" if len(starts) > 1 else ""
    return f"{spark(counts)} up to {max(counts, default=0):,}{length}"


GAPS = Schema(
    "pik gaps",
    Field("window", Window),
    Field("looked_at", Window, "what was looked at: the window as far as there are events, and never the future"),
    Field("entity", str | None),
    Field("by", str, "what is looked at separately"),
    Field("rule", str, "what is a finding", text=lambda found: found["rule"]),
    Rows(
        "silences",
        "by time",
        Column("group", str | None, cut=12),
        Column("silent_from", Moment, "the last event before it, or the beginning of the window", get="start"),
        Column("silent_to", Moment, "the next event, or the end of what was looked at", get="end"),
        Column("length", Lag, get=lambda one: one.end - one.start),
        Column("usual_events", Decimal | None, "how many were usual in it; null: by `--every`", get="expected"),
        Column("ended", bool, "whether an event came afterwards", drop=1),
        empty="no silences",
    ),
    Rows(
        "changes",
        "drops and spikes, by time",
        Column("group", str | None, cut=12),
        Column("kind", str, "`drop` or `spike`"),
        Column("start", Instant, "of the hours, or of the day"),
        Column("length", Lag, get=lambda one: one.end - one.start),
        Column("events", Count),
        Column("usual_events", Decimal, get="expected"),
        empty="no drops or spikes",
    ),
    Rows(
        "missing_ranges",
        "ranges of numbers that no event has, by group",
        Column("group", str | None, cut=12),
        Column("first_number", int, get="first"),
        Column("last_number", int, get="last"),
        Column("count", Count),
        empty="no missing numbers",
        only="with `--sequence-field`",
    ),
    Rows(
        "sequences",
        "by group",
        Column("group", str | None, cut=12),
        Column("first_number", int | None, "the least in the window; null: no event has one", get="least"),
        Column("last_number", int | None, "the greatest", get="greatest"),
        Column("missing_numbers", Count, "between them", get="missing"),
        Column("without_number", Count, "events in the window without an integer (of 37 digits at most) there"),
        empty="no events",
        only="with `--sequence-field`",
    ),
    Rows(
        "groups",
        "that were looked at",
        Column("group", str | None, cut=12),
        Column("events", Count, "in the hours of the scope"),
        Column("first_event", Moment, "in the window and the history", get="first"),
        Column("last_event", Moment, get="last", drop=1),
        Column(
            "volume",
            Object(Field("start", Instant), Field("events", Count), many=True),
            "how its events are spread over what was looked at: at most 24 stretches of whole hours; for people a"
            " character for each, a dot for no event",
            text=_volume,
        ),
        Column("learned_from", Moment | None, "from when on it is known what is usual; null: never", drop=0),
        empty="no groups",
    ),
    TRUNCATED,
    EFFECTS,
    NOTE,
)
