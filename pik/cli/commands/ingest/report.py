"""What `pik ingest` shows."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from pik.cli.render import Column, Count, Document, Instant, Json, Lag, Shown, Table
from pik.cli.render.text import visible
from pik.cli.render.values import words
from pik.errors import command

if TYPE_CHECKING:
    from pik.model.batch import Reject
    from pik.usecases.ingest.batch_ingest import CheckReport, IngestReport
    from pik.usecases.ingest.via_api import SendReport
    from pik.usecases.inspect.batches import Lags


def ingested(done: list[IngestReport], *, mapped: bool) -> Document:
    """What became of the inputs: one in full, several as a table."""
    from pik.model.batch import Counts

    total = sum((one.batch.counts for one in done), Counts())
    fields = dict(zip(("read", "accepted", "exact", "conflict", "rejected"), map(Count, total.astuple()), strict=True))
    if len(done) == 1:
        return Document(head={**_summary(done[0]), **_next(done, mapped=mapped)})
    columns = [
        Column("batch_id", get=lambda one: one.batch.batch_id),
        Column("source"),
        Column("outcome"),
        *(Column(name, Count, get=attrgetter(f"batch.counts.{name}")) for name in fields),
    ]
    return Document(tables=[Table("batches", columns, done)], tail={**fields, **_next(done, mapped=mapped)})


_FOREIGN = "foreign records need --map; `pik ingest --help` shows how"
_MAPPED = "the mapping, of --map and of pik.toml, fits none of the records"


def _next(done: list[IngestReport], *, mapped: bool) -> dict[str, str | None]:
    """What to type next, and what else to know, where something is left to do."""
    from pik.usecases.ingest.batch_ingest import Outcome

    note = None
    rejected = [one.batch for one in done if one.batch.counts.rejected]
    if rejected and all(one.batch.counts.read == one.batch.counts.rejected for one in done):
        note = _why_none(chain.from_iterable(batch.reasons for batch in rejected), mapped=mapped)
    elif empty := [one.source for one in done if not one.batch.counts.read]:
        note = "there is no record in " + ", ".join(map(shlex.quote, empty[:5])) + (", …" if len(empty) > 5 else "")
    elif all(one.outcome == Outcome.ALREADY for one in done):
        note = "to record it as one more delivery of each event, add --again"
    return {"note": note, "next": command("batches", rejected[0].batch_id, "--rejects") if rejected else None}


def _why_none(reasons: Iterable[str], *, mapped: bool) -> str | None:
    """What to say where not one record is an event; nothing if a reason names the option that helps."""
    if any("--" in reason for reason in reasons):
        return None
    return _MAPPED if mapped else _FOREIGN


def _summary(one: IngestReport) -> dict[str, object]:
    from pik.usecases.ingest.batch_ingest import Outcome
    from pik.usecases.inspect.batches import lags

    batch, counts = one.batch, one.batch.counts
    lag = lags(batch)
    read_now = counts.read if one.resumed_from is None else counts.read - (one.resumed_from - 1)
    new = one.outcome != Outcome.ALREADY
    return {
        "batch_id": batch.batch_id,
        "source": one.source,
        "outcome": one.outcome,
        "resumed_from_record": one.resumed_from,
        "read": Count(counts.read),
        "accepted": Count(counts.accepted),
        "duplicates": {"exact": Count(counts.exact), "conflict": Count(counts.conflict)},
        "rejected": Count(counts.rejected),
        "reasons": _most_frequent(batch.reasons),
        "first_event": Instant(batch.first_event) if batch.first_event is not None else None,
        "last_event": Instant(batch.last_event) if batch.last_event is not None else None,
        "lag": _lags(lag) if lag else None,
        "clock_skew": Count(lag.skewed) if lag and lag.skewed else None,
        "seconds": round(one.seconds, 3),
        "records_per_second": Count(round(read_now / one.seconds)) if new and one.seconds else None,
    }


def _lags(lag: Lags) -> Shown:
    percentiles = ("min", "p50", "p95", "p99", "max")
    shown = {name: Lag(getattr(lag, name), cut=not lag.exact) for name in percentiles}
    return Shown({**shown, "rounded": not lag.exact}, words(shown))


def _most_frequent(counted: Mapping[str, int]) -> Shown | None:
    """The five most frequent ones, and how many records have another."""
    named = {reason or "(reasons beyond the first 1,000)": count for reason, count in counted.items()}
    most = dict(sorted(named.items(), key=lambda item: -item[1])[:5])
    if len(named) > len(most):
        most["(other reasons)"] = sum(named.values()) - sum(most.values())
    return Shown(most, ", ".join(f"{count:,} × {visible(reason)}" for reason, count in most.items())) if most else None


def checked(inputs: list[CheckReport], *, mapped: bool) -> Document:
    """What a dry run found."""
    columns = [
        Column("source"),
        Column("read", Count),
        Column("valid", Count),
        Column("rejected", Count, get=lambda one: one.read - one.valid),
        Column("reasons", get=lambda one: _most_frequent(one.reasons), wrap=True),
    ]
    return Document(
        head={"dry_run": True},
        tables=[Table("sources", columns, inputs)],
        tail={"sample": _sample(inputs) if mapped else None, "note": _note_checked(inputs, mapped=mapped)},
    )


def _sample(inputs: list[CheckReport]) -> Json | None:
    """An event that the mapping makes."""
    return next((Json(one.sample) for one in inputs if one.sample is not None), None)


def _note_checked(inputs: list[CheckReport], *, mapped: bool) -> str:
    if any(one.read for one in inputs) and not any(one.valid for one in inputs):
        why = _why_none(chain.from_iterable(one.reasons for one in inputs), mapped=mapped)
        return "no record is a valid event" + (f"; {why}" if why else "")
    return "nothing was stored, and duplicates were not looked for; leave --dry-run out to ingest"


def sent_via_api(done: list[tuple[SendReport, list[Reject]]]) -> Document:
    from pik.model.batch import Counts

    all_sent = [sent for sent, _ in done]
    total = sum((sent.counts for sent in all_sent), Counts())
    seconds = sum(sent.seconds for sent in all_sent)
    failure = all_sent[-1].failure
    shown = [(sent.source, reject) for sent, first in done for reject in first]
    columns = [
        Column("source"),
        Column("outcome", get=lambda sent: "stopped" if sent.failure else "sent"),
        *(Column(name, Count, get=attrgetter(f"counts.{name}")) for name in ("read", "accepted", "exact", "conflict")),
        Column("rejected", Count, get=attrgetter("counts.rejected")),
        Column("unanswered", Count),
        Column("unanswered_from", Count),
    ]
    rejected = [
        Column("source", get=lambda row: row[0]),
        Column("seq", Count, get=lambda row: row[1].seq),
        Column("reason", get=lambda row: row[1].reason, wrap=True),
    ]
    return Document(
        head={
            "read": Count(total.read),
            "accepted": Count(total.accepted),
            "duplicates": {"exact": Count(total.exact), "conflict": Count(total.conflict)},
            "rejected": Count(total.rejected),
            "reasons": _most_frequent(sum((Counter(sent.reasons) for sent in all_sent), Counter())),
            "requests": Count(sum(sent.requests for sent in all_sent)),
            "sent_again": Count(sum(sent.repeated for sent in all_sent)),
            "seconds": round(seconds, 3),
            "records_per_second": Count(round(total.read / seconds)) if seconds else None,
        },
        tables=[Table("sources", columns, all_sent), Table("rejects", rejected, shown)],
        tail={
            "truncated": total.rejected > len(shown),
            "error": failure.message if failure else None,
            "note": _note_sent(all_sent),
        },
    )


def _note_sent(done: list[SendReport]) -> str | None:
    if done[-1].failure:
        return "run the same command again; what was recorded comes as duplicates, nothing is lost"
    if any(sent.counts.rejected for sent in done):
        return "correct what was rejected, and ingest that; --rejects FILE writes it to a file"
    return None
