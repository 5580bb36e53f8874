"""One DynamoDB table: items as plain dictionaries, pages and batches unrolled, what was throttled sent again.

Keys are `pk` and `sk`, both text. Values are text, integers, bytes and booleans. All reads are strongly consistent, but
those of a secondary index, which DynamoDB has no such reads of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from pik.errors import StoreError
from pik.runtime.retry import attempts
from pik.stores.aws.clients import Clients, Flow, translated

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        BatchStatementRequestTypeDef,
        QueryInputPaginateTypeDef,
        ScanInputPaginateTypeDef,
        TransactWriteItemTypeDef,
        WriteRequestTypeDef,
    )

Value = str | int | bytes | bool
Item = dict[str, Any]
"""An item of any kind: a Value by attribute name."""


class KeyItem(TypedDict):
    """What every item has: its key. The other attributes are those of its kind, a TypedDict made from this one."""

    pk: str
    sk: str


ItemT = TypeVar("ItemT", bound=Mapping[str, Any])
Thing = TypeVar("Thing")


class Key(tuple[str, str], Generic[ItemT]):
    """pk and sk of an item, and to the type checker the kind of the item."""

    __slots__ = ()


class Partition(str, Generic[ItemT]):
    """A pk, and to the type checker the kind of the items in that partition."""

    __slots__ = ()


def key_of(item: KeyItem | Item) -> Key[Any]:
    """Return the key of an item."""
    return Key((item["pk"], item["sk"]))


Change = tuple[str, tuple[Value, ...]]
"""A PartiQL statement that writes one item, and the values of its parameters."""

STATEMENTS, WRITES, READS = 25, 25, 100
"""What BatchExecuteStatement, BatchWriteItem and BatchGetItem take at most."""

_THROTTLED = {
    "ThrottlingError",
    "ThrottlingException",
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "InternalServerError",
    "TransactionConflict",
}
_REFUSED = {
    "DuplicateItem",
    "DuplicateItemException",
    "ConditionalCheckFailed",
    "ConditionalCheckFailedException",
}
"""Codes of a statement whose condition, or whose insertion's, does not hold."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table by name."""

    clients: Clients
    name: str

    @property
    def _dynamodb(self) -> DynamoDBClient:
        return self.clients.client("dynamodb")

    def get(self, key: Key[ItemT]) -> ItemT | None:
        """The item under this key."""
        with translated("dynamodb"):
            found = self._dynamodb.get_item(TableName=self.name, Key=_key(key), ConsistentRead=True).get("Item")
        return None if found is None else decoded(found)

    def put(self, item: Mapping[str, Any], *, unless_exists: bool = False) -> bool:
        """Write an item; False if `unless_exists` kept it from replacing another."""
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"} if unless_exists else {}
        with translated("dynamodb"):
            try:
                self._dynamodb.put_item(TableName=self.name, Item=encoded(item), **condition)
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def update(self, key: Key[ItemT], change: str, values: Mapping[str, Any], *, condition: str = "") -> ItemT | None:
        """Apply an UpdateExpression and return the item as it is then; None if the condition does not hold. In both
        `:name` stands for a value, `#name` for the attribute called so."""
        names = {f"#{name}": name for name in re.findall(r"#(\w+)", f"{change} {condition}")}
        parameters: dict[str, Any] = {"ConditionExpression": condition} if condition else {}
        if names:
            parameters["ExpressionAttributeNames"] = names
        if values:
            parameters["ExpressionAttributeValues"] = {f":{name}": _value(value) for name, value in values.items()}
        with translated("dynamodb"):
            try:
                answer = self._dynamodb.update_item(
                    TableName=self.name, Key=_key(key), UpdateExpression=change, ReturnValues="ALL_NEW", **parameters
                )
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                return None
        item: ItemT = decoded(answer["Attributes"])
        return item

    def delete(self, key: tuple[str, str], *, condition: str = "", values: Mapping[str, Value] | None = None) -> bool:
        """Delete an item; False if the condition does not hold."""
        parameters: dict[str, Any] = {"ConditionExpression": condition} if condition else {}
        if values:
            parameters["ExpressionAttributeValues"] = {f":{name}": _value(value) for name, value in values.items()}
        with translated("dynamodb"):
            try:
                self._dynamodb.delete_item(TableName=self.name, Key=_key(key), **parameters)
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def query(
        self,
        pk: Partition[ItemT],
        *,
        prefix: str = "",
        between: tuple[str, str] | None = None,
        descending: bool = False,
        index: tuple[str, str, str] | None = None,
    ) -> Iterator[ItemT]:
        """The items of a partition in the order of their sk (by UTF-8 bytes), page by page: those whose sk begins with
        `prefix`, or lies `between` two (both included). `index` is a secondary index: its name and its two keys."""
        name, hash_key, range_key = index or ("", "pk", "sk")
        condition, names, values = "#h = :pk", {"#h": hash_key}, {":pk": _value(pk)}
        if between:
            condition += " AND #r BETWEEN :low AND :high"
            names["#r"] = range_key
            values |= {":low": _value(between[0]), ":high": _value(between[1])}
        elif prefix:
            condition += " AND begins_with(#r, :prefix)"
            names["#r"] = range_key
            values[":prefix"] = _value(prefix)
        request: QueryInputPaginateTypeDef = {
            "TableName": self.name,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not descending,
        }
        if index:
            request["IndexName"] = name
        else:
            request["ConsistentRead"] = True
        with translated("dynamodb"):
            for page in self._dynamodb.get_paginator("query").paginate(**request):
                yield from map(decoded, page["Items"])

    def get_many(self, keys: Iterable[Key[ItemT]]) -> dict[tuple[str, str], ItemT]:
        """The items that there are under these keys, each key given once."""

        def get(chunk: Sequence[Key[ItemT]]) -> list[Any]:
            answers = self._until_done(self._get_batch, [_key(key) for key in chunk])
            return [decoded(item) for answer in answers for item in answer]

        return {(item["pk"], item["sk"]): item for items in Flow().map(get, batched(keys, READS)) for item in items}

    def put_together(
        self, new: Sequence[Mapping[str, Any]], also: Sequence[Mapping[str, Any]] = ()
    ) -> list[Any] | None:
        """Insert items, and write others, all of them or none: None if they are written. Otherwise some that shall be
        new are there already, of which those are returned that the service tells, or somebody else is at work on one
        of all these this very moment."""
        puts: list[TransactWriteItemTypeDef] = [
            {
                "Put": {
                    "TableName": self.name,
                    "Item": encoded(item),
                    "ConditionExpression": "attribute_not_exists(pk)",
                    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                }
            }
            for item in new
        ]
        puts += [{"Put": {"TableName": self.name, "Item": encoded(item)}} for item in also]
        errors = self._dynamodb.exceptions
        with translated("dynamodb"):
            try:
                self._dynamodb.transact_write_items(TransactItems=puts)
            except errors.TransactionCanceledException as error:
                reasons = error.response.get("CancellationReasons") or ()
                return [decoded(reason["Item"]) for reason in reasons if reason.get("Item")]
            except errors.TransactionInProgressException:
                return []
        return None

    def scan(self, *names: str) -> Iterator[Item]:
        """These attributes (none: all) of all items there are, in no order, page by page."""
        request: ScanInputPaginateTypeDef = {"TableName": self.name, "ConsistentRead": True}
        if names:
            request["ProjectionExpression"] = ", ".join(f"#{name}" for name in names)
            request["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
        with translated("dynamodb"):
            for page in self._dynamodb.get_paginator("scan").paginate(**request):
                yield from map(decoded, page["Items"])

    def write_many(self, puts: Iterable[Mapping[str, Any]] = (), deletes: Iterable[tuple[str, str]] = ()) -> None:
        """Write and delete items, 25 a call, several calls at a time, in no order; each key given once."""
        requests: Iterator[WriteRequestTypeDef] = ({"PutRequest": {"Item": encoded(item)}} for item in puts)
        gone: Iterator[WriteRequestTypeDef] = ({"DeleteRequest": {"Key": _key(key)}} for key in deletes)

        def write(chunk: Sequence[Any]) -> None:
            for _ in self._until_done(self._write_batch, chunk):
                pass

        for _ in Flow().map(write, batched((request for each in (requests, gone) for request in each), WRITES)):
            pass

    def insert_many(self, items: Iterable[Mapping[str, Any]]) -> Iterator[bool]:
        """Insert items, 25 a call, several calls at a time, each alone: whether it was inserted, or one of its key was
        there already (which a call that was repeated may have written itself). In the order given; each key once."""
        statements: dict[tuple[str, ...], str] = {}
        return self.change_many(self._insertion(item, statements) for item in items)

    def change_many(self, changes: Iterable[Change]) -> Iterator[bool]:
        """Execute PartiQL statements that write one item each, as `insert_many` does: whether each took effect, or its
        condition did not hold (any more: a call that was repeated may have made it so itself)."""
        for answers in Flow().map(self._execute, batched(changes, STATEMENTS)):
            yield from answers

    def _execute(self, changes: Sequence[Change]) -> list[bool]:
        done = [False] * len(changes)
        left = list(range(len(changes)))
        for _ in attempts():
            calls = [_statement(changes[place]) for place in left]
            with translated("dynamodb"):
                answers = self._dynamodb.batch_execute_statement(Statements=calls)["Responses"]
            again = []
            for place, answer in zip(left, answers, strict=True):
                code = answer.get("Error", {}).get("Code")
                if code in _THROTTLED:
                    again.append(place)
                elif code is not None and code not in _REFUSED:
                    raise StoreError(f"DynamoDB refused an item ({code}): {answer['Error'].get('Message', '')}")
                else:
                    done[place] = code is None
            if not again:
                return done
            left = again
        raise _throttled(self.name)

    def _insertion(self, item: Mapping[str, Any], statements: dict[tuple[str, ...], str]) -> Change:
        names = tuple(item)
        if names not in statements:
            fields = ", ".join(f"'{name}': ?" for name in names)
            statements[names] = f'INSERT INTO "{self.name}" VALUE {{{fields}}}'
        return statements[names], tuple(item.values())

    def _get_batch(self, keys: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        with translated("dynamodb"):
            answer = self._dynamodb.batch_get_item(RequestItems={self.name: {"Keys": keys, "ConsistentRead": True}})
        left = answer["UnprocessedKeys"][self.name]["Keys"] if answer.get("UnprocessedKeys") else []
        return answer["Responses"].get(self.name, []), left

    def _write_batch(self, requests: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        with translated("dynamodb"):
            answer = self._dynamodb.batch_write_item(RequestItems={self.name: requests})
        return None, answer.get("UnprocessedItems", {}).get(self.name, [])

    def _until_done(
        self, call: Callable[[Sequence[Any]], tuple[Any, Sequence[Any]]], left: Sequence[Any]
    ) -> Iterator[Any]:
        """What each call answers, for as long as one leaves some of its requests."""
        for _ in attempts():
            answer, left = call(left)
            yield answer
            if not left:
                return
        raise _throttled(self.name)


def _throttled(table: str) -> StoreError:
    return StoreError(f"DynamoDB keeps throttling the table {table}", hint="run the same command again later")


def _statement(change: Change) -> BatchStatementRequestTypeDef:
    return {"Statement": change[0], "Parameters": [_value(value) for value in change[1]]}


def batched(things: Iterable[Thing], size: int) -> Iterator[list[Thing]]:
    """The things by `size`, the last ones by as many as there are."""
    rest = iter(things)
    while chunk := list(islice(rest, size)):
        yield chunk


def _key(key: tuple[str, str]) -> dict[str, AttributeValueTypeDef]:
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


def _value(value: Value) -> AttributeValueTypeDef:
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bytes):
        return {"B": value}
    if isinstance(value, bool):
        return {"BOOL": value}
    return {"N": str(value)}


def encoded(item: Mapping[str, Any]) -> dict[str, AttributeValueTypeDef]:
    """An item as DynamoDB's API has it."""
    return {name: _value(value) for name, value in item.items()}


def decoded(item: Mapping[str, Any]) -> Any:
    """An item of DynamoDB's API as a plain dictionary."""
    return {name: _plain(value) for name, value in item.items()}


def _plain(value: Mapping[str, Any]) -> Value:
    (kind, content), *_ = value.items()
    return int(content) if kind == "N" else content  # S, B and BOOL are as they are
