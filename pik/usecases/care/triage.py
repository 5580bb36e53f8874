"""Triage: what is wrong in a window, found by all checks at once and ranked by how much it moves numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pik.errors import Damaged, EngineError
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.runtime import SILENT, Progress
from pik.usecases.care import triage_checks, triage_values
from pik.usecases.care.triage_findings import Finding, Scope

_ZERO = Decimal(0)

_SEARCHES = (*triage_values.SEARCHES, *triage_checks.SEARCHES)

CHECKS = {check: rule for rules, _ in _SEARCHES for check, rule in rules.items()}
"""Every check, with the rule that it follows."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check, its rule, and how many findings it had. `failure` is why it could not go on, if it could not;
    `note` what it cannot know."""

    check: str
    rule: str
    findings: int
    failure: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Triage:
    """All findings, ranked, and what was checked. `known` were in the baseline."""

    window: Window
    entities: tuple[str, ...]
    findings: tuple[Finding, ...]
    known: tuple[Finding, ...]
    checks: tuple[CheckResult, ...]


def triage(
    store: Store,
    engine: Engine,
    window: Window,
    entities: Sequence[str] = (),
    baseline: Iterable[tuple[str, str, str, str]] = (),
    progress: Progress = SILENT,
) -> Triage:
    """Run every check over the window. Findings whose identity is in the baseline are set apart. Raises NothingSelected
    where there is nothing in scope, NotHeld, and StoreError where the store cannot be read."""
    scope, known = Scope(store, engine, window, tuple(entities), progress), set(baseline)
    found: list[Finding] = []
    for rules, search in _SEARCHES:
        try:
            found.extend(search(scope))
        except (Damaged, EngineError) as error:
            scope.failures |= dict.fromkeys(rules, error.message)
    ranked = sorted(found, key=_rank)
    return Triage(
        window,
        scope.entities,
        tuple(one for one in ranked if one.identity not in known),
        tuple(one for one in ranked if one.identity in known),
        tuple(
            CheckResult(
                name,
                rule,
                sum(one.check == name for one in found),
                scope.failures.get(name, ""),
                scope.notes.get(name, ""),
            )
            for name, rule in CHECKS.items()
        ),
    )


def _rank(finding: Finding) -> tuple[bool, bool, Decimal, bool, int, int]:
    """Order by |delta| / |recomputed total| (a total of 0 first), then by buckets and events; those without a delta
    last, of these damage first, since others may follow from it."""
    return (
        finding.delta is None,
        finding.effect is not None,
        -(finding.effect or _ZERO),
        finding.check != "damage",
        -(finding.buckets or 0),
        -(finding.events or 0),
    )
