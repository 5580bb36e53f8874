"""What `pik verify --rebuild-index` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pik.cli.render import Column, Count, Document, Shown, Table
from pik.errors import command

if TYPE_CHECKING:
    from pik.usecases.rebuild.rebuild import Rebuilt


def rebuilt(done: Rebuilt) -> Document:
    """What the index was made of, and which events have another accepted delivery now, or may have."""
    return Document(
        head={
            "batches": Count(done.batches),
            "segments": Count(done.segments),
            "deliveries": Count(done.deliveries),
            "unfinished_batches": Count(done.unfinished),
            "superseded": Count(done.superseded),
            "expired": Count(done.expired),
            "replaced_index": Shown(done.replaced, _EXTENTS[done.replaced]),
            "guessed_times": Count(done.guessed),
            "unacknowledged_requests": Count(done.unacknowledged),
            "uncertain_requests": Count(done.uncertain),
            "lost_deliveries": Count(done.lost),
            "lost_in": list(done.lost_in) or None,
            "revised_events": Count(done.revised),
            "undecided_events": Count(done.undecided),
            "dropped_batches": list(done.dropped) or None,
            "damaged": list(done.damaged) or None,
        },
        tables=[
            Table("revised", _REVISED, done.examples, empty=_no_revision(done)),
            *([Table("undecided", _UNDECIDED, done.undecided_examples)] if done.undecided else []),
        ],
        tail={
            "truncated": done.revised > len(done.examples) or done.undecided > len(done.undecided_examples),
            "note": "restore the damaged objects from a copy of the store first" if done.damaged else None,
            "next": command("verify", "--rebuild-index") if done.damaged else None,
        },
    )


_EXTENTS = {
    "all": "read whole: its verdicts and times were kept",
    "part": "read in part: what it still says was kept",
    "none": "gone or empty: verdicts and times are those of raw",
}

_REVISED = [
    Column("event_id"),
    Column("was_accepted", get=lambda one: _place(one.old) if one.old else "(lost)"),
    Column("now_accepted", get=lambda one: _place(one.new)),
]

_UNDECIDED = [
    Column("event_id"),
    Column("now_accepted", get=lambda one: _place(one.counted)),
    Column("not_accepted", get=lambda one: _place(one.other)),
]


def _place(place: tuple[str, int]) -> str:
    batch_id, seq = place
    return f"{batch_id} record {seq}"


def _no_revision(done: Rebuilt) -> str:
    """What can be said where no winner is known to have changed."""
    if done.lost:
        return "no event got another accepted delivery, but deliveries are lost"
    if done.replaced != "all":
        return "no event is known to have another accepted delivery than before"
    return "every event kept its accepted delivery"
