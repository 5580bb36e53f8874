"""What a store no longer has: raw that has expired and, in a copy, what was not pulled. What needs it is refused."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from time import time_ns

from pik.errors import NotHeld, UsageError, command
from pik.model.instant import day_text
from pik.model.retention import expired
from pik.model.window import Window, covered
from pik.ports.store import Store, expect_unsealed
from pik.rawlog.sealed_records import parts
from pik.rawlog.selection import Selection

_LISTED = 5
"""Parts of a copy that an error lists."""


def has_expired(store: Store, created: int) -> bool:
    """Return whether a raw object that was created then may be gone, because the store keeps raw for some days only."""
    return expired(created, store.retention_days, time_ns())


def expect_held(store: Store, window: Window, entities: Sequence[str] = ()) -> None:
    """Raise NotHeld unless all raw of the window (and of the entities; none: of all) is there, as far as the index
    knows."""
    expect_pulled(store, window, entities)
    if store.retention_days is None:
        return
    # Counted and not listed: each event of an API request has its own segment.
    count, first, last = 0, 0, 0
    for segment, _ in Selection(store, window, entities).needed():
        if has_expired(store, segment.ingest_time):
            first, last = (first if count else segment.day), segment.day
            count += 1
    if count:
        of_days = f"of {day_text(first)}" if first == last else f"of {day_text(first)} to {day_text(last)}"
        raise NotHeld(
            f"raw {of_days} has expired: this store keeps raw for {store.retention_days} days, and {count} of the"
            f" segments that {window} needs are older",
            hint=f"use a window after {day_text(last)} (--from {day_text(last + 1)}); the numbers that were computed"
            " from it are still there: pik aggregates",
        )


def expect_pulled(store: Store, window: Window, entities: Sequence[str] = ()) -> None:
    """Raise NotHeld if the store is a copy that does not hold all of the window (of the entities; none: of all)."""
    if store.copy is None:
        return
    pulled = parts(store)
    if covered(pulled, window, entities):
        return
    needed = f"{window} of {', '.join(entities[:_LISTED]) or 'every entity'}"
    listed = "; ".join(map(str, pulled[-_LISTED:])) or "nothing"
    options = [("--from", window.from_text), ("--to", window.to_text), *(("--entity", entity) for entity in entities)]
    words = [word for option, text in options if text for word in (option, text)]
    rest = command("pull", "--store", store.copy.source, "--into", store.url, *words)
    raise NotHeld(
        f"{store.url}, a copy of {store.copy.source}, does not hold {needed}; it holds {listed}",
        hint="use a window that it holds" + ("" if store.sealed else f", or pull the rest: {rest}"),
    )


def require_writable(store: Store) -> None:
    """Raise UsageError if the store is a copy, into which only pulls bring events: which delivery of an event is the
    first, and which a duplicate, only the whole store knows. Raises StoreError for an evidence bundle."""
    expect_unsealed(store)
    if store.copy is not None:
        raise UsageError(
            f"{store.url} is a copy of {store.copy.source}; events are not ingested into copies, which cannot tell what"
            " is a duplicate",
            hint=f"--store {shlex.quote(store.copy.source)}, or a store that is not a copy",
        )
