"""What to say where nothing matches: the answer, and a near miss where the index has one at hand."""

from __future__ import annotations

from pik.model.instant import format_instant
from pik.model.window import Window
from pik.ports.store import Store


def nothing_matches(things: str, store: Store, window: Window) -> str:
    """`0 events match`, and where the window is to blame, when the store has events."""
    totals = store.index.totals()
    found = f"0 {things} match"
    if totals.first_event is None or totals.last_event is None:
        return f"{found}: the store has no events"
    if totals.last_event < window.start or totals.first_event >= window.end:
        first, last = format_instant(totals.first_event), format_instant(totals.last_event)
        return f"{found}: the store has events from {first} to {last}"
    return found
