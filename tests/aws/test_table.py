"""The helper around DynamoDB, against an emulator: what every part of the deployed store stands on."""

from __future__ import annotations

import pytest
from botocore.exceptions import EndpointConnectionError

from pik.errors import StoreError
from pik.stores.aws.clients import Clients
from pik.stores.aws.table import Item, Key, Partition, Table
from tests.support.aws.emulator import make_stack


@pytest.fixture
def table(aws: Clients) -> Table:
    return Table(aws, make_stack(aws).index_table)


P: Partition[Item] = Partition("p")


def key(pk: str, sk: str) -> Key[Item]:
    return Key((pk, sk))


def test_an_item_is_read_as_it_was_written(table: Table) -> None:
    item = {"pk": "a", "sk": "b\x1f1", "n": -5, "b": b"\0x", "t": True, "s": "ü"}
    assert table.put(item)
    assert table.get(key("a", "b\x1f1")) == item
    assert table.get(key("a", "b")) is None


def test_a_put_replaces_unless_it_must_not(table: Table) -> None:
    assert table.put({"pk": "a", "sk": "b", "n": 1}, unless_exists=True)
    assert not table.put({"pk": "a", "sk": "b", "n": 2}, unless_exists=True)
    assert table.get(key("a", "b")) == {"pk": "a", "sk": "b", "n": 1}
    assert table.put({"pk": "a", "sk": "b", "n": 3})
    assert table.get(key("a", "b")) == {"pk": "a", "sk": "b", "n": 3}


def test_an_update_is_made_where_its_condition_holds(table: Table) -> None:
    table.put({"pk": "a", "sk": "b", "n": 1})
    assert table.update(key("a", "b"), "SET #n = #n + :more", {"more": 2, "old": 5}, condition="#n = :old") is None
    assert table.update(key("a", "b"), "SET #n = #n + :more", {"more": 2}) == {"pk": "a", "sk": "b", "n": 3}
    assert not table.delete(("a", "b"), condition="n = :old", values={"old": 1})
    assert table.delete(("a", "b"))


def test_inserts_tell_which_were_there(table: Table) -> None:
    items = [{"pk": f"p{number % 7}", "sk": f"{number:06d}", "n": number} for number in range(120)]
    assert list(table.insert_many(items[10:30])) == [True] * 20
    assert list(table.insert_many(items)) == [True] * 10 + [False] * 20 + [True] * 90


def test_queries_read_every_page_in_order(table: Table) -> None:
    table.write_many({"pk": "p", "sk": f"{number:03d}", "b": b"x" * 300_000} for number in range(12))
    table.put({"pk": "q", "sk": "001"})
    assert [item["sk"] for item in table.query(P)] == [f"{number:03d}" for number in range(12)]
    assert [item["sk"] for item in table.query(P, prefix="00", descending=True)][:2] == ["009", "008"]
    assert [item["sk"] for item in table.query(P, between=("003", "005"))] == ["003", "004", "005"]


def test_a_query_reads_few_items_first_and_ever_more_after(table: Table) -> None:
    table.write_many({"pk": "p", "sk": f"{number:03}"} for number in range(100))
    sizes: list[int] = []
    emitter = table.clients.client("dynamodb").meta.events
    emitter.register("after-call.dynamodb.Query", lambda parsed, **_: sizes.append(parsed["Count"]), "sizes")
    items = list(table.query(P, descending=True, first=3))
    emitter.unregister("after-call.dynamodb.Query", unique_id="sizes")
    assert sizes == [3, 24, 73]
    assert [item["sk"] for item in items] == [f"{number:03}" for number in reversed(range(100))]


def test_a_merged_query_reads_partitions_together_in_order(table: Table) -> None:
    table.write_many({"pk": f"p{number * 7 % 5}", "sk": f"{number:03}"} for number in range(100))
    partitions = [Partition[Item](f"p{number}") for number in range(6)]
    assert [item["sk"] for item in table.query_merged(partitions)] == [f"{number:03}" for number in range(100)]
    within = table.query_merged(partitions[:1], between=("010", "020"))
    assert [item["sk"] for item in within] == ["010", "015", "020"]


def test_many_are_read_written_and_deleted(table: Table) -> None:
    keys = [key(f"p{number % 3}", str(number)) for number in range(230)]
    table.write_many({"pk": pk, "sk": sk} for pk, sk in keys)
    assert table.get_many([*keys, key("nothing", "there")]).keys() == set(keys)
    table.write_many([{"pk": "new", "sk": "one"}], deletes=keys[:200])
    assert table.get_many(keys).keys() == set(keys[200:])
    assert table.get(key("new", "one"))


@pytest.mark.parametrize("read", [lambda table: table.query(P), lambda table: table.scan()])
def test_a_fault_between_two_pages_is_an_error_of_the_store(own: Clients, read) -> None:
    table = Table(own, make_stack(own).index_table)
    table.write_many({"pk": "p", "sk": f"{number:03d}", "b": b"x" * 300_000} for number in range(12))
    found = read(table)
    next(found)

    def gone(request, **_):
        raise EndpointConnectionError(endpoint_url=request.url)

    own.client("dynamodb").meta.events.register("before-send.dynamodb", gone)
    with pytest.raises(StoreError, match="cannot reach DynamoDB"):
        list(found)
