"""What commands that show deliveries say of corrections."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from pik.cli.document import Column, Field, Object
from pik.cli.values import Count, Instant
from pik.errors import number_of

if TYPE_CHECKING:
    from pik.cli.context import Context
    from pik.model.delivery import Filter
    from pik.ports.store import Store
    from pik.usecases.correct.consequences import PlannedCorrection
    from pik.usecases.inspect.effects import Effects


def correction_ids(row: Any) -> str | None:
    """Return the ids of the corrections that concern a delivery, with a comma between two."""
    return ",".join(row.corrections) or None


RECEIVED = "the time with which it came; null: a correction did not change it"
CORRECTION = "ids, with a comma between two, of the corrections that moved it, chose whether it counts, or took it out"
CORRECTED_COLUMNS = (
    Column("received_event_time", Instant | None, RECEIVED, rare=True, drop=4),
    Column("correction", str | None, CORRECTION, get=correction_ids, rare=True, drop=5),
)
"""What a table of deliveries says of corrections."""

EFFECTS = Field(
    "corrected",
    Object(
        Field("taken_out", Count, "events that do not count there any more"),
        Field("moved", Count, "events that happened at another time: within the window, into it or out of it"),
        Field("replaced", Count, "events that count by another delivery than the accepted one"),
        null=True,
    ),
    "what corrections changed of the events of the window (of the entity, source and type asked for); null: no"
    " correction concerns it",
)


def effects_finder(
    cli: Context, store: Store, wanted: Filter, *, as_received: bool = False
) -> Callable[[], Effects | None]:
    """Return what finds, once, what corrections changed of the events that the filter selects; None: no correction
    concerns its window, or what came is shown."""

    @cache
    def find() -> Effects | None:
        from pik.usecases.inspect.effects import are_concerned, corrected_effects

        if as_received or not are_concerned(store, wanted):  # so that no engine is loaded for nothing
            return None
        return corrected_effects(store, cli.engine(), wanted)

    return find


def effects_of(effects: Effects | None) -> dict[str, int] | None:
    """Return the value of EFFECTS."""
    if effects is None:
        return None
    return {"taken_out": effects.taken_out, "moved": effects.moved, "replaced": effects.replaced}


_AS_RECEIVED = "--as-received shows what came"


def effects_note(effects: Effects | None, *, shown: str = _AS_RECEIVED) -> str | None:
    """Return the note about what corrections changed, and what is `shown` of that; None: nothing changed."""
    return f"by corrections: {effect_words(effects)}; {shown}" if effects else None


def effect_words(effects: Effects | PlannedCorrection) -> str:
    """Return how many events corrections take out, move, or count by another delivery; an empty text for none."""
    counts = {
        "taken out": effects.taken_out,
        "moved": effects.moved,
        "counted by another delivery": effects.replaced,
    }
    return ", ".join(f"{number_of(count, 'event')} {what}" for what, count in counts.items() if count)


def notes(*texts: str | None) -> str | None:
    """Return several notes as one."""
    return "; ".join(text for text in texts if text) or None
