"""Revoking a correction: another record, after which what was recorded before holds again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from pik.errors import Busy, UsageError, command
from pik.model.correction import Correction, CorrectionKind, active, revoked
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.corrected import Corrected
from pik.rawlog.corrections import find_correction, recording
from pik.rawlog.selection import Overrides
from pik.usecases.correct.plan import refuse_copy
from pik.usecases.correct.touched import touched
from pik.usecases.metrics.impact import Impact, impact


@dataclass(frozen=True, slots=True)
class RevocationPlan:
    """A correction or revocation that is to be revoked, and what that does to the metrics: `assumed` in the impact is
    without it. `ended` hold no more then, `restored` hold again."""

    store: Store
    correction: Correction
    ended: tuple[Correction, ...]
    restored: tuple[Correction, ...]
    impact: Impact
    known: tuple[str, ...]


def plan_revocation(store: Store, engine: Engine, prefix: str) -> RevocationPlan:
    """Plan to revoke the correction with this id or beginning of one. Nothing is written. Raises NotFound, UsageError
    for one that is revoked already or cannot be, NotHeld, Damaged and EngineError."""
    refuse_copy(store)
    log, correction = store.corrections.recorded(), find_correction(store, prefix)
    _expect_revocable(log, correction)
    before = active(log)
    after = active([*log, _revocation(correction)])
    ended = tuple(one for one in before if one not in after)
    restored = tuple(one for one in after if one not in before)
    window = touched(store, [*ended, *restored])
    effect = impact(store, engine, window, Overrides(corrected=Corrected(store, after)))
    known = tuple(one.correction_id for one in log)
    return RevocationPlan(store, correction, ended, restored, effect, known)


def record_revocation(plan: RevocationPlan, reason: str, actor: str) -> Correction:
    """Record what was planned, and return the revocation. Raises Busy where another correction was recorded meanwhile,
    UsageError where this one is revoked already, StoreError."""
    with recording(plan.store) as log:
        _expect_revocable(log.recorded, plan.correction)
        if tuple(one.correction_id for one in log.recorded) != plan.known:
            raise Busy("another correction was recorded meanwhile, so the plan may be wrong", hint="look at it again")
        [made] = log.record([structs.replace(_revocation(plan.correction), reason=reason, actor=actor)])
        return made


def _revocation(correction: Correction) -> Correction:
    return Correction(
        format=correction.format,
        correction_id="",
        kind=CorrectionKind.REVOCATION,
        recorded_at=0,
        reason="",
        statement=f"revoke {correction.correction_id}",
        revokes=correction.correction_id,
        events=correction.events,
    )


def _expect_revocable(log: Sequence[Correction], correction: Correction) -> None:
    if correction.kind is CorrectionKind.VERDICT:
        raise UsageError(
            f"correction {correction.correction_id} records what a rebuild of the index changed; it cannot be revoked",
            hint="another delivery of an event counts with: pik correct --assume delivery=EVENT_ID:N",
        )
    by = revoked(log).get(correction.correction_id)
    if by is not None:
        raise UsageError(
            f"correction {correction.correction_id} is revoked already, by {by}",
            hint=f"to let it hold again: {command('corrections', 'revoke', by)}",
        )
