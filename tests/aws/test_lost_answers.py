"""Calls that took effect and whose answer was lost: boto3 sends them again, and must not take its own for another's."""

from __future__ import annotations

import pytest
from botocore.exceptions import ConnectionClosedError

from pik.errors import AlreadyExists
from pik.stores.aws.clients import Clients
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Item, Key, Table
from tests.support.aws.calls import SESSION
from tests.support.aws.emulator import make_stack

pytestmark = pytest.mark.usefixtures("no_delays")


class Losing:
    """Loses the answer of the first call of an operation, behind its effect."""

    def __init__(self, clients: Clients, service: str, operation: str) -> None:
        self.lost = False
        self.operation = operation
        clients.client(service).meta.events.register(f"before-send.{service}.{operation}", self._send)

    def _send(self, request, **_):
        if self.lost:
            return
        self.lost = True
        SESSION.send(request)
        raise ConnectionClosedError(endpoint_url=request.url)


def test_promise_1_its_own_object_is_recognised(own: Clients) -> None:
    raw = AwsRaw(own, make_stack(own).raw_bucket)
    losing = Losing(own, "s3", "PutObject")
    raw.create("raw/one", b"data")
    assert losing.lost
    with pytest.raises(AlreadyExists):
        raw.create("raw/one", b"data")
    assert raw.read("raw/one") == b"data"


def test_promise_2_the_object_of_another_writer_is_recognised(own: Clients) -> None:
    raw = AwsRaw(own, make_stack(own).raw_bucket)
    raw.create("raw/one", b"theirs")
    Losing(own, "s3", "PutObject")
    with pytest.raises(AlreadyExists):
        raw.create("raw/one", b"mine")


def test_an_insert_whose_answer_was_lost_looks_like_one_that_was_there(own: Clients) -> None:
    """Which is why claims are compared with what is there."""
    table = Table(own, make_stack(own).index_table)
    losing = Losing(own, "dynamodb", "BatchExecuteStatement")
    assert list(table.insert_many([{"pk": "a", "sk": "b", "n": 1}])) == [False]
    assert losing.lost
    key: Key[Item] = Key(("a", "b"))
    assert table.get(key) == {"pk": "a", "sk": "b", "n": 1}
