"""What a triage looks at, and what it finds there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from pik.model.instant import DAY, MIN_INSTANT, Window
from pik.model.metric import PromotionKind
from pik.ports.engine import Engine
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.runtime import Progress


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that may be wrong. `scope` is where: a source, a batch, a run, an object; `since` nanoseconds.

    `delta` is by how much it moves the metric, over all its values in the window; `effect` that, without its sign,
    divided by the metric's recomputed total (None: that is 0, or there is no delta). `command` shows it.
    """

    check: str
    what: str
    command: str
    metric: str = ""
    cause: str = ""
    scope: str = ""
    since: int | None = None
    events: int | None = None
    buckets: int | None = None
    delta: Decimal | None = None
    effect: Decimal | None = None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes it the same finding in two triages: figures, times and counts do not matter."""
        return self.check, self.metric, self.cause, self.scope


@dataclass(frozen=True, slots=True)
class Moves:
    """What was promoted and rolled back since the window began, by run: the last move, and the last promotion."""

    last: dict[str, Promotion]
    promoted_at: dict[str, int]


@dataclass(slots=True)
class Scope:
    """A window, and entities (none: all). By check, `notes` are what it cannot know, `failures` why it could not go on
    to the end."""

    store: Store
    engine: Engine
    window: Window
    entities: tuple[str, ...]
    progress: Progress
    notes: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unreadable: list[Window] = field(default_factory=list)
    """Buckets of which raw cannot be read."""
    _moves: Moves | None = None

    @property
    def options(self) -> list[str]:
        """The scope as it is typed."""
        return [word for entity in self.entities for word in ("--entity", entity)] + self.times

    @property
    def options_of_one(self) -> list[str]:
        """The scope for commands that take only one entity: of several they show all."""
        return self.options if len(self.entities) == 1 else self.times

    @property
    def times(self) -> list[str]:
        """The window as it is typed."""
        times = (("--from", self.window.from_text), ("--to", self.window.to_text))
        return [word for name, text in times if text for word in (name, text)]

    @property
    def began(self) -> int:
        """The moment before which nothing was computed of the window; clocks may be off by a day."""
        return max(self.window.start - DAY, MIN_INSTANT)

    @property
    def moves(self) -> Moves:
        """What was promoted and rolled back since the window began."""
        if self._moves is None:
            self._moves = Moves({}, {})
            for one in self.store.promotions.newest_first():
                if one.at < self.began:
                    break
                self._moves.last.setdefault(one.run_id, one)
                if one.kind == PromotionKind.PROMOTE:
                    self._moves.promoted_at.setdefault(one.run_id, one.at)
        return self._moves

    def meets(self, entities: Sequence[str], window: Window) -> bool:
        """Return whether what concerns these entities (none: all) in this window is of the scope."""
        is_of_entities = not self.entities or not entities or not set(entities).isdisjoint(self.entities)
        return is_of_entities and window.start < self.window.end and window.end > self.window.start
