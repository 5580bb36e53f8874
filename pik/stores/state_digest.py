"""Digests of state rows: what shows that a row of state is as it was written, in every store alike.

A row's digest is the first 128 bits of SHA-256 over a JSON array: the kind of row, its key and its columns. Bytes are
in it as lower-case hex digits. Runs and promotions keep the XOR of the digests of the rows that they wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import msgspec

NO_ROWS = bytes(16)
"""The XOR of no digests."""

_encode = msgspec.json.Encoder().encode


def row_digest(kind: str, *columns: object) -> bytes:
    """The digest of a row."""
    plain = [column.hex() if type(column) is bytes else column for column in columns]
    return sha256(_encode([kind, *plain])).digest()[:16]


def pointer_digest(metric: str, bucket: int, entity: str, run_id: str) -> bytes:
    """The digest of a pointer to the version of a run that is current; NO_ROWS where `run_id` is empty: there is no
    pointer."""
    return row_digest("current", metric, bucket, entity, run_id) if run_id else NO_ROWS


def xor_of(digests: Iterable[bytes | None], start: bytes = NO_ROWS) -> bytes:
    """Return the XOR of the digests. What is not a digest (damage may leave that) is passed over."""
    total = int.from_bytes(start)
    for digest in digests:
        if type(digest) is bytes and len(digest) == len(NO_ROWS):
            total ^= int.from_bytes(digest)
    return total.to_bytes(len(NO_ROWS))
