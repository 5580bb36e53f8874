"""What to type so that what was assumed holds from then on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pik.errors import command

if TYPE_CHECKING:
    from pik.model.scenario import Assumption, Scenario
    from pik.ports.store import Store


_REVOKED = 3
"""Corrections that are revoked by a command each, at most."""


def for_good(store: Store, scenario: Scenario, typed: Sequence[str]) -> str | None:
    """Return the commands that record what was assumed, given as it was typed, or do it in another way. None where
    nothing can be done, or where something else was asked: what was known at an earlier time."""
    from pik.model.scenario import OtherDefinition, With, WithoutCorrection, WithoutCorrections
    from pik.rawlog.corrected import corrected_until
    from pik.usecases.correct.hits import KINDS

    if scenario.as_of is not None:
        return None
    recorded, revoked, others = list[str](), dict[str, None](), list[str]()
    for one, text in zip(scenario.assumptions, typed, strict=True):
        if type(one) in KINDS:
            recorded += ["--assume", text]
        elif isinstance(one, With):
            options = [word for name, value in one.options for word in (f"--{name}", value)]
            others.append(command("ingest", *options, one.path))
        elif isinstance(one, WithoutCorrection):
            revoked[one.correction_id] = None
        elif isinstance(one, WithoutCorrections):
            revoked |= dict.fromkeys(each.correction_id for each in corrected_until(store).active)
        elif isinstance(one, OtherDefinition):
            others.append(command("metrics", "apply", one.path))
    # A selection sees the times that corrections give, so these are revoked first; it sees nothing of the events that
    # are added, so it is recorded before.
    lines = [command("corrections", "revoke", one, "--reason", "REASON") for one in revoked]
    if len(lines) > _REVOKED:
        lines = [command("corrections", "list")]
    lines += [command("correct", *recorded, "--reason", "REASON", "--dry-run")] if recorded else []
    return "\n".join([*lines, *others]) or None


def not_recorded(assumptions: Sequence[Assumption]) -> list[str]:
    """Return a note on each assumption that no command makes hold."""
    from pik.model.scenario import CountedDuplicates, WithoutCorrections

    found = []
    for one in assumptions:
        if isinstance(one, CountedDuplicates):
            found.append(f"{one} cannot be recorded: each event counts once")
        elif isinstance(one, WithoutCorrections):
            listed = command("corrections", "list")
            found.append(f"{one} cannot be recorded: corrections are revoked one by one; those that hold: {listed}")
    return found
