"""Which batch records a buffered request: an item for each request, outside of the generations of the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pik.errors import StoreError
from pik.model.ids import TIME_DIGITS
from pik.stores.aws.table import Key, KeyItem, Partition, Table


class AssignmentItem(KeyItem):
    """The batch of a request; DynamoDB removes the item some time after it has expired."""

    batch: str
    expires: int


@dataclass(frozen=True, slots=True)
class AwsAssignments:
    """Implements the port."""

    table: Table

    def assign(self, requests: Sequence[str], batch_id: str, until: int) -> list[str]:
        keys = [_key(request[TIME_DIGITS:]) for request in requests]
        items: list[AssignmentItem] = [
            {"pk": pk, "sk": sk, "batch": batch_id, "expires": until} for pk, sk in dict.fromkeys(keys)
        ]
        inserted = list(self.table.insert_many(items))
        # One that was there may be our own, of a call whose answer was lost.
        there = [_key_of(item) for item, new in zip(items, inserted, strict=True) if not new]
        found = self.table.get_many(there)
        if len(found) != len(there):
            raise StoreError("the assignment of a request is gone", hint="send the request again")
        batches = {key: item["batch"] for key, item in found.items()}
        return [batches.get(key, batch_id) for key in keys]

    def move(self, request: str, before: str, after: str) -> bool:
        key = _key(request[TIME_DIGITS:])
        values = {"after": after, "before": before}
        if self.table.update(key, "SET #batch = :after", values, condition="#batch = :before") is not None:
            return True
        item = self.table.get(key)
        return item is not None and item["batch"] == after

    def batch_of(self, digits: str) -> str | None:
        item = self.table.get(_key(digits))
        return None if item is None else item["batch"]


def _key(digits: str) -> Key[AssignmentItem]:
    return Key((Partition(f"buffered/{digits}"), "-"))


def _key_of(item: AssignmentItem) -> Key[AssignmentItem]:
    return Key((Partition(item["pk"]), item["sk"]))
