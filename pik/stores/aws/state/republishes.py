"""Republishes in the state table: an item each, and one partition for what each could not send."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

import msgspec

from pik.errors import CANDIDATES, ambiguous_id
from pik.model.republish import Refusal, Republish, SendingPlace
from pik.stores.aws.lease import held, holding
from pik.stores.aws.state import layout
from pik.stores.aws.state.layout import BodyItem
from pik.stores.aws.table import Table
from pik.stores.state_rows import damaged_row, read_refusal, read_republish, row_digest


@dataclass(frozen=True, slots=True)
class AwsRepublishes:
    """Implements the port."""

    table: Table

    def create(self, republish: Republish) -> None:
        self.table.put(republish_item(republish))

    def get(self, republish_id: str) -> Republish:
        prefix = republish_id.upper()  # ULIDs
        listed = self.table.query(layout.REPUBLISHES, prefix=prefix, descending=True) if prefix else iter(())
        found = list(islice(listed, CANDIDATES + 1))
        if len(found) != 1:
            raise ambiguous_id("republish", republish_id, [one["sk"] for one in found], hint="pik republish list")
        return republish_of(found[0])

    def newest_first(self) -> Iterator[Republish]:
        return map(republish_of, self.table.query(layout.REPUBLISHES, descending=True))

    def record(self, republish: Republish, refused: Sequence[Refusal] = (), taken: Sequence[SendingPlace] = ()) -> None:
        """Write refusals first and delete them last: an interruption leaves too many, which are sent again."""
        self.table.write_many(refusal_item(republish.republish_id, one) for one in refused)
        self.table.put(republish_item(republish))
        pk = layout.refusals_pk(republish.republish_id)
        self.table.write_many(deletes=((pk, refusal_sk(one)) for one in taken))

    def refusals(self, republish_id: str) -> Iterator[Refusal]:
        return map(refusal_of, self.table.query(layout.refusals_pk(republish_id)))

    def sending(self, republish_id: str) -> AbstractContextManager[None]:
        return holding(self.table, f"republish {republish_id}")

    def is_sending(self, republish_id: str) -> bool:
        return held(self.table, f"republish {republish_id}")


def republish_item(republish: Republish) -> BodyItem:
    """Return the item of a republish."""
    republish_id, body = republish.republish_id, msgspec.json.encode(republish).decode()
    digest = row_digest("republish", republish_id, body)
    return {"pk": layout.REPUBLISHES, "sk": republish_id, "body": body, "digest": digest}


def republish_is_sound(item: BodyItem) -> bool:
    """Return whether the item of a republish is as it was written."""
    return item.get("digest") == row_digest("republish", item["sk"], item["body"])


def republish_of(item: BodyItem) -> Republish:
    """Return the republish of an item. Raises Damaged."""
    if not republish_is_sound(item):
        raise damaged_row(f"republish {item['sk']}")
    return read_republish(item["body"])


def refusal_sk(place: SendingPlace) -> str:
    """Return the sort key of what was refused."""
    return f"{place.batch_id}/{place.seq:016d}"


def refusal_item(republish_id: str, refusal: Refusal) -> BodyItem:
    """Return the item of a delivery that was refused."""
    sk, body = refusal_sk(refusal.place), msgspec.json.encode(refusal).decode()
    digest = row_digest("refusal", republish_id, sk, body)
    return {"pk": layout.refusals_pk(republish_id), "sk": sk, "body": body, "digest": digest}


def refusal_is_sound(item: BodyItem) -> bool:
    """Return whether the item of a delivery that was refused is as it was written."""
    republish_id = item["pk"].partition("/")[2]
    return item.get("digest") == row_digest("refusal", republish_id, item["sk"], item["body"])


def refusal_of(item: BodyItem) -> Refusal:
    """Return the refusal of an item. Raises Damaged."""
    if not refusal_is_sound(item):
        raise damaged_row(f"refusal of republish {item['pk'].partition('/')[2]}")
    return read_refusal(item["body"])
