"""Plans of bulk ingest: sealed records that say, once and for all, what each file becomes; docs/format.md specifies
them.

A plan is named by a digest of what it is for: the same files, read in the same way. So a command that is started again
finds it, and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from pik.errors import Damaged
from pik.inputs.splits import Split
from pik.model.batch import Origin
from pik.ports.raw import ObjectReader, Raw, RawKind, keys_of
from pik.rawlog.objects import packed, record_lines


class PlanLine(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """The first line of a plan: the `number`-th of what `plan_id` is the digest of."""

    format: int
    plan_id: str
    number: int
    planned_at: int

    @property
    def key(self) -> str:
        """The key of the record."""
        return RawKind.PLAN.key(self.plan_id, self.number)


class FileLine(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """A file: its place among all, from 0, and what it becomes. Without splits it is read from its beginning."""

    place: int
    origin: Origin
    batch_id: str
    ingest_time: int
    splits: tuple[Split, ...]


Plan = tuple[PlanLine, Sequence[FileLine]]

_decode = msgspec.json.Decoder(PlanLine | FileLine).decode


def last_number(raw: Raw, plan_id: str) -> int:
    """Return the number of the last plan of this id, 0 if there is none."""
    return max((key.number or 0 for key in keys_of(raw, RawKind.PLAN, plan_id)), default=0)


def read_plan(raw: ObjectReader, key: str) -> Plan:
    """Return the lines of a plan. Raises Damaged."""
    head, *files = record_lines(raw, key, _decode)
    if not isinstance(head, PlanLine) or head.key != key:
        raise Damaged(f"record {key} is that of another plan", hint="pik verify --full")
    return head, [line for line in files if isinstance(line, FileLine)]


def write_plan(raw: Raw, head: PlanLine, files: Iterable[FileLine]) -> None:
    """Create the record of a plan. Raises AlreadyExists."""
    raw.create(head.key, packed([head, *files]))
