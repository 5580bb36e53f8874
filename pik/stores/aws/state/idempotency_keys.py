"""Idempotency keys in the state table: one item for each, which DynamoDB removes some time after it has expired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pik.ports.state import KeyClaim
from pik.stores.aws.table import Key, Partition, Table


@dataclass(frozen=True, slots=True)
class AwsIdempotencyKeys:
    """Implements the port."""

    table: Table

    def claim(self, key: str, claim: KeyClaim, at: int, until: int) -> KeyClaim:
        place: Key[Any] = Key((Partition(f"idempotency/{key}"), "-"))
        item = {"pk": place[0], "sk": place[1], "request": claim.request, "run": claim.run_id, "expires": until}
        while not self.table.put_if(item, "attribute_not_exists(pk) OR #expires <= :at", {"at": at}):
            kept = self.table.get(place)
            if kept is not None:
                return KeyClaim(kept["request"], kept["run"])
        return claim
