"""Holding state against itself: rows against their digests, runs and promotions against the rows that they wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StateProblem:
    """Something in the state that is not as it was written; `remedy` says what recomputes or restores it. `bucket`
    (nanoseconds) and `entity` are those of an aggregate. `is_past` where nothing current depends on it."""

    what: str
    detail: str
    remedy: str
    bucket: int | None = None
    entity: str = ""
    is_past: bool = False


class StateAudit(Protocol):
    """Looks at all of the state, in bounded memory. Others may write meanwhile: what they are at is not a problem."""

    def problems(self) -> Iterator[StateProblem]:
        """Whatever is not as it was written: rows whose digest does not hold, rows that runs and promotions wrote and
        that are not there, pointers to other versions than promotions left, definitions and promotions of which the
        row or its copy is lost."""
