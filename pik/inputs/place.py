"""Where a record stands in its input: what the expressions of a mapping can know beside the record itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """The record's file, by the name that the input has for it, and its position in that file, from 1.

    `parents` are the objects of the document that the record lies in, the innermost first, without the lists that lead
    to it.
    """

    file: str = ""
    line: int = 0
    parents: tuple[Mapping[str, Any], ...] = field(default=())


NOWHERE = Place()
