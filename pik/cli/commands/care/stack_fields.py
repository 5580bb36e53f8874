"""What `pik stack status` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pik import __version__
from pik.cli.render import Column, Count, Document, Instant, Shown, Table
from pik.model.instant import SECOND, format_duration

if TYPE_CHECKING:
    from pik.ports.stack import Depth
    from pik.usecases.deployment import StackStatus


def status(found: StackStatus) -> Document:
    """The stack, its parts, and what is wrong or not known."""
    here = found.deployment
    alarms = [Column("alarm", get=lambda one: one.name), Column("state"), Column("since", Instant)]
    return Document(
        head={
            "stack": here.name,
            "region": here.region,
            "account": here.account,
            "stack_version": here.version or None,
            "pik_version": __version__,
            "outputs": Shown(here.outputs, "\n".join(f"{name} {value}" for name, value in here.outputs.items())),
            "queue": _depth(found.depth),
        },
        tables=[
            Table("parts", _PARTS, found.parts),
            _table("alarms", [*alarms, Column("reason", wrap=True)], found.alarms),
            _table("batches", _BATCHES, found.batches),
            _table("metrics", _METRICS, found.metrics),
        ],
        tail={
            "unhealthy": _lines(found.unhealthy, "nothing"),
            "unknown": _lines(found.unknown, "nothing"),
            "next": _after_status(found),
        },
    )


_UNSEEN = "not known; see below"


def _table(name: str, columns: list[Column], rows: Sequence[object] | None) -> Table:
    return Table(name, columns, rows or (), empty=_UNSEEN if rows is None else f"no {name}")


def _depth(depth: Depth | None) -> object:
    if depth is None:
        return Shown(None, _UNSEEN)
    value = {
        "visible": depth.visible,
        "in_flight": depth.in_flight,
        "delayed": depth.delayed,
        "dead": depth.dead,
        "oldest_seconds": depth.oldest,
    }
    if depth.hidden:
        age = ", the oldest of unknown age"
    else:
        age = "" if depth.oldest is None else f", the oldest for {format_duration(depth.oldest * SECOND)}"
    text = f"{depth.visible:,} waiting, {depth.in_flight:,} in flight, {depth.delayed:,} delayed{age}"
    return Shown(value, f"{text}\n{depth.dead:,} dead letters")


def _lines(sentences: Sequence[str], otherwise: str) -> Shown:
    return Shown(sentences, "\n".join(sentences) or otherwise)


def _after_status(found: StackStatus) -> str | None:
    if found.depth is not None and found.depth.dead:
        return "pik dlq list"
    return "pik stack doctor" if found.unhealthy or found.unknown else None


_PARTS = [
    Column("part", get=lambda part: part.name),
    Column("state"),
    Column("healthy"),
    Column("detail", wrap=True),
]

_BATCHES = [
    Column("batch_id"),
    Column("source", get=lambda batch: batch.origin.name),
    Column("state"),
    Column("started_at", Instant),
    Column("accepted", Count, get=lambda batch: batch.counts.accepted),
]

_METRICS = [
    Column("name"),
    Column("version"),
    Column("applied_at", Instant, get=lambda metric: metric.applied_at or None),  # the built-in one never was
]
