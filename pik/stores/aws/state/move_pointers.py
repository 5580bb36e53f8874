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

from pik.errors import Busy, Damaged
from pik.ports.state import Promoted, Promotion
from pik.stores.aws.state.items import CONTENT, Row, current_key, is_sound, row_of, run_pk, sealed, version_key
from pik.stores.aws.table import READS, Change, Item, Key, Table, batched
from pik.stores.state_rows import NO_ROWS, damaged_row, pointer_digest, row_digest, xor_of

PROMOTIONS = "promotion"

UNDER_WAY = "moving"
_CHUNK = READS - 1  # their pointers and the move under way are one read


class _Pointer(NamedTuple):
    """A pointer to be moved from one version to another (each by its run; empty: none)."""

    version: Item
    row: Row
    old: str
    new: str


@dataclass(slots=True)
class _Look:
    """Where pointers are: still to be `moved`, moved `already`, or elsewhere. Of those that are moved: how many more
    pointers that makes, and the XOR of the digests of what they were and are."""

    moved: int = 0
    already: int = 0
    conflicts: int = 0
    pointers: int = 0
    changed: bytes = NO_ROWS

    def add(self, pointer: _Pointer, now: str) -> None:
        """Count a pointer that is at the version of this run (empty: of none)."""
        self.moved += now == pointer.old
        self.already += now == pointer.new
        self.conflicts += now not in (pointer.old, pointer.new)
        if now == pointer.new:
            self.pointers += bool(pointer.new) - bool(pointer.old)
            key = pointer.row.metric, pointer.row.bucket, pointer.row.entity
            both = (pointer_digest(*key, run_id) for run_id in (pointer.old, pointer.new))
            self.changed = xor_of(both, self.changed)

    @property
    def counts(self) -> Promoted:
        """For people."""
        return Promoted(self.moved, self.already, self.conflicts)


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
            return self._look_closely().counts
        under_way = self.table.get(self._under_way)
        if under_way is not None and under_way["kind"] != self.kind:
            other = Promoting(self.table, under_way["kind"], self.run_id)
            other._finish(under_way, other._look())
            under_way = None
        if under_way is None:
            found = self._look_closely()
            if not found.counts.moved and not found.counts.conflicts:
                return found.counts
            under_way = self._begin(at, reason, found)
        try:
            look = self._move_all(under_way["id"])
        except _Interrupted:
            return self._recorded(under_way)
        return self._finish(under_way, look)

    @property
    def _under_way(self) -> Key:
        return run_pk(self.run_id), UNDER_WAY

    def _begin(self, at: int, reason: str, found: _Look) -> Item:
        pk, sk = self._under_way
        item: Item = {
            "pk": pk,
            "sk": sk,
            "id": str(ULID()),
            "run": self.run_id,
            "kind": self.kind,
            "at": at,
            "reason": reason,
            "already": found.already,
            "pointers": found.pointers,
            "pointers_xor": found.changed,
        }
        if self.table.put(item, unless_exists=True):
            return item
        there = self.table.get(self._under_way)  # somebody else's, or one's own whose answer was lost
        if there is None or there["kind"] != self.kind:
            raise Busy(f"another pik process moves the versions of run {self.run_id}", hint="run this again")
        return there

    def _finish(self, move: Item, found: _Look) -> Promoted:
        """Record the move, for the run and for the history of all."""
        moved, conflicts = max(0, found.already - move["already"]), found.moved + found.conflicts
        record = {name: move[name] for name in ("run", "kind", "at", "reason")}
        record |= {"moved": moved, "conflicts": conflicts, "pointers": found.pointers - move["pointers"]}
        record["pointers_xor"] = xor_of([found.changed, move["pointers_xor"]])
        record["digest"] = promotion_digest(move["id"], record)
        item = {"pk": PROMOTIONS, "sk": move["id"], **record}
        of_run = {"pk": run_pk(self.run_id), "sk": f"promotion/{move['id']}", **record}
        self.table.write_many([item, sealed(item), of_run])
        self.table.delete(self._under_way, condition="id = :id", values={"id": move["id"]})
        return Promoted(moved, move["already"], conflicts)

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

    def _look(self) -> _Look:
        """What a move would do now."""
        look = _Look()
        for pointers in self._pointers():
            found = self.table.get_many(current_key(pointer.row) for pointer in pointers)
            for pointer in pointers:
                look.add(pointer, _run_at(found, pointer))
        return look

    def _look_closely(self) -> _Look:
        """As `_look`. Raises Damaged unless the run's versions are all there and as they were written, and so are the
        pointers that they would move."""
        look, versions, digests = _Look(), 0, NO_ROWS
        for pointers in self._pointers():
            found = self.table.get_many(current_key(pointer.row) for pointer in pointers)
            for pointer in pointers:
                now, name = found.get(current_key(pointer.row)), f"{pointer.row.metric} of {pointer.row.entity}"
                if not is_sound(pointer.row, pointer.version):
                    raise damaged_row(f"the version of {name} by run {self.run_id}")
                if now is not None and not is_sound(pointer.row, now):
                    raise damaged_row(f"the pointer to the current {name}")
                look.add(pointer, _run_at(found, pointer))
            versions += len(pointers)
            digests = xor_of((pointer.version["digest"] for pointer in pointers), digests)
        self._expect_all(versions, digests)
        return look

    def _expect_all(self, versions: int, digests: bytes) -> None:
        """A task that was done twice at once may have left more versions than either of the two counted."""
        states = [item for item in self.table.query(run_pk(self.run_id), prefix="state/") if "written" in item]
        written = sum(state["written"] for state in states)
        if versions < written or (versions == written and digests != xor_of(state["versions_xor"] for state in states)):
            raise Damaged(
                f"run {self.run_id} wrote {written:,} versions, and {versions:,} of its versions are there",
                hint="replay again to compute it anew; what is damaged: pik verify",
            )

    def _move_all(self, move_id: str) -> _Look:
        """Move what can be moved; where everything is then."""
        look = _Look()
        for pointers in self._pointers():
            found = self.table.get_many([self._under_way, *(current_key(pointer.row) for pointer in pointers)])
            if found.get(self._under_way, {}).get("id") != move_id:
                raise _Interrupted
            moving = [pointer for pointer in pointers if _run_at(found, pointer) == pointer.old]
            moved = set(self._move(moving))
            for pointer in pointers:
                look.add(pointer, pointer.new if pointer.row in moved else _run_at(found, pointer))
        return look

    def _move(self, pointers: Sequence[_Pointer]) -> Iterator[Row]:
        """Move these pointers, each on its own and only from where it should be; those that are where they should then.
        One that could not be moved may have been by a call whose answer was lost."""
        wanted = [pointer for pointer in pointers if pointer.new not in ("", self.run_id)]
        targets = self.table.get_many(version_key(pointer.new, pointer.row) for pointer in wanted)
        changes = [self._change(pointer, targets) for pointer in pointers]
        moved = list(self.table.change_many(changes))
        yield from (pointer.row for pointer in compress(pointers, moved))
        left = list(compress(pointers, (not each for each in moved)))
        found = self.table.get_many(current_key(pointer.row) for pointer in left)
        yield from (pointer.row for pointer in left if _run_at(found, pointer) == pointer.new)

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


def promotion_digest(promotion_id: str, record: Item) -> bytes:
    """The digest that the item of a promotion should have."""
    names = ("run", "kind", "at", "reason", "moved", "conflicts", "pointers", "pointers_xor")
    return row_digest("promotion", promotion_id, *(record[name] for name in names))


def promotion_is_sound(item: Item) -> bool:
    """Whether the item of a promotion is as it was written."""
    return bool(item.get("digest") == promotion_digest(item["sk"].rpartition("/")[2], item))


def promotion_of(item: Item) -> Promotion:
    """The promotion of an item. Raises Damaged."""
    if not promotion_is_sound(item):
        raise damaged_row(f"promotion {item['sk']} of run {item['run']}")
    return Promotion(item["run"], item["kind"], item["at"], item["reason"], item["moved"], item["conflicts"])


def _run_at(found: dict[Key, Item], pointer: _Pointer) -> str:
    """The run whose version is current, as read; empty if none is."""
    run: str = found.get(current_key(pointer.row), {}).get("run", "")
    return run
