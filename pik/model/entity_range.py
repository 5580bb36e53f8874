"""A range of entities, in the order of raw and of aggregates: that of UTF-8 bytes, and so of code points."""

from __future__ import annotations

import msgspec


class EntityRange(msgspec.Struct, frozen=True, array_like=True):
    """The entities from `first` until before `end`; an empty text is no bound."""

    first: str = ""
    end: str = ""

    @property
    def is_all(self) -> bool:
        """Whether it has every entity."""
        return not self.first and not self.end

    def __contains__(self, entity: str) -> bool:
        return self.first <= entity and not (self.end and self.end <= entity)

    def meets(self, first: str, last: str) -> bool:
        """Return whether entities from `first` to `last` may be in it."""
        return self.first <= last and not (self.end and self.end <= first)


EVERY_ENTITY = EntityRange()

AFTER_ALL = "\U0010ffff" * 65
"""A text after every entity, whose name has at most 256 bytes."""
