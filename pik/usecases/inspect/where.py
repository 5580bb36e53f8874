"""`--where`: the deliveries that an SQL condition selects, found by the engine."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pik.errors import EngineError, Invalid, UsageError
from pik.model.delivery import Filter
from pik.model.metric import Definition
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.selection import NO_OVERRIDES, Overrides, Selection

if TYPE_CHECKING:
    from pik.ports.engine import Engine


class Places:
    """A set of deliveries, by batch and seq, that takes eight bytes for each."""

    def __init__(self, places: Iterable[tuple[str, int]]) -> None:
        self._seqs: dict[str, array[int]] = defaultdict(lambda: array("q"))
        for batch_id, seq in places:
            self._seqs[batch_id].append(seq)
        for batch_id, seqs in self._seqs.items():
            self._seqs[batch_id] = array("q", sorted(seqs))

    def __contains__(self, place: tuple[str, int]) -> bool:
        seqs = self._seqs.get(place[0])
        if seqs is None:
            return False
        at = bisect_left(seqs, place[1])
        return at < len(seqs) and seqs[at] == place[1]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for batch_id, seqs in self._seqs.items():
            yield from ((batch_id, seq) for seq in seqs)

    def has_batch(self, batch_id: str) -> bool:
        """Return whether a delivery of the batch is in it."""
        return batch_id in self._seqs


def matching(
    store: Store,
    engine: Engine,
    wanted: Filter,
    where: str,
    *,
    duplicates: bool = False,
    overrides: Overrides = NO_OVERRIDES,
) -> Places:
    """Return the deliveries in the window that count (with `duplicates` all) and meet the condition, which is SQL as in
    a metric's `where`. Raises UsageError for one that a metric could not have, or that fails for a delivery."""
    definition = Definition(name="selection", value="count(*)", where=where)
    try:
        engine.check(definition)
    except Invalid as error:
        hint = error.hint or "a condition as in a metric's where: docs/metrics.md"
        raise UsageError(f"--where {where}: {error.message.partition(': ')[2]}", hint=hint) from None
    try:
        return selected(store, engine, wanted, where, replace(overrides, duplicates=duplicates))
    except EngineError as error:
        hint = "TRY_CAST in place of a cast, or a condition that fails for no event"
        raise UsageError(f"--where {where}: {error.message.partition(': ')[2]}", hint=hint) from None


def selected(store: Store, engine: Engine, wanted: Filter, where: str, overrides: Overrides = NO_OVERRIDES) -> Places:
    """Return the deliveries in the window that a metric with this condition counts, of those that count. Raises
    EngineError where it fails for a delivery."""
    definition = Definition(name="selection", value="count(*)", where=where)
    with gather(Selection(store, wanted.window, wanted.entities, overrides)) as raw:
        counted = engine.counted(raw.inputs, definition, wanted.window, wanted.entities)
        return Places((one.batch_id, one.seq) for one in counted)
