"""The fields that say to whom or what something happened, and which event it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pik.errors import number_of
from pik.usecases.ingest.guess_evidence import (
    GOOD,
    WEAK,
    Basis,
    basis,
    confidence,
    counted,
    missing,
    names_something,
    question,
    ranked,
    repeats,
    rivals,
)
from pik.usecases.ingest.guess_fields import Column
from pik.usecases.ingest.guess_result import Confidence, FieldGuess

ENTITY, KEY, _TYPE = "entity_id", "idempotency_key", "event_type"

_ALONE = 61
"""The score of a name from which on values that say nothing need no question."""

_STRONG = 80
"""The score of a name of those to whom something happens."""

_PLACEHOLDER = re.compile(
    r"\W?(n/?a|nan|nil|null|none|unknown|undefined|missing|empty|(not|un)[ _-]?set)\W?|[-?]+", re.IGNORECASE
)
"""What is written in the place of a name that is not known."""

_FEW, _MANY = 5, 50
"""So few different values in so many records may be kinds of anything."""


def entity_of(columns: Sequence[Column], size: int, is_time: Callable[[Column], object]) -> FieldGuess | None:
    """Return the field whose name says to whom or what something happened, and whose values repeat; a question, where
    several do, or none does. None if there is nothing to ask about."""
    fit = [one for one in columns if 2 * len(one.values) > size and names_something(one) and not is_time(one)]
    repeating = ranked(filter(repeats, fit), lambda one: _rank(one) * len(one.values) // size)
    alone = ranked((one for one in fit if not repeats(one) and one.score(ENTITY) >= _ALONE), _rank)
    if repeating:
        best = repeating[0][1]
        equal = rivals([pair for pair in repeating if _is_as_complete(pair[1], best)])
        if best.score(ENTITY) < GOOD:
            equal += [one for _, one in alone[:1] if one.distinct > 1 and one.score(ENTITY) >= _STRONG]
        return question(ENTITY, equal, counted) if len(equal) > 1 else _repeated(best, size)
    if alone:
        return _alone(alone[0][1], size)
    if others := [one for one in fit if 1 < one.distinct <= len(one.values) // 2 and one.score(_TYPE) < WEAK]:
        others.sort(key=lambda one: (all(map(str.isdigit, one.texts)), -one.distinct))
        return question(ENTITY, others, counted, "no name says which it is; values repeat in ")
    last = ranked((one for one in fit if one.distinct == len(one.values)), _rank)
    return _alone(last[0][1], size) if last else None


def _alone(one: Column, size: int) -> FieldGuess:
    """Return a field whose values say nothing."""
    why = f"{Basis.NAME}: {counted(one)}" + missing(len(one.values), size) + _unnamed(one)
    return FieldGuess(ENTITY, one.expression, Confidence.UNSURE, why)


def _rank(one: Column) -> int:
    score = one.score(ENTITY)
    return score + one.preferred if score else 0


def _is_as_complete(one: Column, best: Column) -> bool:
    return len(one.values) >= len(best.values)


def _repeated(best: Column, size: int) -> FieldGuess:
    score = best.score(ENTITY)
    rests_on = basis(score)
    named = sum(not _PLACEHOLDER.fullmatch(text) for text in best.texts)
    if named < size:
        score = min(score, GOOD if 2 * named > size else WEAK)
    if best.distinct < _FEW and size >= _MANY:
        score, rests_on = min(score, WEAK), Basis.NAME
    why = f"{rests_on}: {counted(best)}" + missing(len(best.values), size) + _unnamed(best)
    return FieldGuess(ENTITY, best.expression, confidence(score), why)


def _unnamed(one: Column) -> str:
    """Return how many values only say that there is no name, as the end of a sentence."""
    found = [text for text in one.texts if _PLACEHOLDER.fullmatch(text)]
    return f"; {found[0]!r} is that of {number_of(len(found), 'record')}" if found else ""


def key_of(columns: Sequence[Column], size: int, different: int) -> FieldGuess | None:
    """Return the field whose name is that of an id of the event, and whose values all differ, but for the records that
    are alike: there are so many `different` ones."""
    unique = [one for one in columns if len(one.values) == size and 1 < one.distinct == different and one.texts]
    found = ranked(unique, lambda one: one.score(KEY) + one.preferred if one.score(KEY) else 0)
    if not found:
        return _key_in_text(columns, size)
    best = found[0][1]
    says = counted(best) if different == size else "all values differ, but those of records that are alike"
    if _counts_records(best):
        why = f"{Basis.NAME}: the values count the records, and the next file may count them anew"
        return FieldGuess(KEY, best.expression, Confidence.UNSURE, why)
    return FieldGuess(KEY, best.expression, confidence(best.score(KEY) - 10), f"{Basis.BOTH}: {says}")


def _key_in_text(columns: Sequence[Column], size: int) -> FieldGuess | None:
    """Return the field with the name of an id in texts that are JSON, which repeats only where all of the text does:
    that was written down again, with other fields around it."""
    texts = dict.fromkeys(found[0] for one in columns if (found := re.match(r"parse_json\([^()]*\)", one.expression)))
    for text in texts:
        inside = [one for one in columns if one.expression.startswith(f"{text}.")]
        numbers = {number for one in inside for number in one.values}
        different = len({repr([one.values.get(number) for one in inside]) for number in numbers})
        unique = [one for one in inside if len(one.values) == size and 1 < one.distinct == different and one.texts]
        if best := ranked(unique, lambda one: one.score(KEY)):
            why = f"{Basis.NAME}: all values differ, but those of records that are alike in {text}"
            return FieldGuess(KEY, best[0][1].expression, Confidence.UNSURE, why)
    return None


def _counts_records(one: Column) -> bool:
    """Return whether the values are numbers of the first records, from 0 or 1 on."""
    numbers = one.texts[:_COUNTED]
    return numbers in ([str(n) for n in range(len(numbers))], [str(n + 1) for n in range(len(numbers))])


_COUNTED = 20
"""So many records of the beginning are looked at."""
