"""Copies of the objects of raw, each checked against what the source recorded."""

from __future__ import annotations

from hashlib import sha256

from pik.errors import AlreadyExists, Damaged, Unreadable
from pik.model.batch import RejectFile, Segment
from pik.model.correction import CorrectionList
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.objects import copied
from pik.usecases.availability import has_expired
from pik.usecases.care.verify_findings import Problem, ProblemKind, segment_problem


def copy_object(
    source: Store, copy: Raw, wanted: Segment | RejectFile | CorrectionList, created: int
) -> tuple[int, Problem | None]:
    """Copy an object that was created then, unless the copy has it, and check every byte of it in both cases; return
    how many bytes were copied, and why it was not. Raises StoreError."""

    def failed(kind: ProblemKind, detail: str) -> tuple[int, Problem]:
        if isinstance(wanted, Segment):
            return 0, segment_problem(kind, wanted, detail, wanted.frames)
        return 0, Problem(kind, wanted.key, detail)

    def matches(data: bytes) -> bool:
        return len(data) == wanted.size and sha256(data).hexdigest() == wanted.digest

    if copy.size(wanted.key) is None:
        try:
            held = copied(source.raw, wanted) if isinstance(wanted, Segment) else b""
            data = held or source.raw.read(wanted.key)
        except Unreadable as error:
            return failed(ProblemKind.UNREADABLE, f"not copied: {error.reason}")
        except Damaged as error:
            detail = f"the source does not have it: {error.message}"
            if source.raw.size(wanted.key) is not None:
                return failed(ProblemKind.MODIFIED, detail)
            if has_expired(source, created):
                return failed(ProblemKind.EXPIRED, "the source keeps raw for some days only, and this is older")
            return failed(ProblemKind.MISSING, detail)
        if not matches(data):
            detail = f"{len(data)} bytes, not {wanted.size}" if len(data) != wanted.size else "its SHA-256 differs"
            return failed(ProblemKind.MODIFIED, f"damaged in the source, and not copied: {detail}")
        try:
            copy.create(wanted.key, data)
            return len(data), None
        except AlreadyExists:
            pass  # another pull was faster
    if not matches(copy.read(wanted.key)):
        return failed(ProblemKind.MODIFIED, "the copy has it already, but not as the source recorded it")
    return 0, None
