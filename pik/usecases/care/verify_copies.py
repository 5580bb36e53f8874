"""Verifying copies of segments, which a compaction makes. Raw is the truth; what is wrong with a copy loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from pik.errors import Damaged
from pik.ports.store import SegmentCopies
from pik.usecases.availability import has_expired
from pik.usecases.care.verify_findings import Depth, Problem, ProblemKind, Verification


def copy_problems(run: Verification) -> Iterator[Problem]:
    """Check the objects with copies of segments of the window: presence and size, or the digest, too, which is that of
    the storage where it keeps one, unless every byte is read."""
    for copies in run.audit.copies():
        wrong = _wrong(run, copies) if run.includes(copies.day) else ""
        if wrong:
            detail = f"{wrong}; it has copies of segments ({copies.segments:,}), which are read in raw in its place"
            yield Problem(ProblemKind.INDEX, copies.key, detail)


def _wrong(run: Verification, copies: SegmentCopies) -> str:
    """Return what is wrong; empty if nothing is."""
    raw, key = run.store.raw, copies.key
    size = raw.size(key)
    if size is None:
        return "" if has_expired(run.store, copies.oldest) else "it is missing"
    if size != copies.size:
        return f"it has {size} bytes in place of {copies.size}"
    if run.quick:
        return ""
    try:
        found = None if run.depth is Depth.FULL else raw.stored_digest(key)
        found = found or sha256(raw.read(key)).hexdigest()
    except Damaged as error:
        return error.message
    return "" if found == copies.digest else "its SHA-256 is not the recorded one"
