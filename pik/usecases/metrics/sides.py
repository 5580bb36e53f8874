"""The sides of a comparison: what is current, what was current at some time, what a run wrote, what a file has.

What was current then is not recorded. It follows from the promotions until then, replayed over the versions of each
aggregate: each knows its base, the version that it was written beside, and a promotion moves it only where that is
current.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import itemgetter

from pik.errors import Invalid, StoreError, UsageError
from pik.model.aggregate import Aggregate
from pik.model.instant import display_instant
from pik.model.metric import Metric
from pik.model.run import PromotionKind, Run
from pik.model.typed_times import typed_instant
from pik.model.window import Window
from pik.model.zone import Zone
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.usecases.metrics.computation import sound


class SideKind(StrEnum):
    """Where the values of a side come from."""

    CURRENT = "current"
    RECOMPUTED = "recomputed"
    RUN = "run"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Side:
    """A side as it is named: `current`, `current@TIME` (`at`, in nanoseconds), `recomputed`, `run:ID` or `file:PATH`
    (`name`)."""

    kind: SideKind
    name: str = ""
    at: int | None = None


LEFT = Side(SideKind.CURRENT)
RIGHT = Side(SideKind.RECOMPUTED)


def read_side(option: str, text: str, kinds: Sequence[SideKind], zone: Zone | None, *, now: int) -> Side:
    """Return the side that a text names, one of these kinds; its time is as in `typed_instant`. Raises UsageError."""
    kind, colon, name = text.partition(":")
    current, at_sign, time = text.partition("@")
    if current == SideKind.CURRENT and at_sign:
        try:
            return Side(SideKind.CURRENT, at=typed_instant(time, zone, now=now))
        except Invalid as error:
            hint = error.hint or "current@ and a time: 2026-01-31T10:00, 2026-01-31, yesterday, now-2h"
            raise UsageError(f"{option}: {error.message}", hint=hint) from None
    if kind in kinds and bool(name) == bool(colon) == (kind in (SideKind.RUN, SideKind.FILE)):
        return Side(SideKind(kind), name)
    usage = {SideKind.CURRENT: "current or current@TIME", SideKind.RUN: "run:ID", SideKind.FILE: "file:PATH"}
    raise UsageError(f"{option}: invalid side {text!r}", hint=", ".join(usage.get(one, str(one)) for one in kinds))


class RecordedSide:
    """Values that the store has recorded: those that are current, were so at `at`, or were written by `run`."""

    def __init__(self, store: Store, side: Side) -> None:
        """Raises NotFound for an unknown run, StoreError where the past is not known."""
        self.at = side.at
        self.run: Run | None = store.runs.get(side.name) if side.kind == SideKind.RUN else None
        self._aggregates = store.aggregates
        self._moves: Mapping[str, Sequence[tuple[int, Promotion]]] = {}
        self._later: set[str] = set()
        self.uncertain: set[str] = set()
        """Runs that were promoted again after `at`, and that may have written more in between."""
        if self.at is not None:
            if store.copy is not None:
                raise StoreError(
                    "a copy does not have the promotions of its origin, so it cannot tell what was current then",
                    hint="ask the store that it was pulled from",
                )
            self._moves = self._known_moves(list(store.promotions.newest_first()), self.at)

    def __str__(self) -> str:
        if self.run is not None:
            return f"run:{self.run.run_id}"
        return "current" if self.at is None else f"current@{display_instant(self.at)}"

    def rows(self, metrics: Sequence[Metric], window: Window, entities: Sequence[str] = ()) -> Iterator[Aggregate]:
        """Yield the values, ordered by metric, bucket, entity. Raises Damaged at one that is not as it was written,
        where that is looked at."""
        for name in sorted(metric.name for metric in metrics):
            yield from self.named(name, window, entities)

    def named(self, metric: str, window: Window, entities: Sequence[str] = ()) -> Iterator[Aggregate]:
        """Yield the values of the metric of this name, as `rows` does."""
        if self.run is None and self.at is None:
            yield from sound(self._aggregates.current(metric, window, entities))
            return
        versions = sound(self._aggregates.versions(metric, window, entities))
        for _, group in groupby(versions, key=lambda one: (one.computed.bucket, one.computed.entity_id)):
            one = self._chosen({version.run_id: version for version in group})
            if one is not None:
                yield one

    def _known_moves(self, newest_first: Sequence[Promotion], at: int) -> dict[str, list[tuple[int, Promotion]]]:
        """Return the promotions and rollbacks until then, by run, each with its place among all."""
        moves: dict[str, list[tuple[int, Promotion]]] = defaultdict(list)
        latest: dict[str, PromotionKind] = {}
        for number, one in enumerate(reversed(newest_first)):
            if one.at <= at:
                moves[one.run_id].append((number, one))
            elif latest.get(one.run_id) == one.kind == PromotionKind.PROMOTE and moves.get(one.run_id) and one.moved:
                self._later.add(one.run_id)
            latest[one.run_id] = one.kind
        return dict(moves)

    def _chosen(self, versions: Mapping[str, Aggregate]) -> Aggregate | None:
        """Return the version of an aggregate that belongs to this side, if any does."""
        if self.run is not None:
            return versions.get(self.run.run_id)
        pointer: str | None = None
        moves = (move for run_id in versions for move in self._moves.get(run_id, ()))
        for _, move in sorted(moves, key=itemgetter(0)):
            version = versions[move.run_id]
            if move.kind == PromotionKind.ROLLBACK:
                pointer = version.base if pointer == move.run_id else pointer
            elif pointer == version.base:
                pointer = move.run_id
        if pointer in self._later:
            self.uncertain.add(pointer)
        return None if pointer is None else versions.get(pointer)
