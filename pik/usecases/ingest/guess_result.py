"""What a guess proposes: an expression for each field of events, and what is left to a person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pik.inputs.document_lists import DocumentList
from pik.model.layout import Layout
from pik.model.named_mapping import NamedMapping
from pik.model.times import AS_EVENTS, Times
from pik.usecases.ingest.guess_fields import FoundField

MISSING = "FIELD"
"""Stands for an expression that a person has to put there."""


class Confidence(StrEnum):
    """How much speaks for a choice."""

    CERTAIN = "certain"
    LIKELY = "likely"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class FieldGuess:
    """What is proposed for a field of events, and why. `uses` are the fields of the records that it is made of. With a
    `question` these are the ones that a person has to choose from, in the place of FIELD."""

    field: str
    expression: str
    confidence: Confidence
    reason: str
    uses: tuple[str, ...] = ()
    question: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the records that no other field of events is made of."""
        return self.uses or tuple(self.expression.split(" || "))

    @property
    def tried(self) -> str:
        """The expression that shows how many records become events."""
        return self.uses[0] if self.question and self.uses else self.expression


@dataclass(frozen=True, slots=True)
class Guess:
    """What is proposed for records. `mapping` has the fields, none where records are events as they stand; `times` says
    how their times are written. `named` is a mapping that reads all of them as it is. `undecided` says what is still to
    be put in the place of ZONE, FORMAT or FIELD; `accepted` is how many of the `records` become events then, and
    `problem` why the first other one does not. `found` has all fields, where one is missing. `lists` are
    those of a document that may have its records, the longest first."""

    layout: Layout
    records: int
    mapping: tuple[FieldGuess, ...] = ()
    times: Times = AS_EVENTS
    named: NamedMapping | None = None
    undecided: tuple[str, ...] = ()
    accepted: int = 0
    problem: str = ""
    found: tuple[FoundField, ...] = ()
    lists: tuple[DocumentList, ...] = ()

    @property
    def expressions(self) -> dict[str, str]:
        """The expressions, by field."""
        return {one.field: one.expression for one in self.mapping}

    @property
    def missing(self) -> list[str]:
        """The fields for which there is no expression, and nothing to choose from."""
        return [one.field for one in self.mapping if one.tried == MISSING]
