"""Coverage: what a copy holds of the store that it is a copy of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pik.model.window import Window


@dataclass(frozen=True, slots=True)
class Part:
    """Whole days, of these entities or, where none are named, of all."""

    window: Window
    entities: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.window} of {', '.join(self.entities) or 'every entity'}"


def covered(parts: Iterable[Part], window: Window, entities: Sequence[str] = ()) -> bool:
    """Whether the parts together hold all of the window of each of the entities (none named: of all)."""
    ordered = sorted(parts, key=lambda part: part.window.start)
    return all(_covered(ordered, window, entity) for entity in entities or (None,))


def _covered(ordered: Sequence[Part], window: Window, entity: str | None) -> bool:
    reached = window.start
    for part in ordered:
        if part.window.start <= reached and (not part.entities or entity in part.entities):
            reached = max(reached, part.window.end)
    return reached >= window.end
