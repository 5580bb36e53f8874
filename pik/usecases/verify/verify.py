"""Verify: raw against its digests, the index against raw and back, state against its digests, aggregates against their
inputs.

Others may write while a verification reads. What a batch that is being written has in raw is not a problem, and what
does not fit at first sight is looked at a second time, by then from the index as it is: only what remains unexplained
is reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pik.model.instant import DAY, day_text
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.ports.state_audit import StateProblem
from pik.ports.store import Store
from pik.runtime.interaction import Progress
from pik.usecases.verify.aggregates import aggregate_problems
from pik.usecases.verify.batches import Batches
from pik.usecases.verify.days import Days
from pik.usecases.verify.findings import INDEX, STATE, Ledger, Problem, Tally, VerifyReport
from pik.usecases.verify.objects import Objects, Openings


class Verification:
    """A verification under way. Reading `problems` is what makes it go on; `report` is for the end."""

    def __init__(self, problems: Iterator[Problem], tally: Tally) -> None:
        self._tally = tally
        self._ended = False
        self.problems = self._until_the_end(problems)

    def report(self) -> VerifyReport:
        """What it came to. Raises RuntimeError while there are problems to read."""
        if not self._ended:
            raise RuntimeError("the problems of this verification have not been read to their end")
        return self._tally.report()

    def _until_the_end(self, problems: Iterator[Problem]) -> Iterator[Problem]:
        yield from problems
        self._ended = True


def verify(store: Store, engine: Engine, window: Window, progress: Progress, *, full: bool = True) -> Verification:
    """Check everything of the window's days; `full` reads every byte, otherwise presence and sizes only."""
    tally = Tally(window, full)
    return Verification(tally.counted(_problems(store, engine, progress, tally)), tally)


def _problems(store: Store, engine: Engine, progress: Progress, tally: Tally) -> Iterator[Problem]:
    if tally.full:
        found = [Problem(INDEX, what, detail) for what, detail in store.audit.damage()]
        yield from found
        if found:
            return  # what such an index answers means nothing
    progress.start("verifying", None, "segments")
    try:
        ledger = Ledger()
        before = store.index.totals() if tally.full and tally.window == ALL_TIME else None
        yield from Days(store, tally, ledger, progress).problems()
        yield from Objects(store, tally).problems()
        yield from Batches(store, tally, ledger).problems()
        if tally.full:
            yield from Openings(store).problems()
        settled = not (tally.counts["damage"] or tally.counts["expired"] or tally.unsettled)
        if before is not None and settled:
            seen = replace(ledger.totals, batches=before.batches)
            if before == store.index.totals() != seen:  # where they change meanwhile, somebody is writing
                yield Problem(INDEX, "the index's totals", f"they are {before}; its segments come to {seen}")
        if tally.full:
            yield from state_problems(store, tally)
        if tally.full and not tally.lacks_events and tally.state_is_sound:
            yield from aggregate_problems(store, engine, tally)
    finally:
        progress.stop()


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
