"""The field that has what else is known of an event."""

from __future__ import annotations

from collections.abc import Sequence

from pik.errors import number_of
from pik.usecases.ingest.guess_evidence import Basis, ranked
from pik.usecases.ingest.guess_fields import Column
from pik.usecases.ingest.guess_result import Confidence, FieldGuess

PAYLOAD = "payload"

_SHOWN = 4
"""Fields that are named of those that are left out."""


def payload_of(columns: Sequence[Column], size: int) -> FieldGuess:
    """Return the whole record, or the object in it that has all that no other field of events has, or the one in a text
    of JSON, with what it leaves out."""
    leaves = [one for one in columns if not isinstance(one.first, dict)]
    fit = (one for one in columns if len(one.values) == size and _is_most(one, leaves))
    for _, one in ranked(fit, lambda one: one.score(PAYLOAD) + one.preferred if one.score(PAYLOAD) else 0):
        outside = [other for other in leaves if not other.expression.startswith(f"{one.expression}.")]
        if _is_text(one):
            return _in_text(one, outside)
        if not outside:
            why = f"{Basis.BOTH}: an object with all that no other field has"
            return FieldGuess(PAYLOAD, one.expression, Confidence.LIKELY, why)
    return FieldGuess(PAYLOAD, "@", Confidence.CERTAIN, "the whole record")


def _is_text(one: Column) -> bool:
    return one.expression.endswith(")")


def _is_most(one: Column, leaves: Sequence[Column]) -> bool:
    if not all(isinstance(value, dict) for value in one.values.values()):
        return False
    inside = sum(other.path[: len(one.path)] == one.path for other in leaves)
    return len(one.path) == 1 or one.enveloped > 0 or 2 * inside >= len(leaves)


def _in_text(one: Column, outside: Sequence[Column]) -> FieldGuess:
    why = f"{Basis.BOTH}: the JSON in a text of each record"
    if not outside:
        return FieldGuess(PAYLOAD, one.expression, Confidence.LIKELY, why)
    varying = [other for other in outside if other.distinct > 1]
    listed = [f"{other.expression} ({number_of(other.distinct, 'value')})" for other in (varying or outside)[:_SHOWN]]
    more = len(outside) - len(listed)
    why += f"; leaves out {', '.join(listed)}" + (f" and {number_of(more, 'other field')}" if more else "")
    return FieldGuess(PAYLOAD, one.expression, Confidence.UNSURE if varying else Confidence.LIKELY, why)
