"""What `pik verify` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pik.cli.render import Column, Count, Document, Shown, Table
from pik.cli.render.text import number_of
from pik.errors import command, in_turn

if TYPE_CHECKING:
    from pik.model.window import Window
    from pik.usecases.verify.findings import Problem, VerifyReport
    from pik.usecases.verify.verify import Verification

PROBLEMS = [
    Column("kind"),
    Column("what", wrap=True),
    Column("detail", wrap=True, advice=True),
    Column("day"),
    Column("entities", get=lambda problem: problem.entities or None, wrap=True),
]
"""Columns of what is missing, damaged or wrong, wherever it is listed."""


def verified(under_way: Verification, window: Window, full: bool, copy_of: str | None) -> Document:
    """What differs from what was written. `copy_of` names the store that this one is a copy of."""
    remedies: dict[str, None] = {}

    def problems() -> Iterator[Problem]:
        for problem in under_way.problems:
            if problem.remedy:
                remedies[problem.remedy] = None
            yield problem

    return Document(
        head={"window": window, "check": "full" if full else "quick", "copy_of": copy_of},
        tables=[Table("problems", PROBLEMS, problems(), empty=lambda: _no_problem(under_way.report()))],
        tail=lambda: _tail(under_way.report(), list(remedies), copy_of),
    )


def _no_problem(found: VerifyReport) -> str:
    """What was looked at."""
    segments = number_of(found.segments, "segment")
    if not found.full:
        return f"no problem found in {segments}, of which presence and size were looked at"
    aggregates = "" if found.aggregates is None else f" and {number_of(found.aggregates, 'aggregate')}"
    return f"no problem found in {segments}{aggregates}"


def _tail(found: VerifyReport, remedies: list[str], copy_of: str | None) -> dict[str, object]:
    return {
        "result": f"{found.valid} of {found.segments} segments valid, {found.missing} missing,"
        f" {found.modified} modified, {found.not_indexed} not indexed"
        + (f", {found.expired} expired" if found.expired else ""),
        "segments": Count(found.segments),
        "valid": Count(found.valid),
        "missing": Count(found.missing),
        "expired": Count(found.expired),
        "modified": Count(found.modified),
        "not_indexed": Count(found.not_indexed),
        "superseded": Count(found.superseded),
        "unacknowledged": Count(found.unacknowledged),
        "in_progress": Count(found.in_progress),
        "deliveries": Count(found.deliveries),
        "aggregates": Shown(None, "not checked") if found.aggregates is None else Count(found.aggregates),
        "damage": Count(found.damage),
        **_next(found, remedies, copy_of),
    }


def _next(found: VerifyReport, remedies: list[str], copy_of: str | None) -> dict[str, str | None]:
    """What to type next, and what to do before. Remedies stand below the table, too: a cell breaks them."""
    from pik.usecases.verify.findings import AGGREGATE, INDEX, MISSING, MODIFIED, STATE, UNKNOWN

    note, line = None, None
    if copy_of and found.kinds & {MISSING, MODIFIED}:
        note = "pull the same window again, into a new directory if objects of this one are modified"
        line = command("pull", "--store", copy_of, "--into", "DIR")
    elif found.kinds & {MISSING, MODIFIED}:
        note = "restore the named objects from a copy of the store first (raw is immutable: any copy will do)"
        line = command("verify")
    elif INDEX in found.kinds:
        line = in_turn(command("verify", "--rebuild-index"), command("verify"))
    elif UNKNOWN in found.kinds:
        note = "look at the unknown objects; pik neither wrote them nor reads them, and may be too old to know them"
    elif STATE in found.kinds:
        note = in_turn(*remedies) or None
    elif AGGREGATE in found.kinds:
        note = "the diff tells what the aggregates should be; replayed and promoted, they are"
        line = command("diff", "aggregates")
    return {"note": note, "next": line}
