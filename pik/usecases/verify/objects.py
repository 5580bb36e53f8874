"""Every object in raw is of a known kind, and of a batch that the index knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from pik.errors import Invalid
from pik.model.instant import parse_instant
from pik.ports.store import Store
from pik.usecases.verify.findings import INDEX, UNKNOWN, Problem, Tally
from pik.usecases.verify.sealed_records import BLOCK, CLOSING, OPENING
from pik.usecases.verify.unlisted import REJECTS, SEGMENT, Unlisted, find_batch, reject_content

_RECORD = re.compile(r"raw/batches/()([0-9A-Z]{26})\.ndjson\.zst")
_PULL = re.compile(r"raw/pulls/()([0-9A-Z]{26})\.ndjson\.zst")


@dataclass(frozen=True, slots=True)
class Objects:
    """Checks the objects that are no segments: those of the window's days are checked by day."""

    store: Store
    tally: Tally

    def problems(self) -> Iterator[Problem]:
        """Objects that nobody expects, and those that the index has lost."""
        for (kind, batch_id), keys in groupby((found.key for found in self.store.raw.objects("raw/")), key=_kind):
            if kind is REJECTS:
                yield from self._rejects(batch_id, list(keys))
            elif kind is _RECORD:
                if find_batch(self.store.index, batch_id) is None:
                    for key in keys:
                        yield Problem(INDEX, key, "the index does not know this batch")
            elif kind is None:
                for key in keys:
                    yield Problem(UNKNOWN, key, "pik did not write an object of such a name")

    def _rejects(self, batch_id: str, keys: list[str]) -> Iterator[Problem]:
        batch = find_batch(self.store.index, batch_id)  # before its files are: see Unlisted
        listed = {file.key for file in self.store.index.rejects(batch_id)}
        others = [key for key in keys if key not in listed]
        yield from Unlisted(self.store, self.tally, reject_content).problems(batch, others, sorted(listed))


def _kind(key: str) -> tuple[re.Pattern[str] | None, str]:
    """The pattern that a key matches, and its batch (of segments none, for they come by the thousand)."""
    for pattern in (SEGMENT, REJECTS, _RECORD, _PULL, OPENING, BLOCK, CLOSING):
        if match := pattern.fullmatch(key):
            if pattern is SEGMENT:
                return (pattern, "") if _is_day(match[1]) else (None, "")
            return pattern, match[2]
    return None, ""


def _is_day(text: str) -> bool:
    try:
        parse_instant(text, date_only=True)
    except Invalid:
        return False
    return True
