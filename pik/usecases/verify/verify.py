"""Verify: raw against its digests, the index against raw and back, state against its digests, aggregates against their
inputs.

Others may write while a verification reads. What a batch that is being written has in raw is not a problem, and what
does not fit at first sight is looked at a second time, by then from the index as it is: only what remains unexplained
is reported.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from pik.model.instant import DAY, day_text
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.runtime.interaction import Progress
from pik.usecases.listing import Listing
from pik.usecases.verify.aggregates import aggregate_problems
from pik.usecases.verify.batches import batch_problems
from pik.usecases.verify.days import day_problems
from pik.usecases.verify.findings import Problem, ProblemKind, Verification, VerifyReport
from pik.usecases.verify.objects import object_problems, record_problems


def verify(
    store: Store, engine: Engine, window: Window, progress: Progress, *, full: bool = True
) -> Listing[Problem, VerifyReport]:
    """Check everything of the window's days; `full` reads every byte, otherwise presence and sizes only."""
    return Listing(_verify(store, engine, window, progress, full))


def _verify(
    store: Store, engine: Engine, window: Window, progress: Progress, full: bool
) -> Generator[Problem, None, VerifyReport]:
    run = Verification(store, window, full, progress)
    damage = [Problem(ProblemKind.INDEX, *found) for found in store.audit.damage()] if full else []
    progress.start("verifying", None, "segments")
    try:
        # What a damaged index answers means nothing.
        yield from run.count(iter(damage) if damage else _problems(run, engine))
    finally:
        progress.stop()
    return run.report()


def _problems(run: Verification, engine: Engine) -> Iterator[Problem]:
    index = run.store.index
    before = index.totals() if run.full and run.window == ALL_TIME else None
    yield from day_problems(run)
    yield from object_problems(run)
    yield from batch_problems(run)
    if not run.full:
        return
    yield from record_problems(run)
    if before is not None and not (run.counts["damage"] or run.counts["expired"] or run.unsettled):
        seen = run.ledger.totals(before.batches)
        if before == index.totals() != seen:  # totals that change meanwhile are being written
            yield Problem(ProblemKind.INDEX, "the index's totals", f"they are {before}; its segments come to {seen}")
    yield from _state_problems(run)
    if not run.lacks_events and run.state_is_sound:
        yield from aggregate_problems(run, engine)


def _state_problems(run: Verification) -> Iterator[Problem]:
    """Check all of the state, which is not divided by days."""
    for found in run.store.state_audit.problems():
        run.state_is_sound &= found.is_past
        yield Problem(
            ProblemKind.STATE,
            found.what,
            f"{found.detail}: {found.remedy}",
            None if found.bucket is None else day_text(found.bucket // DAY),
            (found.entity,) if found.entity else (),
            found.remedy,
        )
