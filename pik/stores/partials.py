"""Partial values as objects beside raw: `partials/RUN/TASK.parquet`, and which task merges a group of them:
`partials/RUN/FIRST.merger`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pik.errors import AlreadyExists, Damaged
from pik.ports.raw import Raw

PREFIX = "partials/"
_PARQUET, _MERGER = ".parquet", ".merger"
_DIGEST = sha256().digest_size
_AT_ONCE = 8 << 20
"""Bytes of an object that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class ObjectPartials:
    """Implements the port over the objects of a bucket, of which a lifecycle rule removes old ones. An object ends with
    the SHA-256 of what is before it."""

    raw: Raw

    def keep(self, run_id: str, number: int, data: bytes) -> None:
        """See Partials.keep."""
        with suppress(AlreadyExists):
            self.raw.create(_key(run_id, number, _PARQUET), data + sha256(data).digest())

    def kept(self, run_id: str) -> set[int]:
        """See Partials.kept."""
        found = (one.key.rpartition("/")[2] for one in self.raw.objects(f"{PREFIX}{run_id}/"))
        return {int(name.removesuffix(_PARQUET)) for name in found if name.endswith(_PARQUET)}

    def read(self, run_id: str, number: int, target: Path) -> None:
        """See Partials.read."""
        key = _key(run_id, number, _PARQUET)
        digest, end = sha256(), b""
        with target.open("wb") as file:
            for part in self._parts(key):
                end += part
                file.write(end[:-_DIGEST])
                digest.update(end[:-_DIGEST])
                end = end[-_DIGEST:]
        if digest.digest() != end:
            raise Damaged(f"{key} is not as it was written", hint="another replay computes it from raw")

    def _parts(self, key: str) -> Iterator[bytes]:
        size = self.raw.size(key) or 1  # reading one that is missing says so
        for offset in range(0, size, _AT_ONCE):
            yield self.raw.read(key, offset, min(_AT_ONCE, size - offset))

    def merger(self, run_id: str, first: int, number: int) -> int:
        """See Partials.merger."""
        key = _key(run_id, first, _MERGER)
        try:
            self.raw.create(key, str(number).encode())
        except AlreadyExists:
            return int(self.raw.read(key))
        return number

    def drop(self, run_id: str) -> None:
        """See Partials.drop."""


def _key(run_id: str, number: int, suffix: str) -> str:
    return f"{PREFIX}{run_id}/{number:08d}{suffix}"
