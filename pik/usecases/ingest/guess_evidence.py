"""What the values of a field show, and how a guess says what it rests on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from pik.errors import number_of
from pik.usecases.ingest.guess_fields import Column, encode
from pik.usecases.ingest.guess_result import MISSING, Confidence, FieldGuess

SURE, GOOD = 90, 70
"""Scores of names from which on a choice is certain, and likely, where the values are as they would be."""

WEAK = 60
"""The score of a name that alone says little, and of a better one whose values show nothing."""

_NEAR = 5
"""How much less the score of a name may be that is as good as another one."""

_SHOWN = 4
"""Fields that a question names."""

_NOT_NAMES = re.compile(
    r"(application|audio|font|image|message|model|multipart|text|video)/[\w.+-]+(;.*)?"  # media types
    r"|.+\b0x[0-9a-f]+\b.*|.*\b0x[0-9a-f]+\b.+"  # an address in memory, in a text
    r"|[-+]?\d*[.,]\d+"  # measured values
    r"|(\S+\s+){3,}\S+"  # sentences
    r"|-|true|false|null|none",
    re.IGNORECASE | re.DOTALL,
)
"""Texts that name neither what happened nor to whom or what."""

Scored = tuple[int, Column]


class Basis(StrEnum):
    """What a choice rests on."""

    BOTH = "name and values"
    GENERAL = "a general name, and values"
    NAME = "name alone"
    VALUES = "values alone"


def confidence(score: int) -> Confidence:
    """Return how sure a choice is whose name has that score and whose values agree."""
    return Confidence.CERTAIN if score >= SURE else Confidence.LIKELY if score >= GOOD else Confidence.UNSURE


def basis(score: int) -> Basis:
    """Return what a choice rests on whose name has that score and whose values agree."""
    return Basis.BOTH if score >= GOOD else Basis.GENERAL


def names_something(one: Column) -> bool:
    """Return whether the values could be names or ids, but for a few of them."""
    return bool(one.texts) and 10 * sum(map(bool, map(_NOT_NAMES.fullmatch, one.texts))) < len(one.texts)


def repeats(one: Column) -> bool:
    """Return whether there are several values, and some of them in several records."""
    return 1 < one.distinct < len(one.values)


def counted(one: Column) -> str:
    """Return how many different values there are in how many records."""
    records = number_of(len(one.values), "record")
    if one.distinct == 1:
        every = "all " if len(one.values) > 1 else ""
        return f"the value is {encode(one.first).decode()[:60]} in {every}{records}"
    if one.distinct == len(one.values):
        return f"all {one.distinct:,} values differ"
    return f"{number_of(one.distinct, 'different value')} in {records}"


def rivals(ranked: Sequence[Scored]) -> list[Column]:
    """Return the fields that are as good as the first of these; those that say the same of each record are one."""
    if not ranked:
        return []
    best, kept = ranked[0][0], list[Column]()
    for score, one in ranked:
        if score >= best - _NEAR and not any(_say_the_same(one, other) for other in kept):
            kept.append(one)
    return kept


def _say_the_same(one: Column, other: Column) -> bool:
    if one.values.keys() != other.values.keys():
        return False
    pairs = {(str(value), str(other.values[number])) for number, value in one.values.items()}
    return len(pairs) == one.distinct == other.distinct


def ranked(columns: Iterable[Column], rank: Callable[[Column], int]) -> list[Scored]:
    """Return the fields that have a rank, the best first."""
    return sorted(((rank(one), one) for one in columns if rank(one) > 0), key=lambda pair: -pair[0])


def question(name: str, columns: Sequence[Column], says: Callable[[Column], str], why: str = "") -> FieldGuess:
    """Return the question which of several fields it is."""
    shown = [f"{one.expression} ({says(one)})" for one in columns[:_SHOWN]]
    more = [f"{len(columns) - len(shown):,} more"] if len(columns) > len(shown) else []
    *most, last = [*shown, *more]
    listed = f"{', '.join(most)} or {last}" if most else last
    return FieldGuess(
        name,
        MISSING,
        Confidence.UNSURE,
        f"{number_of(len(columns), 'field')} could be it",
        uses=tuple(one.expression for one in columns),
        question=f"{name}: {why}{listed}: put one in the place of {MISSING}",
    )


def missing(covered: int, size: int) -> str:
    """Return that some records do not have a field, as the end of a sentence."""
    return f"; {number_of(size - covered, 'record')} without one will be rejected" if covered < size else ""
