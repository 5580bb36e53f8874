"""Entities of a comparison that look the same and are two: in another Unicode form, or with white space around them."""

from __future__ import annotations

from unicodedata import normalize

_MOST = 10_000  # entities that are looked at


class AlikeEntities:
    """Two entities that look the same, if some rows have such, one each."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}
        self.pair: tuple[str, str] | None = None

    def add(self, entity: str) -> None:
        """See the entity of a row that only one side has."""
        if self.pair is None and len(self._seen) < _MOST:
            other = self._seen.setdefault(look(entity), entity)
            self.pair = None if other == entity else (other, entity)

    def __str__(self) -> str:
        """Return the note about them; nothing where there are none."""
        if self.pair is None:
            return ""
        one, other = map(ascii, self.pair)
        return f"{self.pair[0].strip()!r} looks the same and is two entities: {one} and {other}"


def look(entity: str) -> str:
    """Return what an entity looks like: its letters in one Unicode form, without white space around them."""
    return normalize("NFC", entity).strip()
