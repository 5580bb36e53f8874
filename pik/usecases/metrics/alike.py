"""Entities of a comparison that look the same and are two: in another Unicode form, or with white space around them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unicodedata import normalize

from pik.errors import NothingSelected
from pik.model.instant import display_instant
from pik.model.metric import ALL_ENTITIES, entity_text
from pik.ports.store import Store
from pik.usecases.inspect.near_names import did_you_mean

if TYPE_CHECKING:
    from pik.usecases.metrics.comparison import Difference

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


def no_common_key(store: Store, name: str, there: Difference, here: Difference | None) -> NothingSelected:
    """Return the error for a file none of whose numbers is of a metric, bucket and entity that the store has, with the
    first row that only the file has and, if there is one, that only the store has."""
    texts = [_key_text(there), "no value of it at all" if here is None else _key_text(here)]
    alike = ", in another Unicode form" if look(texts[0]) == look(texts[1]) else ""
    meant = "" if there.entity_id == ALL_ENTITIES else did_you_mean(store, [there.entity_id])
    return NothingSelected(
        f"no number of {name} is one that the store has: the file has {texts[0]}, the store {texts[1]}{alike}",
        hint=f"{meant} --key bucket=COLUMN,entity=COLUMN names other columns".strip(),
    )


def _key_text(row: Difference) -> str:
    return f"{row.metric} of {entity_text(row.entity_id)} in {display_instant(row.bucket)}"
