"""Verifying state: what raw does not hold, against its own digests."""

from __future__ import annotations

from collections.abc import Iterator

from pik.model.instant import DAY, day_text
from pik.ports.state_audit import StateProblem
from pik.ports.store import Store
from pik.usecases.verify.findings import STATE, Problem, Tally


def state_problems(store: Store, tally: Tally) -> Iterator[Problem]:
    """Check all of the state: it is not cut by days."""
    for found in store.state_audit.problems():
        tally.state_is_sound &= found.is_past
        yield _problem(found)


def _problem(found: StateProblem) -> Problem:
    return Problem(
        STATE,
        found.what,
        f"{found.detail}: {found.remedy}",
        None if found.bucket is None else day_text(found.bucket // DAY),
        (found.entity,) if found.entity else (),
        found.remedy,
    )
