"""Copying one raw object, so that what arrives is what was written."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from pik.errors import AlreadyExists, Damaged
from pik.ports.raw import Raw
from pik.usecases.verify.findings import MISSING, MODIFIED


@dataclass(frozen=True, slots=True)
class Object:
    """What an object should be: `size` in bytes, `digest` its SHA-256 in hex; `inline` its bytes, where the index has
    them."""

    key: str
    size: int
    digest: str
    inline: bytes = b""

    def is_(self, data: bytes) -> bool:
        """Whether these are its bytes."""
        return len(data) == self.size and sha256(data).hexdigest() == self.digest


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an object: `copied` bytes (0: it was there), or a problem: kind, key, detail. `absent`: the source
    does not have it."""

    copied: int = 0
    problem: tuple[str, str, str] | None = None
    absent: bool = False


def take_object(source: Raw, copy: Raw, wanted: Object) -> Taken:
    """Copy an object unless the copy has it, and check every byte, of one that is there already too. Raises
    StoreError."""
    if copy.size(wanted.key) is None:
        try:
            data = wanted.inline if wanted.is_(wanted.inline) else source.read(wanted.key)
        except Damaged as error:
            absent = source.size(wanted.key) is None
            kind = MISSING if absent else MODIFIED
            return Taken(problem=(kind, wanted.key, f"the source does not have it: {error.message}"), absent=absent)
        if not wanted.is_(data):
            detail = f"{len(data)} bytes, not {wanted.size}" if len(data) != wanted.size else "its SHA-256 is another"
            return Taken(problem=(MODIFIED, wanted.key, f"damaged in the source, and not copied: {detail}"))
        try:
            copy.create(wanted.key, data)
            return Taken(len(data))
        except AlreadyExists:
            pass  # another pull was faster; it is looked at as any that is there
    if not wanted.is_(copy.read(wanted.key)):
        return Taken(problem=(MODIFIED, wanted.key, "the copy has it already, but not as the source recorded it"))
    return Taken()
