"""What to say where nothing matches: the answer, and a near miss where the index has one at hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from pik.errors import Damaged, NothingSelected, command
from pik.model.event import entity_mark
from pik.model.instant import format_instant
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.frames import frame_lines, frames_of
from pik.rawlog.gather import gather

_LOOKED_AT = 32
"""Frames that are read at most to find an entity that is written almost alike."""


def nothing_selected(store: Store, what: str, window: Window, entities: Sequence[str]) -> NothingSelected:
    """The error for a selection that is empty; `what` begins its sentence, such as `nothing to compare`."""
    whose = f" of {', '.join(map(repr, entities[:5]))}" if entities else ""
    alike = [found for entity in entities[:5] for found in written_alike(store, entity)]
    hint = "from when to when there are events: pik status"
    if alike:
        hint = f"did you mean {' or '.join(map(repr, alike))}?"
    elif entities:
        hint = "how entities are written: pik events --limit 20"
        if window != ALL_TIME:
            hint = f"its events of all time: {command('events', '--entity', entities[0])}"
    return NothingSelected(f"{what}: there is neither an event nor a current value{whose} in {window}", hint=hint)


def null_values(what: str, nulls: Mapping[str, tuple[int, int]]) -> NothingSelected:
    """The error for metrics whose value is NULL wherever there are events: a mistyped field, mostly. `nulls` are the
    buckets and events of each."""
    metric, *others = sorted(nulls)
    buckets, events = nulls[metric]
    where = "its 1 bucket" if buckets == 1 else f"each of its {buckets:,} buckets"
    read = f"{events:,} event{'' if events == 1 else 's'}"
    more = f"; {', '.join(others)} likewise" if others else ""
    return NothingSelected(
        f"{what}: the value of {metric} is NULL in {where}, with {read}{more}",
        hint=command("metrics", "show", metric),
    )


def nothing_counted(what: str, metrics: Sequence[str], events: int, window: Window) -> NothingSelected:
    """The error for metrics (NAME@VERSION) whose filters let none of the events in: a mistyped `where`, mostly."""
    count = "counts" if len(metrics) == 1 else "count"
    read = f"{events:,} event{'' if events == 1 else 's'}"
    return NothingSelected(
        f"{what}: {', '.join(metrics)} {count} none of the {read} in {window}",
        hint=command("metrics", "show", metrics[0].partition("@")[0]),
    )


def events_within(store: Store, engine: Engine, window: Window, size: int, entities: Sequence[str]) -> int:
    """How many events there are in whole buckets of this size."""
    with gather(store, window, entities) as gathered:
        if gathered.empty:
            return 0
        pairs = engine.touched(gathered.inputs, size, window, entities=entities, source=None, event_type=None)
        return sum(pair.events for pair in pairs)


def without_value(store: Store, entities: Collection[str], window: Window) -> str:
    """What to say of some of the named entities of which there is nothing, while there is something of others."""
    shown = sorted(entities)[:5]
    more = f" and {len(entities) - len(shown):,} more" if len(entities) > len(shown) else ""
    alike = [found for entity in shown for found in written_alike(store, entity)]
    question = f"; did you mean {' or '.join(map(repr, alike))}?" if alike else ""
    return f"no value of {', '.join(map(repr, shown))}{more} in {window}, computed or current{question}"


def written_alike(store: Store, entity: str, window: Window = ALL_TIME) -> list[str]:
    """Entities with events in the days of the window whose names differ from this one in case or in white space around
    them. The index is asked once, and only a few frames are read."""
    bare = entity.strip()
    forms = {bare, bare.lower(), bare.upper(), bare.title(), bare.capitalize(), f"{bare} ", f" {bare}"}
    marks = {form: entity_mark(form) for form in sorted(forms - {entity, ""})}
    frames = (
        (segment, frame)
        for segment in store.index.segments(window, entities=list(marks))
        for frame in frames_of(segment, list(marks))
    )
    found: list[str] = []
    for segment, frame in islice(frames, _LOOKED_AT):
        try:
            lines = frame_lines(store.raw, segment, frame)
        except Damaged:
            continue  # this is a search for a hint
        found += [form for form, mark in marks.items() if form not in found and any(mark in line for line in lines)]
    return found


def nothing_matches(things: str, store: Store, window: Window, entities: Sequence[str]) -> str:
    """`0 events match`, and where the window is to blame, when the store has events; where an entity may be, which one
    is written almost alike. A deployed store is not asked for that: it would take a call for each day."""
    totals = store.index.totals()
    found = f"0 {things} match"
    if totals.first_event is None or totals.last_event is None:
        return f"{found}: the store has no events"
    if totals.last_event < window.start or totals.first_event >= window.end:
        first, last = format_instant(totals.first_event), format_instant(totals.last_event)
        return f"{found}: the store has events from {first} to {last}"
    alike = [] if store.deployed else [near for one in entities[:5] for near in written_alike(store, one, window)]
    return f"{found}; did you mean {' or '.join(map(repr, alike))}?" if alike else found
