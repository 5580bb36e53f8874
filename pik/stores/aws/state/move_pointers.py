"""Moving the pointers to current versions: promotion and rollback.

A move may be interrupted anywhere, so an item of the run records that it is under way, and how many pointers were where
they should be before it. The next promotion or rollback of the run finishes it under its own name, and the counts are
as if it had not been interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

from msgspec import structs

from pik.errors import Busy
from pik.model.ids import new_id
from pik.model.run import PromotionKind
from pik.ports.state import PointerCounts, Promotion
from pik.stores.aws.state import layout
from pik.stores.aws.state.layout import MoveItem, PointerItem, PromotionItem, VersionItem
from pik.stores.aws.table import READS, Change, Item, Key, Table, batched
from pik.stores.state_rows import (
    NO_ROWS,
    AggregatePlace,
    damaged_row,
    pointer_digest,
    row_digest,
    versions_missing,
    xor_of,
)

_CHUNK = READS - 1  # their pointers and the move under way are one read

_Found = Mapping[tuple[str, str], Any]


class _Pointer(NamedTuple):
    """A pointer to be moved from one version to another (each by its run; empty: none)."""

    version: VersionItem
    place: AggregatePlace
    old: str
    new: str


@dataclass(slots=True)
class _Survey:
    """Where pointers are: still to be `moved`, moved `already`, or elsewhere. For those that are moved: how many more
    pointers that makes, and the XOR of the digests of what they were and are."""

    moved: int = 0
    already: int = 0
    conflicts: int = 0
    pointers: int = 0
    pointers_xor: bytes = NO_ROWS

    def add(self, pointer: _Pointer, now: str) -> None:
        """Count a pointer that is at the version of this run (empty: of none)."""
        self.moved += now == pointer.old
        self.already += now == pointer.new
        self.conflicts += now not in (pointer.old, pointer.new)
        if now == pointer.new:
            self.pointers += bool(pointer.new) - bool(pointer.old)
            both = (pointer_digest(*pointer.place, run_id) for run_id in (pointer.old, pointer.new))
            self.pointers_xor = xor_of(both, self.pointers_xor)

    @property
    def counts(self) -> PointerCounts:
        return PointerCounts(self.moved, self.already, self.conflicts)


class _Interrupted(Exception):
    """Another process finished the move that this one was at."""


@dataclass(frozen=True, slots=True)
class PointerMove:
    """A promotion or rollback (`kind`) of a run."""

    table: Table
    kind: str
    run_id: str

    def move(self, at: int, reason: str, actor: str, *, dry_run: bool) -> PointerCounts:
        """Move each pointer that is where it was when the run wrote its version or, for a rollback, that the run has
        moved."""
        if dry_run:
            return self._checked_survey().counts
        under_way = self.table.get(self._under_way)
        if under_way is not None and under_way["kind"] != self.kind:
            other = PointerMove(self.table, under_way["kind"], self.run_id)
            other._finish(under_way, other._survey())
            under_way = None
        if under_way is None:
            found = self._checked_survey()
            if not found.counts.moved and not found.counts.conflicts:
                return found.counts
            under_way = self._begin(at, reason, actor, found)
        try:
            survey = self._move_all(under_way["id"])
        except _Interrupted:
            return self._recorded(under_way)
        return self._finish(under_way, survey)

    @property
    def _under_way(self) -> Key[MoveItem]:
        return layout.moving_key(self.run_id)

    def _begin(self, at: int, reason: str, actor: str, found: _Survey) -> MoveItem:
        pk, sk = self._under_way
        item: MoveItem = {
            "pk": pk,
            "sk": sk,
            "id": new_id(),
            "run": self.run_id,
            "kind": self.kind,
            "at": at,
            "reason": reason,
            "actor": actor,
            "already": found.already,
            "pointers": found.pointers,
            "pointers_xor": found.pointers_xor,
        }
        if self.table.put(item, unless_exists=True):
            return item
        there = self.table.get(self._under_way)  # another process's, or this one's whose answer was lost
        if there is None or there["kind"] != self.kind:
            raise Busy(f"another pik process moves the versions of run {self.run_id}", hint="run this again")
        return there

    def _finish(self, move: MoveItem, found: _Survey) -> PointerCounts:
        """Record the move, among the run's items and in the history of all."""
        moved, conflicts = max(0, found.already - move["already"]), found.moved + found.conflicts
        row = Promotion(
            promotion_id=move["id"],
            run_id=self.run_id,
            kind=PromotionKind(move["kind"]),
            at=move["at"],
            reason=move["reason"],
            actor=move["actor"],
            moved=moved,
            conflicts=conflicts,
            pointers=found.pointers - move["pointers"],
            pointers_xor=xor_of([found.pointers_xor, move["pointers_xor"]]).hex(),
        )
        self.table.write_many(promotion_items(row))
        self.table.delete(self._under_way, condition="id = :id", values={"id": move["id"]})
        return PointerCounts(moved, move["already"], conflicts)

    def _recorded(self, move: MoveItem) -> PointerCounts:
        key: Key[PromotionItem] = Key((layout.PROMOTIONS, move["id"]))
        record = self.table.get(key)
        moved, conflicts = (record["moved"], record["conflicts"]) if record else (0, 0)
        return PointerCounts(moved, move["already"], conflicts)

    def _pointers(self) -> Iterator[list[_Pointer]]:
        for items in batched(self.table.query_merged(layout.versions_pks(self.run_id)), _CHUNK):
            ends = ((item["base"], self.run_id) for item in items)
            yield [
                _Pointer(item, layout.place_of(item), *(runs if self.kind == PromotionKind.PROMOTE else runs[::-1]))
                for item, runs in zip(items, ends, strict=True)
            ]

    def _read(self) -> Iterator[tuple[list[_Pointer], dict[tuple[str, str], PointerItem]]]:
        for pointers in self._pointers():
            yield pointers, self.table.get_many(layout.current_key(pointer.place) for pointer in pointers)

    def _survey(self) -> _Survey:
        """Return what a move would do now."""
        survey = _Survey()
        for pointers, found in self._read():
            for pointer in pointers:
                survey.add(pointer, _run_at(found, pointer))
        return survey

    def _checked_survey(self) -> _Survey:
        """Return what a move would do now. Raises Damaged unless the run's versions are all there and as they were
        written, and so are the pointers that they would move."""
        survey, versions, digests = _Survey(), 0, NO_ROWS
        for pointers, found in self._read():
            for pointer in pointers:
                now, name = found.get(layout.current_key(pointer.place)), pointer.place.name
                if not layout.is_sound(pointer.place, pointer.version):
                    raise damaged_row(f"the version of {name} by run {self.run_id}")
                if now is not None and not layout.is_sound(pointer.place, now):
                    raise damaged_row(f"the pointer to the current {name}")
                survey.add(pointer, _run_at(found, pointer))
            versions += len(pointers)
            digests = xor_of((pointer.version["digest"] for pointer in pointers), digests)
        states = [item for item in self.table.query(layout.run_pk(self.run_id), prefix="state/") if "written" in item]
        written = sum(state["written"] for state in states)
        # A task that was done twice at once may have left more versions than either of the two counted.
        if versions < written or (versions == written and digests != xor_of(state["versions_xor"] for state in states)):
            raise versions_missing(self.run_id, written, versions)
        return survey

    def _move_all(self, move_id: str) -> _Survey:
        """Move what can be moved, and return where everything is then."""
        survey = _Survey()
        for pointers in self._pointers():
            keys: list[Key[Any]] = [self._under_way, *(layout.current_key(pointer.place) for pointer in pointers)]
            found = self.table.get_many(keys)
            if found.get(self._under_way, {}).get("id") != move_id:
                raise _Interrupted
            moving = [pointer for pointer in pointers if _run_at(found, pointer) == pointer.old]
            moved = set(self._move(moving))
            for pointer in pointers:
                survey.add(pointer, pointer.new if pointer.place in moved else _run_at(found, pointer))
        return survey

    def _move(self, pointers: Sequence[_Pointer]) -> Iterator[AggregatePlace]:
        """Move these pointers, each alone and only from where it should be, and yield those that are moved then: one
        whose condition failed may have been moved by a call whose answer was lost."""
        wanted = [pointer for pointer in pointers if pointer.new not in ("", self.run_id)]
        targets = self.table.get_many(layout.version_key(pointer.new, pointer.place) for pointer in wanted)
        changes = [self._change(pointer, targets) for pointer in pointers]
        moved = list(self.table.change_many(changes))
        yield from (pointer.place for pointer in compress(pointers, moved))
        left = list(compress(pointers, (not each for each in moved)))
        found = self.table.get_many(layout.current_key(pointer.place) for pointer in left)
        yield from (pointer.place for pointer in left if _run_at(found, pointer) == pointer.new)

    def _change(self, pointer: _Pointer, targets: Mapping[tuple[str, str], VersionItem]) -> Change:
        key = layout.current_key(pointer.place)
        name, where = f'"{self.table.name}"', '"pk" = ? AND "sk" = ?'
        if not pointer.new:
            return f'DELETE FROM {name} WHERE {where} AND "run" = ?', (*key, pointer.old)
        target = (
            pointer.version if pointer.new == self.run_id else targets[layout.version_key(pointer.new, pointer.place)]
        )
        content = tuple(content_of(target).values())
        if pointer.old:
            change = " ".join(f'SET "{each}" = ?' for each in layout.CONTENT)
            return f'UPDATE {name} {change} WHERE {where} AND "run" = ?', (*content, *key, pointer.old)
        fields = ", ".join(f"'{each}': ?" for each in ("pk", "sk", *layout.CONTENT))
        return f"INSERT INTO {name} VALUE {{{fields}}}", (*key, *content)


