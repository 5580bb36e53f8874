"""`pik diff events`: a producer's own log against the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from pik.cli import options
from pik.cli.command import FOUND, PARTLY
from pik.cli.commands.ingest.ingest import sources_of
from pik.cli.commands.ingest.report import times_read
from pik.cli.commands.inspect.corrected import EFFECTS, effects_finder, effects_note, effects_of
from pik.cli.commands.inspect.impact import failed_note, impact_parts
from pik.cli.commands.numbers.diff import diff
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, TRUNCATED, Column, Field, Rows, Schema
from pik.cli.options import argument, first_rows, option
from pik.cli.reading import ReadingOptions
from pik.cli.values import Count, EventId, Instant, Json
from pik.errors import command, number_of
from pik.model.event import MAX_LINE
from pik.model.window import Window


@diff.add(
    "events",
    examples="""
    # did everything arrive that the shop wrote down?
    pik diff events shop.jsonl

    # write what is missing, look at it, ingest it
    pik diff events shop.jsonl --from 2026-01-31 --to 2026-02-01 --write missing.jsonl
    pik ingest missing.jsonl

    # another shape of record, payments of one source alone
    pik diff events hooks.jsonl --map entity_id=user --map payload=@ --source web \\
        --where "event_type = 'paid'"
    """,
)
def diff_events(
    cli: Context,
    files: Annotated[list[str], argument("FILE…", "Files, s3:// objects, quoted globs, or - for standard input.")],
    entity: options.Entities = None,
    type_: Annotated[list[str] | None, option("--type TYPE", "Only events of this type (repeatable).")] = None,
    source: Annotated[list[str] | None, option("--source SOURCE", "Only events from this source (repeatable).")] = None,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
    where: Annotated[
        str | None, option("--where SQL", "Only events that meet this condition, as in a metric's `where`.")
    ] = None,
    *,
    reading_options: ReadingOptions,
    write: Annotated[
        Path | None, option("--write FILE", "Write the missing events to this new file, ready to ingest.")
    ] = None,
    metric: options.Metrics = None,
    limit: options.Limit = None,
) -> int | None:
    """Compare a producer's log with the events in the store, without recording anything.

    The files are read as `pik ingest` reads them. An event is missing (the log has it, the store does not), unexpected
    (the store has it, the log does not), or different (both have its idempotency key, with other content or another
    time). The scope is that of the log: from its first to its last event, its sources, types and entities, unless
    options give another; it holds for both sides. A --timezone of the log's times is the one of --from and --to, too.
    Events are compared as they came, whatever corrections say of them. The table of changes has in what events are
    different, with an example each. The table of metrics has what the missing events
    would add to each. Exit codes: 0 both sides agree, 1 they differ, 3 records of the log are not events or values
    cannot be computed, 2 no event of the log is in the scope.
    """
    from pik.inputs.archives import with_members
    from pik.model.delivery import Filter
    from pik.runtime.new_file import expect_new
    from pik.runtime.parallel import processors
    from pik.usecases.inspect.reconcile import Scope, reconcile

    if write is not None:
        expect_new(write, "--write")
    reading = reading_options.reading(cli, note=cli.note)
    window = options.window_of(from_, to, since, reading_options.given().times.timezone)
    scope = Scope(window, tuple(source or ()), tuple(type_ or ()), tuple(entity or ()), where)
    store = cli.open_store()
    found = reconcile(
        store,
        cli.engine(),
        with_members(sources_of(cli, files, max_window=reading_options.max_window), cli.note),
        reading,
        scope,
        workers=processors(),
        metrics=metric or (),
        write=write,
        progress=cli.progress,
    )
    limit = limit or cli.default_limit
    longest = ["--max-line", str(reading.max_line)] if reading.max_line > MAX_LINE else []
    rows, more_rows = first_rows(iter(found.mismatches), limit)
    values, more_values = first_rows(iter(found.impact.values if found.impact else ()), limit)
    options.note_left_out(cli, found.impact.left_out if found.impact else ())
    effects = effects_finder(cli, store, Filter(found.scope.window))
    unknown = [] if found.impact else ["metrics", "differing_values", "metrics_left_out"]
    unknown += [] if found.changes else ["changes"]
    cli.show(
        RECONCILIATION.without(*unknown),
        found,
        mismatches=rows,
        differing_values=values,
        truncated=lambda: more_rows() or more_values(),
        corrected=lambda: effects_of(effects()),
        note=lambda: effects_note(effects(), shown=_SIDES),
        next=command("ingest", *longest, str(write)) if write and found.missing else None,
    )
    notes = [failed_note(found.impact)] if found.impact else []
    if found.rejected:
        why = command("ingest", "--dry-run", *reading_options.words(), *files)
        notes.append(f"not events: {number_of(found.rejected, 'record')} of the log; why: {why}")
    for note in filter(None, notes):
        cli.note(note)
    if any(notes):
        return PARTLY
    return FOUND if found.differs else None


_SIDES = (
    "both sides are as they came, whatever corrections say: events that are out are not missing here, and what was put"
    " right still differs"
)

_EFFECTS = msgspec.structs.replace(
    EFFECTS, about="what corrections changed of all events of the window; null: no correction concerns it"
)

RECONCILIATION = Schema(
    "pik diff events",
    Field("window", Window, "of the scope, as the following", get="scope.window"),
    Field("scope_sources", list[str], get="scope.sources"),
    Field("scope_event_types", list[str], get="scope.event_types"),
    Field("scope_entities", Count, "how many entities are in the scope", get="entities"),
    Field("where", str | None, get="scope.where"),
    Field(
        "named_mappings",
        list[str] | None,
        "the named mappings by which files of the log were read; null: none",
        get=lambda found: [one.partition(" ")[0] for one in found.mappings],
    ),
    Field("read", Count, "records of the log, in the scope or not"),
    Field("rejected", Count, "of these, those that are not events; then the exit code is 3"),
    Field("repeated", Count, "deliveries in the log, in the scope, of an event that it has already"),
    Field(
        "times_read", dict[str, int] | None, "as in `pik ingest`, of the log", get=lambda found: times_read(found.times)
    ),
    Field("both", Count, "events that both sides have"),
    Field("missing", Count, "events that the log alone has"),
    Field("unexpected", Count, "events that the store alone has"),
    Field("different", Count, "events that both have under one key, with other content or another time"),
    Rows(
        "mismatches",
        "by `event_time`, `event_id`",
        Column("finding", str, "`missing`, `unexpected`, `different`"),
        Column("event_id", EventId),
        Column("event_time", Instant),
        Column("source", str, cut=16, drop=3),
        Column("event_type", str, cut=20, drop=2),
        Column("entity_id", str, cut=24),
        Column("log", str | None, "the input that has it", cut=30, drop=4),
        Column("record", int | None, "its position in that input", drop=1),
        Column("batch_id", str | None, "of the accepted delivery, if that is in the scope", drop=6),
        Column("seq", int | None, "likewise", drop=5),
        empty="both sides have the same events",
    ),
    Rows(
        "changes",
        "in what different events differ, as far as both sides of them are in the scope: the places of the most events",
        Column("place", str, "such as `payload.amount`, `event_time`; `(other places)`: all that are not listed"),
        Column("events", Count | None, "that differ there; null: not counted"),
        Column("log_value", Json | None, "its value in one of them; null: absent", cut=20),
        Column("store_value", Json | None, "likewise", cut=20),
        Column("event_id", EventId | None, "that one", drop=1),
        only="if events are different",
    ),
    Rows(
        "by_hour",
        "events by hour and source",
        Column("hour", Instant, "of `event_time`"),
        Column("source", str, cut=24),
        Column("both", Count),
        Column("missing", Count),
        Column("unexpected", Count),
        Column("different", Count),
        get=lambda found: found.hours,
    ),
    *impact_parts("with the missing events", only="if events are missing"),
    TRUNCATED,
    NEXT,
    _EFFECTS,
    NOTE,
)
