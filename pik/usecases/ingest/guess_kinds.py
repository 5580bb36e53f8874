"""The fields that say what happened, and which system says so."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pik.usecases.ingest.guess_evidence import (
    GOOD,
    SURE,
    WEAK,
    Basis,
    basis,
    confidence,
    counted,
    names_something,
    question,
    ranked,
    repeats,
    rivals,
)
from pik.usecases.ingest.guess_fields import Column
from pik.usecases.ingest.guess_names import GENERAL
from pik.usecases.ingest.guess_result import Confidence, FieldGuess
from pik.usecases.ingest.guess_source import source_named

TYPE, SOURCE = "event_type", "source"

_STRONG = 80
"""The score of a name of what happens."""

_NOT_OF_TYPES = 25
"""How much less the name of a type counts whose values are all the same, or all differ."""

_TYPES, _SOURCES = 20, 10
"""So many different types, or so many sources, are plausible in any number of records."""

_ADDRESS = re.compile(r"[\d.]+|(?=.*:)[0-9a-f.:]+|\w+://.*|/.*", re.IGNORECASE)
"""A number, an address of the Internet, or a path."""


def type_of(columns: Sequence[Column], size: int, file: str) -> FieldGuess:
    """Return the field whose name says what happened, and which has few values; a question, where several do; a
    constant, where none does."""
    found = ranked((one for one in columns if _has_types(one, size)), _type_rank)
    if not found:
        return _constant(TYPE, file, ", as no field looks like it")
    best = found[0][1]
    equal = rivals([pair for pair in found if pair[1].score(TYPE) >= GOOD and repeats(pair[1])])
    if len(equal) > 1 and best in equal:
        return question(TYPE, equal, counted)
    if not repeats(best):
        return FieldGuess(TYPE, best.expression, Confidence.UNSURE, f"{Basis.NAME}: {counted(best)}")
    score = WEAK if best.names[0] in GENERAL and best.score(TYPE) < SURE else best.score(TYPE)
    return FieldGuess(TYPE, best.expression, confidence(score), f"{basis(score)}: {counted(best)}")


def _has_types(one: Column, size: int) -> bool:
    most = max(_TYPES, size // (2 if one.score(TYPE) >= _STRONG else 4))
    return len(one.values) == size and 0 < one.distinct <= most and _is_named(one)


def _is_named(one: Column) -> bool:
    return names_something(one) and not all(map(_ADDRESS.fullmatch, one.texts))


def _type_rank(one: Column) -> int:
    score = one.score(TYPE)
    return score + one.preferred - (0 if repeats(one) else _NOT_OF_TYPES) if score else 0


def source_of(columns: Sequence[Column], size: int, file: str) -> FieldGuess:
    """Return the field whose name is that of a system, and which has few values; a constant, where there is none."""
    fit = (one for one in columns if len(one.values) == size and one.distinct <= _SOURCES and _is_named(one))
    found = ranked(fit, lambda one: one.score(SOURCE) + one.preferred if one.score(SOURCE) else 0)
    if not found:
        return _constant(SOURCE, file)
    best = found[0][1]
    score = min(best.score(SOURCE), WEAK if best.distinct > 1 else SURE - 1)
    return FieldGuess(SOURCE, best.expression, confidence(score), f"{Basis.NAME}: {counted(best)}")


def _constant(name: str, file: str, why: str = "") -> FieldGuess:
    constant, whose = source_named(file)
    return FieldGuess(name, f"'{constant}'", Confidence.UNSURE, f"a constant{why}: {whose}")
