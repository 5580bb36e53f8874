"""`pik duplicates --class suspect`: events that may be retries with a new time or key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from pik.cli.commands.inspect.corrected import EFFECTS, effects_finder, effects_note, effects_of, notes
from pik.cli.commands.inspect.groups import GROUPED, Watched, shown_group
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Rows, Schema
from pik.cli.values import Count, EventId, Instant, Json, Lag
from pik.config import Format
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.cli.context import Context
    from pik.model.delivery import Filter
    from pik.model.path import EventPath
    from pik.usecases.inspect.suspects import SuspectRow, SuspectRule, SuspectTotals


def show_suspects(
    cli: Context,
    wanted: Filter,
    rule: SuspectRule,
    by: str | EventPath | None,
    limit: int | None,
    *,
    columns: Sequence[EventPath] = (),
    as_received: bool = False,
) -> bool:
    """Show the suspects, each with what the columns find in both events, or count them, and return whether there are
    any."""
    from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES
    from pik.usecases.inspect.suspects import count_suspects, list_suspects

    store, engine = cli.open_store(), cli.engine()
    head = {"window": wanted.window, "entity": next(iter(wanted.entities), None), "rule": str(rule)}
    overrides = AS_RECEIVED if as_received else NO_OVERRIDES
    effects = effects_finder(cli, store, wanted, as_received=as_received)
    if by is None:
        found = list_suspects(store, engine, wanted, rule, paths=columns, limit=limit, overrides=overrides)
        cli.show(
            _schema(cli, columns),
            head,
            suspects=found,
            matched=lambda: found.summary.suspects,
            truncated=lambda: found.summary.truncated,
            corrected=lambda: effects_of(effects()),
            note=lambda: notes(_note(found.summary, rule, limit), effects_note(effects())),
        )
        return found.summary.suspects > 0
    groups = count_suspects(store, engine, wanted, rule, by, limit=limit, overrides=overrides)
    watched = Watched(groups, by)
    cli.show(
        shown_group(SUSPECTS_BY, by),
        {**head, "by": str(by)},
        groups=watched,
        matched=lambda: groups.summary.suspects,
        truncated=lambda: groups.summary.truncated,
        corrected=lambda: effects_of(effects()),
        note=lambda: notes(_note(groups.summary, rule, limit), watched.note, effects_note(effects())),
    )
    return groups.summary.suspects > 0


def _schema(cli: Context, columns: Sequence[EventPath]) -> Schema:
    """Return SUSPECTS with the columns asked for: in JSON all that is found, otherwise one each for both events."""
    if not columns:
        return SUSPECTS.without("suspects.values", "suspects.earlier_values")
    if cli.settings.format in (Format.JSON, Format.JSONL):
        names = [path.text for path in columns]
        schema = SUSPECTS
        for name in ("values", "earlier_values"):
            schema = schema.replaced(f"suspects.{name}", Column(name, Json, get=partial(_found, names, name)))
        return schema
    each = (Column(path.text, get=partial(_both, at), cut=30) for at, path in enumerate(columns))
    schema = SUSPECTS.without("suspects.earlier_values").replaced("suspects.values", *each)
    for drop, column in ((1, _ENTITY), (2, _LOOKS_LIKE)):  # the columns asked for need the room
        schema = schema.replaced(f"suspects.{column.name}", msgspec.structs.replace(column, drop=drop))
    return schema


def _found(names: list[str], which: str, row: SuspectRow) -> bytes:
    """Return the JSON of what is found in one of the two events, by path."""
    values = map(msgspec.Raw, getattr(row, which))
    return msgspec.json.encode(dict(zip(names, values, strict=True)))


def _both(at: int, row: SuspectRow) -> str:
    """Return what both events have; where they differ the earlier one's first."""
    earlier, later = (_plain(values[at]) for values in (row.earlier_values, row.values))
    return later if earlier == later else f"{earlier} → {later}"


def _sources(row: SuspectRow) -> str:
    """Return the source of both events; where they differ the earlier one's first."""
    return row.source if row.source == row.earlier_source else f"{row.earlier_source} → {row.source}"


def _plain(value: bytes) -> str:
    """Return JSON, of a text without the quotes around it."""
    return str(msgspec.json.decode(value)) if value.startswith(b'"') else "-" if value == b"null" else value.decode()


def _note(found: SuspectTotals, rule: SuspectRule, limit: int | None) -> str | None:
    """Return what else to know about the suspects."""
    notes: list[str] = []
    if found.truncated:
        notes.append(f"--limit N shows more than the first {limit:,}")
    if found.incomparable:
        paths = ", ".join(path.text for path in rule.same)
        notes.append(f"{found.incomparable:,} events have a neighbour in time, but nothing at {paths}: not compared")
    if found.cut:
        notes.append("events before the window are not held, so those at its beginning were not compared with them")
    return "; ".join(notes) or None


_RULE = Field("rule", str, "what makes an event a suspect. A guess: suspects are not counted as duplicates")

_LOOKS_LIKE = Column("looks_like", EventId, "the earlier event", get="earlier_event_id")

_ENTITY = Column("entity_id", str, cut=24)

SUSPECTS = Schema(
    "pik duplicates --class suspect",
    Field("window", Window),
    Field("entity", str | None),
    _RULE,
    Rows(
        "suspects",
        "each event that looks like an earlier one, by `event_time`, `event_id`",
        Column("event_id", EventId),
        Column("event_time", Instant),
        Column("distance", Lag, "how long after the earlier one; 0: at the same time, and recorded later"),
        _LOOKS_LIKE,
        Column("earlier_time", Instant, "its `event_time`", detail=True),
        Column("source", str, cut=16, drop=2, text=lambda row: _sources(row)),
        Column("event_type", str, cut=20, drop=1),
        _ENTITY,
        Column("values", Json, "what `--column` finds in the suspect", only="with `--column`"),
        Column("earlier_values", Json, "and in the earlier event", only="with `--column`"),
        Column("batch_id", str, "of the suspect's accepted delivery", drop=3),
        Column("seq", int, "likewise", drop=4),
        Column("earlier_batch_id", str, "of the earlier event's accepted delivery", drop=5),
        Column("earlier_seq", int, "likewise", drop=6),
        Column("earlier_source", str, "that of the earlier event; another one only with `--any-source`", detail=True),
        empty=lambda found: f"no suspects {found['window'].within}",
    ),
    Field("matched", Count, "how many there are"),
    TRUNCATED,
    EFFECTS,
    NOTE,
)

SUSPECTS_BY = Schema(
    "pik duplicates --class suspect --by",
    Field("window", Window),
    Field("entity", str | None),
    _RULE,
    Field("by", str, "what they are counted by"),
    Rows(
        "groups",
        "most first",
        *GROUPED,
        Column("suspects", Count, bar=True),
        empty=lambda found: f"no suspects {found['window'].within}",
    ),
    Field("matched", Count, "suspects in all groups"),
    TRUNCATED,
    EFFECTS,
    NOTE,
)
