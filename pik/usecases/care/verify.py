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
from pik.ports.fleet import Fleet
from pik.ports.store import Store
from pik.runtime import Progress, showing
from pik.usecases import Listing
from pik.usecases.care.verify_batches import batch_problems
from pik.usecases.care.verify_continue import Earlier
from pik.usecases.care.verify_copies import copy_problems
from pik.usecases.care.verify_corrections import correction_problems
from pik.usecases.care.verify_days import day_problems
from pik.usecases.care.verify_findings import Depth, Problem, ProblemKind, VerifyReport
from pik.usecases.care.verify_objects import object_problems, record_problems
from pik.usecases.care.verify_run import Verification
from pik.usecases.care.verify_values import aggregate_problems

_OF_VALUES = {ProblemKind.UNPROVEN, ProblemKind.UNCERTAIN, ProblemKind.INCOMPLETE}
"""What is no damage of its own."""


def verify(
    store: Store,
    engine: Engine,
    window: Window,
    progress: Progress,
    depth: Depth = Depth.STORED,
    earlier: Earlier | None = None,
    fleet: Fleet | None = None,
) -> Listing[Problem, VerifyReport]:
    """Check what there is of the window's days, as far as `depth` goes. Segments that `earlier` has found to be sound
    are taken over; nothing else is. A `fleet` checks what grows with raw; `earlier` is for this process alone."""
    run = Verification(store, depth, earlier, window, progress, fleet)
    return Listing(_verify(run, engine))


def _verify(run: Verification, engine: Engine) -> Generator[Problem, None, VerifyReport]:
    damage = [Problem(ProblemKind.INDEX, *found) for found in run.audit.damage(quick=run.quick)]
    with showing(run.progress, "verifying", None, "segments"):
        for problem in damage or _problems(run, engine):  # what a damaged index answers means nothing
            if problem.kind not in _OF_VALUES:
                run.counts["damage"] += 1
                run.kinds.add(problem.kind)
            yield problem
    if run.earlier is not None:
        run.earlier.end()
    return run.report()


def _problems(run: Verification, engine: Engine) -> Iterator[Problem]:
    index = run.store.index
    before = index.totals() if not run.quick and run.window == ALL_TIME else None
    yield from raw_problems(run)
    if run.quick:
        return
    if before is not None and not (run.counts["damage"] or run.counts["expired"] or run.unsettled):
        seen = run.ledger.totals(before.batches)
        if before == index.totals() != seen:  # totals that change meanwhile are being written
            yield Problem(ProblemKind.INDEX, "the index's totals", f"they are {before}; its segments come to {seen}")
    yield from _state_problems(run)
    if not run.counts["not_indexed"] and run.state_is_sound and run.knows_corrections:
        yield from aggregate_problems(run, engine)


def raw_problems(run: Verification) -> Iterator[Problem]:
    """Check the objects in raw, and the index against them."""
    yield from day_problems(run)
    yield from copy_problems(run)
    yield from object_problems(run)
    yield from batch_problems(run)
    if not run.quick:
        yield from record_problems(run)
    yield from correction_problems(run)


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