def content_of(version: Mapping[str, Any]) -> Item:
    """Return what a pointer copies from a version."""
    return {name: version[name] for name in layout.CONTENT}


def promotion_items(row: Promotion) -> list[Item]:
    """Return the items of a promotion: in the history of all, its copy, and among its run's items."""
    promotion_id, *columns, xor = structs.astuple(row)
    record = dict(zip(_RECORD, (*columns, bytes.fromhex(xor)), strict=True))
    digest = _promotion_digest(promotion_id, record)
    item = {"pk": layout.PROMOTIONS, "sk": promotion_id, **record, "digest": digest}
    return [item, layout.sealed(item), {**item, "pk": layout.run_pk(row.run_id), "sk": f"promotion/{row.promotion_id}"}]


_RECORD = ("run", "kind", "at", "reason", "actor", "moved", "conflicts", "pointers", "pointers_xor")
"""The attributes of a promotion, in the order of its digest and of Promotion."""


def _promotion_digest(promotion_id: str, record: Mapping[str, Any]) -> bytes:
    return row_digest("promotion", promotion_id, *(record[name] for name in _RECORD))


def promotion_is_sound(item: PromotionItem) -> bool:
    """Return whether the item of a promotion is as it was written."""
    return item.get("digest") == _promotion_digest(item["sk"].rpartition("/")[2], item)


def promotion_row(item: PromotionItem) -> Promotion:
    """Return the row of a promotion in the history of all. Raises Damaged."""
    if not promotion_is_sound(item):
        raise damaged_row(f"promotion {item['sk']} of run {item['run']}")
    why = item["run"], PromotionKind(item["kind"]), item["at"], item["reason"], item["actor"]
    moved = item["moved"], item["conflicts"], item["pointers"], item["pointers_xor"].hex()
    return Promotion(item["sk"], *why, *moved)


def _run_at(found: _Found, pointer: _Pointer) -> str:
    """Return the run whose version is current, as read; empty if none is."""
    item: PointerItem | None = found.get(layout.current_key(pointer.place))
    return item.get("run", "") if item else ""
