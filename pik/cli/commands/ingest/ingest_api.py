"""`pik ingest --via api`: what sends, and what it shows."""

from __future__ import annotations

from contextlib import nullcontext
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pik.cli import options
from pik.cli.command import PARTLY
from pik.cli.commands.ingest.ingest_fields import reasons
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Table
from pik.errors import UsageError

if TYPE_CHECKING:
    from pik.inputs.source import Source
    from pik.model.batch import Reject
    from pik.rawlog.segment_writer import Reading
    from pik.usecases.ingest.batch_ingest import IngestOptions
    from pik.usecases.ingest.via_api import Sent

_SHOWN = 20
"""Rejected records of an input that are shown: those that come first in it."""


def expect_possible(chosen: IngestOptions, max_line: int) -> None:
    """Raises UsageError for an option that the API does not have."""
    from pik.model.event import MAX_LINE

    batches = "each request is a batch of its own, and what comes again is recorded as a duplicate; leave it out"
    options.unknown_to_the_api(
        {
            "--batch-key": (chosen.batch_key is not None, batches),
            "--again": (chosen.again, batches),
            "--on-conflict fail": (chosen.refuse_conflicts, "the API records conflicts; the summary counts them"),
            "--max-line": (max_line != MAX_LINE, f"the API takes records of {MAX_LINE} bytes; leave it out"),
        }
    )


def send(cli: Context, sources: list[Source], reading: Reading, path: Path | None) -> int | None:
    """Send the inputs, one after the other, until one fails; `path` is the new file for rejected records."""
    from pik.usecases.ingest.via_api import send as send_input
    from pik.usecases.inspect.batches import record_bytes

    api = cli.open_api()
    done: list[tuple[Sent, list[Reject]]] = []
    try:
        opened = open(path, "xb") if path else nullcontext()  # noqa: SIM115 - closed by what follows
    except OSError as error:
        raise UsageError(f"--rejects {path}: {error.strerror}") from None
    with opened as file:
        for source in sources:
            first: list[Reject] = []

            def told(reject: Reject, first: list[Reject] = first) -> None:
                if file is not None:
                    file.write(record_bytes(reject) + b"\n")
                first.append(reject)
                first.sort(key=attrgetter("seq"))
                del first[_SHOWN:]

            done.append((send_input(api, source, reading, cli.progress, told), first))
            if done[-1][0].failure is not None:
                break
    cli.show(_document(done))
    return PARTLY if any(sent.failure or sent.counts.rejected for sent, _ in done) else None


def _document(done: list[tuple[Sent, list[Reject]]]) -> Document:
    from collections import Counter

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
            "reasons": reasons(sum((Counter(sent.reasons) for sent in all_sent), Counter())),
            "requests": Count(sum(sent.requests for sent in all_sent)),
            "sent_again": Count(sum(sent.repeated for sent in all_sent)),
            "seconds": round(seconds, 3),
            "records_per_second": Count(round(total.read / seconds)) if seconds else None,
        },
        tables=[Table("sources", columns, all_sent), Table("rejects", rejected, shown)],
        tail={
            "truncated": total.rejected > len(shown),
            "error": failure.message if failure else None,
            "note": _note(all_sent),
        },
    )


def _note(done: list[Sent]) -> str | None:
    if done[-1].failure:
        return "run the same command again; what was recorded comes as duplicates, nothing is lost"
    if any(sent.counts.rejected for sent in done):
        return "correct what was rejected, and ingest that; --rejects FILE writes it to a file"
    return None
