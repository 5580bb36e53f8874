"""What `pik ingest --dry-run` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from pik.cli.commands.ingest.refusals import REFUSED, Refusal
from pik.cli.commands.ingest.report import (
    NAMED,
    NOTED,
    OTHERWISE,
    encoding_needed,
    lag_fields,
    named,
    otherwise_id,
    same_content,
    taken_of_longer,
    times_read,
    why_none,
)
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, Column, Field, Object, Rows, Schema
from pik.cli.values import Count, Instant, Json, Shown
from pik.errors import number_of
from pik.model.batch import OTHERS, Verdict
from pik.model.instant import day_text, display_instant, parse_instant
from pik.model.times import time_notes
from pik.model.visible import visible

if TYPE_CHECKING:
    from pik.usecases.ingest.batch_ingest import IngestOptions
    from pik.usecases.ingest.dry_run import CheckedInput, DryRunReport, Example
    from pik.usecases.ingest.preview import FieldOrigin

_NAMED = 5
"""Names that people see, the most frequent; JSON has all that are counted."""

_DAYS = 7
"""Days that people see one by one."""

_CUT = 120
"""Characters of a value that people see."""


class _Reason(NamedTuple):
    reason: str
    records: int
    example: Example | None


class SampleRow(NamedTuple):
    """A field of an event that is shown."""

    source: str
    seq: int
    origin: FieldOrigin


def _names(counted: Mapping[str, int], what: str) -> Shown:
    """Return all counts, the most frequent first, and for people the first few and how many others there are."""
    named = {name or f"({what} beyond the first 1,000)": count for name, count in counted.items()}
    ordered = dict(sorted(named.items(), key=lambda item: -item[1]))
    most = list(ordered.items())[:_NAMED]
    text = ", ".join(f"{visible(name)} {count:,}" for name, count in most) or "-"
    others = len(ordered) - len(most)
    return Shown(ordered, text + (f", and {others:,} more" if others else ""))


def _per_day(found: DryRunReport) -> Shown | None:
    from pik.usecases.inspect.batches import nearest_ranks

    if not found.days:
        return None
    counts = {day_text(day): count for day, count in sorted(found.days.items())}
    if len(counts) <= _DAYS:
        return Shown(counts, ", ".join(f"{day} {count:,}" for day, count in counts.items()))
    most = max(counts, key=counts.__getitem__)
    percents = (5, 50, 95)
    days = zip(percents, nearest_ranks(found.days, *percents), strict=True)
    until = ", ".join(f"{percent} % until {day_text(day)}" for percent, day in days)
    return Shown(counts, f"{len(counts):,} days: {until}; most on {most}: {counts[most]:,}")


def _kinds(found: Mapping[Verdict, int]) -> dict[str, int]:
    return {str(kind): found.get(kind, 0) for kind in (Verdict.EXACT, Verdict.CONFLICT)}


def _verdict(found: DryRunReport) -> str:
    read, valid = found.read, found.valid
    if not read:
        return "there is no record in the input"
    are = "are events" if valid != 1 else "is an event"
    parts = [f"{valid:,} of {number_of(read, 'record')} {are}", f"{read - valid:,} rejected"]
    if found.in_store is None:
        parts.append("not compared with a store")
    else:
        known = found.in_store.total()
        parts.append(f"{known:,} {'is' if known == 1 else 'are'} in the store already")
    if repeated := found.repeated.total():
        parts.append(f"{repeated:,} repeat{'s' if repeated == 1 else ''} another record")
    return "; ".join(parts)


def _reasons(found: DryRunReport) -> list[_Reason]:
    ordered = sorted(found.reasons.items(), key=lambda item: (item[0] == OTHERS, -item[1]))
    return [
        _Reason(reason or "(reasons beyond the first 1,000)", count, found.examples.get(reason))
        for reason, count in ordered
    ]


def _sample(found: DryRunReport) -> Iterator[SampleRow]:
    return (SampleRow(source, one.seq, origin) for source, one in found.sample for origin in one.fields)


def _cut(text: str) -> str:
    return text if len(text) <= _CUT else text[:_CUT] + "…"


def _from(row: SampleRow) -> str:
    return "field of the record" if row.origin.expression is None else row.origin.expression


def _became(row: SampleRow) -> str:
    """Return the value as it stood, and what became of it if that is something else."""
    found, value = row.origin.found.decode(), row.origin.value.decode()
    if found == value:
        return _cut(found)
    if row.origin.field in ("event_time", "received_time"):
        value = display_instant(parse_instant(value.strip('"')))
        if found == f'"{value}"':
            return found
    return f"{_cut(found)} → {_cut(value)}"


_DUPLICATES = (
    Field("exact", Count, "with the same content"),
    Field("conflict", Count, "with the same key and other content"),
)

SAMPLE = (
    Column("seq", int, "the record"),
    Column("field", str, get="origin.field"),
    Column(
        "from",
        str | None,
        "its expression; null: the record's field of that name",
        get="origin.expression",
        text=_from,
        wrap=True,
    ),
    Column(
        "found_value",
        Json,
        "the value that was found there",
        get="origin.found",
        text=_became,
        wrap=True,
        label="value",
    ),
    Column("event", Json, "as the event has it", get="origin.value", detail=True),
)
"""The columns of a SampleRow."""

INGEST_DRY_RUN = Schema(
    "pik ingest --dry-run",
    Field("verdict", str, "what follows, in one sentence", get=_verdict),
    Field("dry_run", bool, "true", get=lambda _: True),
    Field(
        "read",
        Count,
        "records: accepted + duplicates_in_store + duplicates + rejected",
    ),
    Field(
        "valid",
        Count,
        "records that are events",
    ),
    Field(
        "rejected",
        Count,
        "records that are not",
    ),
    Field("store", str | None, "the store that was looked in; null: none was"),
    Field(
        "accepted",
        Count,
        "events that neither `store` nor an earlier record has",
        get="new",
    ),
    Field(
        "duplicates_in_store",
        Object(*_DUPLICATES, null=True),
        "records whose event is in the store",
        get=lambda found: None if found.in_store is None else _kinds(found.in_store),
    ),
    Field(
        "duplicates",
        Object(*_DUPLICATES),
        "others, whose event an earlier record of the inputs has",
        get=lambda found: _kinds(found.repeated),
    ),
    Field("idempotency_keys", Count, "records with an idempotency key", get="keyed"),
    Field("event_sources", dict[str, int], "records by source", get=lambda found: _names(found.sources, "sources")),
    Field("event_types", dict[str, int], "records by type", get=lambda found: _names(found.types, "types")),
    Field("distinct_entities", Count, get="entities"),
    Field(
        "times_read",
        dict[str, int] | None,
        "as in `pik ingest`",
        get=lambda found: times_read(*(one.times for one in found.inputs)),
    ),
    Field("first_event", Instant | None, "the smallest `event_time`"),
    Field("last_event", Instant | None, "the largest"),
    Field("events_per_day", dict[str, int] | None, "records by the UTC day of `event_time`", get=_per_day),
    Field("in_future", Count, "records with an `event_time` later than the clock's", get="future"),
    *lag_fields("records", "; without a `received_time` until now", "lags"),
    Rows(
        "sources",
        "one per input",
        Column("source", str),
        Column("input", str, "how its records are written", get="layout.format"),
        Column("mapping", str | None, NAMED, get=lambda one: named(one.named), rare=True),
        Column(
            "cut",
            bool,
            "whether it cannot be read to its end: what comes before is counted, and an ingest would record it",
            detail=True,
        ),
        Column("read", Count),
        Column("valid", Count, "records that are events"),
        Column("rejected", Count),
        Column("accepted", Count, "as above, as the following", get="new"),
        Column("in_store", Count, get=lambda one: one.in_store.total()),
        Column("duplicates", Count, get=lambda one: one.repeated.total()),
        Column(
            "outcome",
            str | None,
            "what an ingest would do: as in `pik ingest`; null: no store was looked in",
            detail=True,
        ),
        Column("batch_id", str | None, "the batch of the same input", detail=True),
        Column("same_content", str | None, OTHERWISE, get=otherwise_id, detail=True),
        get=lambda found: found.inputs,
    ),
    REFUSED,
    Rows(
        "rejects",
        "why records are rejected, the most frequent first, each with its first record as an example",
        Column("reason", str, "without what is special to one record", wrap=True),
        Column("records", Count),
        Column("source", str | None, get=lambda row: row.example and row.example.source, detail=True),
        Column(
            "seq",
            int | None,
            "its position in the input; in JSON lines the line",
            get=lambda row: row.example and row.example.seq,
        ),
        Column(
            "file",
            str | None,
            "in one batch of several files, its file",
            get=lambda row: row.example and row.example.file,
            rare=True,
        ),
        Column(
            "record",
            int | None,
            "and its position there",
            get=lambda row: (row.example and row.example.record) or None,
            rare=True,
        ),
        Column("field", str | None, get=lambda row: row.example and row.example.field, drop=1),
        Column(
            "line", str | None, "the beginning of its text", get=lambda row: row.example and row.example.line, wrap=True
        ),
        get=_reasons,
    ),
    Rows(
        "sample",
        "the first events as they would be recorded, one row per field",
        Column("source", str, detail=True),
        *SAMPLE,
        get=_sample,
    ),
    NOTE,
    NEXT,
)


def show_dry_run(
    cli: Context,
    found: DryRunReport,
    refused: Sequence[Refusal] | None,
    chosen: IngestOptions,
    known_mapping: Callable[[], str | None],
    *,
    via: bool,
) -> None:
    """Show what a dry run found. `known_mapping` finds a shipped mapping for the first input."""
    following = cli.same_command("ingest", ("dry_run", "sample", "rejects"))
    note = _note(cli, found, chosen, known_mapping, via=via)
    cli.show(INGEST_DRY_RUN, found, refused_inputs=refused, note=note, next=following if found.valid else None)


def _note(
    cli: Context, found: DryRunReport, chosen: IngestOptions, known_mapping: Callable[[], str | None], *, via: bool
) -> str:
    notes = ["nothing was stored"]
    if any(one.read for one in found.inputs) and not any(one.valid for one in found.inputs):
        mapped = chosen.reading.is_mapped or any(one.named for one in found.inputs)
        notes = ["no record is a valid event", *why_none(list(found.reasons), known_mapping, mapped=mapped)]
    elif via:
        notes.append("the store was not looked in, as --via api has no way to")
    elif found.store is None:
        notes.append(f"there is no store at {cli.settings.store} to look in: an ingest creates it")
    if found.uncertain:
        notes.append("corrections take events of the store away; an ingest says which of its duplicates that concerns")
    notes += list(islice(_ingested_before(found), _NAMED))
    notes += islice((_cut_short(one) for one in found.inputs if one.cut), NOTED)
    notes += islice(chain.from_iterable(same_content(one.source, one.otherwise) for one in found.inputs), NOTED)
    notes += taken_of_longer(found.longer, chosen.reading.layout)
    conflicts = found.repeated[Verdict.CONFLICT] + (found.in_store or Counter())[Verdict.CONFLICT]
    if chosen.refuse_conflicts and conflicts:
        notes.append(f"an ingest would stop at the first conflict (--on-conflict fail): {conflicts:,}")
    counts = [(one.source, one.times) for one in found.inputs]
    notes += time_notes(chosen.reading.times, counts, found.valid, found.first_event)
    return "; ".join(notes + encoding_needed(list(found.reasons)))


def _cut_short(one: CheckedInput) -> str:
    records = number_of(one.read, "record")
    return f"{visible(one.source)}: {records} before what cannot be read are counted; an ingest would record them too"


def _ingested_before(found: DryRunReport) -> Iterator[str]:
    """Yield what an ingest makes of the inputs that it knows."""
    from pik.usecases.ingest.batch_ingest import Outcome

    for one in found.inputs:
        batch = f"batch {one.batch_id}" if one.batch_id else "an earlier one of these"
        if one.outcome == Outcome.ALREADY:
            yield f"{visible(one.source)} was ingested before, as {batch}: an ingest does nothing with it"
        elif one.outcome == Outcome.RESUMED:
            yield f"{visible(one.source)}: an ingest continues the interrupted {batch}"
