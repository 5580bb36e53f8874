"""What `pik ingest` shows."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING

from pik.cli.commands.ingest.refusals import REFUSED, Refusal
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, Column, Field, Object, Rows, Schema, or_null
from pik.cli.values import Count, Instant, Lag, Shown, words
from pik.errors import command, number_of
from pik.model.batch import Counts
from pik.model.layout import InputFormat, Layout
from pik.model.times import described, time_notes
from pik.model.visible import visible, visible_option

if TYPE_CHECKING:
    from pik.inputs.source import Input
    from pik.model.batch import Reject
    from pik.rawlog.reading import Reading
    from pik.usecases.ingest.batch_ingest import IngestReport
    from pik.usecases.ingest.dry_run import CheckedInput
    from pik.usecases.ingest.earlier import ReadOtherwise
    from pik.usecases.ingest.via_api import SendReport


_COUNTS = ("read", "accepted", "exact", "conflict", "rejected")

_REASONS = "the five most frequent reasons → records; all others as `(other reasons)`"


def _most_frequent(counted: Mapping[str, int]) -> Shown | None:
    """Return the five most frequent reasons, and how many records have another."""
    named = {reason or "(reasons beyond the first 1,000)": count for reason, count in counted.items()}
    most = dict(sorted(named.items(), key=lambda item: -item[1])[:5])
    if len(named) > len(most):
        most["(other reasons)"] = sum(named.values()) - sum(most.values())
    return Shown(most, ", ".join(f"{count:,} × {visible(reason)}" for reason, count in most.items())) if most else None


def _shown_lags(counts: Mapping[int, int]) -> Shown | None:
    """Return the percentiles of lags, given how many deliveries have each; None if there are none."""
    from pik.usecases.inspect.batches import lags

    lag = lags(counts)
    if lag is None:
        return None
    shown = {name: Lag(getattr(lag, name), cut=not lag.exact) for name in ("min", "p50", "p95", "p99", "max")}
    return Shown({**shown, "rounded": not lag.exact}, words(shown))


def lag_fields(what: str, about: str, lags: str) -> tuple[Field, Field]:
    """Return the fields of percentiles of lag and of negative lags; `lags` is the path to how many of `what` have
    which."""
    of = attrgetter(lags)
    percentiles = Object(
        Field("min", Lag),
        Field("p50", Lag, "nearest rank, as the other percentiles"),
        Field("p95", Lag),
        Field("p99", Lag),
        Field("max", Lag),
        Field("rounded", bool, f"of more than 1,000 {what}: each is cut down to three significant digits"),
        null=True,
    )
    return (
        Field("lag", percentiles, f"over all {what}{about}", get=lambda source: _shown_lags(of(source))),
        Field(
            "clock_skew",
            Count | None,
            f"{what} with a negative lag",
            get=lambda source: sum(count for lag, count in of(source).items() if lag < 0) or None,
        ),
    )


def only(source: str, inputs: Sequence[str], *, which: str = "the first") -> Iterator[str]:
    """Yield that only this one was looked at, if it is one of several inputs, or a file in one."""
    if len(inputs) > 1:
        yield f"only {source} was looked at, of {number_of(len(inputs), 'input')}"
    elif source not in inputs:
        yield f"only {source} was looked at, {which} file of the archive"


def otherwise_id(one: IngestReport | CheckedInput) -> str | None:
    return one.otherwise.batch_id if one.otherwise else None


def _input(one: IngestReport) -> str:
    return dict(one.batch.origin.options).get("input", InputFormat.JSONL)


def _mapping(one: IngestReport) -> Shown | None:
    return named(dict(one.batch.origin.options).get("mapping", ""))


def named(mapping: str) -> Shown | None:
    """Return the name of a mapping, for people with where it comes from."""
    return Shown(mapping.partition(" ")[0], mapping) if mapping else None


NAMED = "the named mapping by which it is read; null: none"


def _rate(one: IngestReport) -> int | None:
    from pik.usecases.ingest.batch_ingest import Outcome

    read_now = one.batch.counts.read - ((one.resumed_from or 1) - 1)
    return round(read_now / one.seconds) if one.outcome != Outcome.ALREADY and one.seconds else None


TIMES_READ = (
    "how times were read whose text leaves it open: `FIELD UNIT` → numbers whose unit `auto` found by size, `FIELD"
    " WHICH ZONE` → local times that clocks showed twice, by `--ambiguous`; null: none"
)


def times_read(*counts: Mapping[str, int]) -> Shown | None:
    """Return how many times of the inputs were read in which way."""
    total = sum(map(Counter, counts), Counter[str]())
    return Shown(dict(total), "; ".join(described(total))) if total else None


OTHERWISE = "a batch of the same content that was read with other options, the newest; null: none"

NOTED = 5
"""Inputs about which there are notes, at most."""

_SHOWN_OPTIONS = 3
"""Options that a note about another batch of the same content shows."""


def same_content(source: str, other: ReadOtherwise | None) -> Iterator[str]:
    """Yield a note about the batch that has the same content as an input, and how it was read, if there is one."""
    if other is None:
        return
    shown = [
        f"{name.replace('_', '-')} {visible_option(there)}, now {visible_option(here)}"
        for name, (there, here) in islice(other.differing.items(), _SHOWN_OPTIONS)
    ]
    more = ", …" if len(other.differing) > _SHOWN_OPTIONS else ""
    withdraw = command("correct", "--assume", f"without-batch={other.batch_id}", "--reason", "REASON", "--dry-run")
    yield (
        f"{visible(source)}: batch {other.batch_id} has the same content, read with other options"
        f" ({'; '.join(shown)}{more}); if that batch was wrong: `{withdraw}`"
    )


INGEST = Schema(
    "pik ingest",
    Field("batch_id", str, "the batch", get="batch.batch_id"),
    Field("source", str, "the input's name"),
    Field("input", str, "how its records are written: `jsonl` or another format of `--input`", get=_input),
    Field("mapping", str | None, NAMED, get=_mapping),
    Field("outcome", str, "`ingested`; `resumed` (an interrupted batch); `already ingested`: nothing was done"),
    Field("same_content", str | None, OTHERWISE, get=otherwise_id),
    Field("resumed_from_record", int | None, "the first record that this command recorded", get="resumed_from"),
    Field("read", Count, "records of the whole batch: accepted + duplicates + rejected", get="batch.counts.read"),
    Field("accepted", Count, "deliveries that made an event", get="batch.counts.accepted"),
    Field(
        "duplicates",
        Object(
            Field("exact", Count, "with the same content"),
            Field("conflict", Count, "with the same idempotency key and other content"),
        ),
        "deliveries of events that already existed",
        get="batch.counts",
    ),
    Field(
        "duplicates_counting",
        Count | None,
        "duplicates that count, since the batches before with their event are withdrawn; null: none",
        get=or_null("corrected.counting"),
    ),
    Field(
        "of_events_out",
        Count | None,
        "duplicates of events that corrections took out: they are recorded, and do not count; null: none",
        get=or_null("corrected.out"),
    ),
    Field("rejected", Count, "records that are not valid events", get="batch.counts.rejected"),
    Field("reasons", dict[str, int] | None, _REASONS, get=lambda one: _most_frequent(one.batch.reasons)),
    Field("times_read", dict[str, int] | None, TIMES_READ, get=lambda one: times_read(one.batch.times)),
    Field("first_event", Instant | None, "the smallest `event_time`", get="batch.first_event"),
    Field("last_event", Instant | None, "the largest", get="batch.last_event"),
    *lag_fields("deliveries", "", "batch.lags"),
    Field("seconds", float, "how long this command took", get=lambda one: round(one.seconds, 3)),
    Field("records_per_second", Count | None, "records read in this command, by its time", get=_rate),
    NOTE,
    NEXT,
)

INGEST_SEVERAL = Schema(
    "pik ingest, several inputs",
    Rows(
        "batches",
        "one per input; a single one is shown so where it cannot be read to its end",
        Column("batch_id", str, get="batch.batch_id"),
        Column("source", str),
        Column("input", str, "as above", get=_input),
        Column("mapping", str | None, "as above", get=_mapping, rare=True),
        Column("outcome", str, "as above, or `interrupted`: a refused input, up to where it can be read"),
        Column("same_content", str | None, "as above", get=otherwise_id, rare=True),
        *(Column(name, Count, get=f"batch.counts.{name}") for name in _COUNTS),
    ),
    REFUSED,
    Field("read", Count, "over all inputs, as the following"),
    *(Field(name, Count) for name in _COUNTS[1:]),
    Field("times_read", dict[str, int] | None, "as above, over all inputs"),
    NOTE,
    NEXT,
)


def show_ingested(
    cli: Context,
    done: list[IngestReport],
    refused: Sequence[Refusal] | None,
    reading: Reading,
    known_mapping: Callable[[], str | None],
) -> None:
    """Show what became of the inputs: one in full, several as a table. `known_mapping` finds a shipped mapping for the
    first one."""
    following = _next(done, reading, known_mapping)
    if len(done) == 1 and refused is None:
        cli.show(INGEST, done[0], **following)
    else:
        total = sum((one.batch.counts for one in done), Counts())
        times = times_read(*(one.batch.times for one in done))
        found = {"batches": done, "refused_inputs": refused, "times_read": times}
        cli.show(INGEST_SEVERAL, total, **found, **following)


_FOREIGN = "foreign records need --map; `pik ingest --guess FILE` proposes one"
_MAPPED = "the mapping, of --map and of pik.toml, fits none of the records"
_ENCODED = "text that is not UTF-8 needs --encoding, such as --encoding cp1252"


def taken_of_longer(longer: Mapping[str, int], layout: Layout) -> Iterator[str]:
    """Yield of which lists a mapping took one element though they have more, and what takes all."""
    for taken, count in longer.items():
        path = taken.rpartition("[")[0] + "[]"
        all_of_them = "" if layout.records else f": --records {shlex.quote(path)} makes a record of each"
        yield f"{taken} takes one element of a longer list in {number_of(count, 'record')}{all_of_them}"


def _next(done: list[IngestReport], reading: Reading, known_mapping: Callable[[], str | None]) -> dict[str, str | None]:
    """Return what to type next, and what else to know, where something is left to do."""
    from pik.usecases.ingest.batch_ingest import Outcome

    rejected = [one.batch for one in done if one.batch.counts.rejected]
    reasons = list(chain.from_iterable(batch.reasons for batch in rejected))
    notes = []
    if rejected and all(one.batch.counts.read == one.batch.counts.rejected for one in done):
        named = any("mapping" in dict(one.batch.origin.options) for one in done)
        notes += why_none(reasons, known_mapping, mapped=reading.is_mapped or named)
    elif empty := [one.source for one in done if not one.batch.counts.read]:
        more = ", …" if len(empty) > 5 else ""
        notes.append("there is no record in " + ", ".join(map(shlex.quote, empty[:5])) + more)
    elif len(done) > 1 and (counting := sum(one.corrected.counting for one in done)):
        notes.append(f"duplicates that count, since the batches before with their event are withdrawn: {counting:,}")
    elif all(one.outcome == Outcome.ALREADY for one in done):
        notes.append("to record it as one more delivery of each event, add --again")
    if out := sum(one.corrected.out for one in done):
        notes.append(f"{number_of(out, 'duplicate')} of events that corrections took out: recorded, and not counted")
    notes += islice(chain.from_iterable(same_content(one.source, one.otherwise) for one in done), NOTED)
    notes += taken_of_longer(sum((Counter(one.longer) for one in done), Counter()), reading.layout)
    first = min((one.batch.first_event for one in done if one.batch.first_event is not None), default=None)
    events = sum(one.batch.counts.read - one.batch.counts.rejected for one in done)
    only_batch = done[0].batch.batch_id if len(done) == 1 else None
    notes += time_notes(reading.times, [(one.source, one.batch.times) for one in done], events, first, only_batch)
    notes += encoding_needed(reasons)
    return {
        "note": "; ".join(notes) or None,
        "next": command("batches", rejected[0].batch_id, "--rejects") if rejected else None,
    }


def why_none(reasons: Sequence[str], known_mapping: Callable[[], str | None], *, mapped: bool) -> list[str]:
    """Return why not one record is an event; nothing if a reason names the option that helps, or the encoding does."""
    names_option = any("--" in reason for reason in reasons)  # they are without what they quoted of records
    if encoding_needed(reasons) or names_option:
        return []
    if mapped:
        return [_MAPPED]
    known = known_mapping()
    return [_FOREIGN if known is None else f"--mapping {known} reads such records"]


def known_mapping(inputs: Sequence[Input]) -> str | None:
    """Return the name of the shipped mapping that is certainly for the first input, if it can be read again."""
    from pik.model.layout import AUTO

    if not inputs or inputs[0].is_stream:
        return None
    with inputs[0].open() as opened:
        return opened.known_mapping(AUTO)


def encoding_needed(reasons: Sequence[str]) -> list[str]:
    """Return what helps if records are not UTF-8; otherwise nothing. Texts of Parquet have no other encoding."""
    return [_ENCODED] if any("UTF-8" in one and not one.startswith("column ") for one in reasons) else []


INGEST_VIA_API = Schema(
    "pik ingest --via api",
    Field("read", Count, "records over all inputs, answered or rejected: accepted + duplicates + rejected"),
    Field("accepted", Count),
    Field(
        "duplicates",
        Object(
            Field("exact", Count, "includes what a repeated request had recorded already"),
            Field("conflict", Count),
        ),
        get=lambda total: total,
    ),
    Field("rejected", Count),
    Field("reasons", dict[str, int] | None, _REASONS),
    Field("times_read", dict[str, int] | None, "as above, of the records that were sent"),
    Field("requests", Count, "requests, repeats not counted"),
    Field("sent_again", Count, "records of requests that were repeated, because they had no answer"),
    Field("seconds", float),
    Field("records_per_second", Count | None),
    Rows(
        "sources",
        "one per input; those after one that stopped were not begun",
        Column("source", str),
        Column(
            "outcome",
            str,
            "`sent`, or `stopped`: the API failed for good",
            get=lambda sent: "stopped" if sent.failure else "sent",
        ),
        Column("mapping", str | None, NAMED, get=lambda sent: named(sent.named), rare=True),
        *(Column(name, Count, get=f"counts.{name}") for name in _COUNTS),
        Column("unanswered", Count, "records that were sent and have no response: they may or may not be recorded"),
        Column("unanswered_from", Count | None, "the first of them"),
    ),
    REFUSED,
    Rows(
        "rejects",
        "up to twenty per input, those that come first in it; `--rejects FILE` writes all",
        Column("source", str, get=lambda row: row[0]),
        Column("seq", Count, "its position in the input; in JSON lines the line", get=lambda row: row[1].seq),
        Column("reason", str, get=lambda row: row[1].reason, wrap=True),
    ),
    Field("truncated", bool, "whether there are more rejects"),
    Field("error", str | None, "why it stopped"),
    NOTE,
)


def show_sent(
    cli: Context, done: list[tuple[SendReport, list[Reject]]], refused: Sequence[Refusal] | None, reading: Reading
) -> None:
    """Show what became of the inputs, each with the first of its rejected records."""
    all_sent = [sent for sent, _ in done]
    total = sum((sent.counts for sent in all_sent), Counts())
    seconds = sum(sent.seconds for sent in all_sent)
    failure = all_sent[-1].failure
    shown = [(sent.source, reject) for sent, first in done for reject in first]
    cli.show(
        INGEST_VIA_API,
        total,
        reasons=_most_frequent(sum((Counter(sent.reasons) for sent in all_sent), Counter())),
        times_read=times_read(*(sent.times for sent in all_sent)),
        requests=sum(sent.requests for sent in all_sent),
        sent_again=sum(sent.repeated for sent in all_sent),
        seconds=round(seconds, 3),
        records_per_second=round(total.read / seconds) if seconds else None,
        sources=all_sent,
        refused_inputs=refused,
        rejects=shown,
        truncated=total.rejected > len(shown),
        error=failure.message if failure else None,
        note=_note_sent(all_sent, reading),
    )


def _note_sent(done: list[SendReport], reading: Reading) -> str | None:
    notes = []
    if done[-1].failure:
        notes.append("run the same command again; what was recorded comes as duplicates, nothing is lost")
    elif any(sent.counts.rejected for sent in done):
        notes.append("correct what was rejected, and ingest that; --rejects FILE writes it to a file")
    notes += taken_of_longer(sum((Counter(sent.longer) for sent in done), Counter()), reading.layout)
    events = sum(sent.counts.read - sent.counts.rejected for sent in done)
    notes += time_notes(reading.times, [(sent.source, sent.times) for sent in done], events, None)
    return "; ".join(notes) or None
