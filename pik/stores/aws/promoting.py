"""Moving the pointers to current versions: promotion and rollback.

A move may be interrupted anywhere, so an item of the run says that it is under way, and how many pointers were where
they should be before it. Whoever comes next finishes it under its own name, and the counts are as if nothing had
happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

from ulid import ULID

from pik.errors import Busy
from pik.ports.state import Promoted
from pik.stores.aws.keys import run_pk
from pik.stores.aws.table import READS, Change, Item, Key, Table, batched
from pik.stores.aws.versions import CONTENT, Row, current_key, row_of, version_key

PROMOTIONS = "promotion"

_UNDER_WAY = "moving"
_CHUNK = READS - 1  # their pointers and the move under way are one read


class _Pointer(NamedTuple):
    """A pointer to be moved from one version to another (each by its run; empty: none)."""

    version: Item
    row: Row
    old: str
    new: str


class _Interrupted(Exception):
    """Somebody else finished the move that this process was at."""


@dataclass(frozen=True, slots=True)
class Promoting:
    """A promotion or rollback (`kind`) of a run."""

    table: Table
    kind: str
    run_id: str

    def move(self, at: int, reason: str, *, dry_run: bool) -> Promoted:
        """Move each pointer that is where it was when the run wrote its version, or, of a rollback, that the run has
        moved."""
        if dry_run:
            return self._counted()
        under_way = self.table.get(self._under_way)
        if under_way is not None and under_way["kind"] != self.kind:
            other = Promoting(self.table, under_way["kind"], self.run_id)
            counted = other._counted()
            other._finish(under_way, counted.already, counted.moved + counted.conflicts)
            under_way = None
        if under_way is None:
            counted = self._counted()
            if not counted.moved and not counted.conflicts:
                return counted
            under_way = self._begin(at, reason, counted.already)
        try:
            moved, conflicts = self._move_all(under_way["id"])
        except _Interrupted:
            return self._recorded(under_way)
        return self._finish(under_way, moved, conflicts)

    @property
    def _under_way(self) -> Key:
        return run_pk(self.run_id), _UNDER_WAY

    def _begin(self, at: int, reason: str, already: int) -> Item:
        pk, sk = self._under_way
        item: Item = {
            "pk": pk,
            "sk": sk,
            "id": str(ULID()),
            "run": self.run_id,
            "kind": self.kind,
            "at": at,
            "reason": reason,
            "already": already,
        }
        if self.table.put(item, unless_exists=True):
            return item
        there = self.table.get(self._under_way)  # somebody else's, or one's own whose answer was lost
        if there is None or there["kind"] != self.kind:
            raise Busy(f"another pik process moves the versions of run {self.run_id}", hint="run this again")
        return there

    def _finish(self, move: Item, arrived: int, conflicts: int) -> Promoted:
        """Record the move, for the run and for the history of all."""
        promoted = Promoted(max(0, arrived - move["already"]), move["already"], conflicts)
        record = {name: move[name] for name in ("run", "kind", "at", "reason")}
        record |= {"moved": promoted.moved, "conflicts": promoted.conflicts}
        self.table.write_many(
            [
                {"pk": PROMOTIONS, "sk": move["id"], **record},
                {"pk": run_pk(self.run_id), "sk": f"promotion/{move['id']}", **record},
            ]
        )
        self.table.delete(self._under_way, condition="id = :id", values={"id": move["id"]})
        return promoted

    def _recorded(self, move: Item) -> Promoted:
        record = self.table.get((PROMOTIONS, move["id"])) or {}
        return Promoted(record.get("moved", 0), move["already"], record.get("conflicts", 0))

    def _pointers(self) -> Iterator[list[_Pointer]]:
        for items in batched(self.table.query(f"version/{self.run_id}"), _CHUNK):
            yield [self._pointer(item) for item in items]

    def _pointer(self, version: Item) -> _Pointer:
        between = version["base"], self.run_id
        old, new = between if self.kind == "promote" else between[::-1]
        return _Pointer(version, row_of(version), old, new)

    def _counted(self) -> Promoted:
        """What a move would do now."""
        moved = already = conflicts = 0
        for pointers in self._pointers():
            found = self.table.get_many(current_key(pointer.row) for pointer in pointers)
            for pointer in pointers:
                now = _run_at(found, pointer)
                moved += now == pointer.old
                already += now == pointer.new
                conflicts += now not in (pointer.old, pointer.new)
        return Promoted(moved, already, conflicts)

    def _move_all(self, move_id: str) -> tuple[int, int]:
        """Move what can be moved: how many pointers are where they should be then, and how many are not."""
        arrived = conflicts = 0
        for pointers in self._pointers():
            found = self.table.get_many([self._under_way, *(current_key(pointer.row) for pointer in pointers)])
            if found.get(self._under_way, {}).get("id") != move_id:
                raise _Interrupted
            arrived += sum(_run_at(found, pointer) == pointer.new for pointer in pointers)
            moving = [pointer for pointer in pointers if _run_at(found, pointer) == pointer.old]
            moved = self._move(moving)
            arrived += moved
            conflicts += len(moving) - moved
            conflicts += sum(_run_at(found, pointer) not in (pointer.old, pointer.new) for pointer in pointers)
        return arrived, conflicts

    def _move(self, pointers: Sequence[_Pointer]) -> int:
        """Move these pointers, each on its own and only from where it should be: how many are where they should then.
        One that could not be moved may have been by a call whose answer was lost."""
        wanted = [pointer for pointer in pointers if pointer.new not in ("", self.run_id)]
        targets = self.table.get_many(version_key(pointer.new, pointer.row) for pointer in wanted)
        changes = [self._change(pointer, targets) for pointer in pointers]
        moved = list(self.table.change_many(changes))
        left = list(compress(pointers, (not each for each in moved)))
        found = self.table.get_many(current_key(pointer.row) for pointer in left)
        return sum(moved) + sum(_run_at(found, pointer) == pointer.new for pointer in left)

    def _change(self, pointer: _Pointer, targets: dict[Key, Item]) -> Change:
        key = current_key(pointer.row)
        name, where = f'"{self.table.name}"', '"pk" = ? AND "sk" = ?'
        if not pointer.new:
            return f'DELETE FROM {name} WHERE {where} AND "run" = ?', (*key, pointer.old)
        target = pointer.version if pointer.new == self.run_id else targets[version_key(pointer.new, pointer.row)]
        content = tuple(target[each] for each in CONTENT)
        if pointer.old:
            change = " ".join(f'SET "{each}" = ?' for each in CONTENT)
            return f'UPDATE {name} {change} WHERE {where} AND "run" = ?', (*content, *key, pointer.old)
        fields = ", ".join(f"'{each}': ?" for each in ("pk", "sk", *CONTENT))
        return f"INSERT INTO {name} VALUE {{{fields}}}", (*key, *content)


def _run_at(found: dict[Key, Item], pointer: _Pointer) -> str:
    """The run whose version is current, as read; empty if none is."""
    run: str = found.get(current_key(pointer.row), {}).get("run", "")
    return run
