"""Verifying copies of segments, which a compaction makes. Raw is the truth; what is wrong with a copy loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import sha256

from pik.errors import Damaged
from pik.ports.index import SegmentCopies
from pik.ports.store import Store
from pik.usecases.availability import has_expired
from pik.usecases.care.verify_findings import Depth, Problem, ProblemKind
from pik.usecases.care.verify_run import Verification


def copy_problems(run: Verification) -> Iterator[Problem]:
    """Check the objects with copies of segments of the window: presence and size, or the digest, too, which is that of
    the storage where it keeps one, unless every byte is read."""
    return run.each(partial(_check, run.depth), (one for one in run.audit.copies() if run.includes(one.day)))


def _check(depth: Depth, store: Store, copies: SegmentCopies) -> Iterator[Problem]:
    if wrong := _wrong(depth, store, copies):
        detail = f"{wrong}; it has copies of segments ({copies.segments:,}), which are read in raw in its place"
        yield Problem(ProblemKind.INDEX, copies.key, detail)


def _wrong(depth: Depth, store: Store, copies: SegmentCopies) -> str:
    """Return what is wrong; empty if nothing is."""
    raw, key = store.raw, copies.key
    size = raw.size(key)
    if size is None:
        return "" if has_expired(store, copies.oldest) else "it is missing"
    if size != copies.size:
        return f"it has {size} bytes in place of {copies.size}"
    if depth is Depth.QUICK:
        return ""
    try:
        found = None if depth is Depth.FULL else raw.stored_digest(key)
        found = found or sha256(raw.read(key)).hexdigest()
    except Damaged as error:
        return error.message
    return "" if found == copies.digest else "its SHA-256 is not the recorded one"
