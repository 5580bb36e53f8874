"""A DynamoDB table: items as plain dictionaries, all pages and batches of a question, throttled requests sent again.

Keys are `pk` and `sk`, both text. Values are text, integers, bytes and booleans. All reads are strongly consistent,
except those of a secondary index, for which DynamoDB has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from heapq import merge
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from pik.errors import StoreError
from pik.model.share import WHOLE, Share
from pik.runtime import exhaust
from pik.runtime.retries import attempts
from pik.stores.aws.clients import THROTTLED, Clients, Flow, translated

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

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

_AHEAD = 500
"""Items of a partition that are read before those of the partitions before it have been."""

_PASSING = THROTTLED | {"InternalServerError", "TransactionConflict"}
_REFUSED = {
    "DuplicateItem",
    "DuplicateItemException",
    "ConditionalCheckFailed",
    "ConditionalCheckFailedException",
}
"""Codes of a statement whose condition does not hold, or whose key exists."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table by name."""

    clients: Clients
    name: str

    @property
    def _dynamodb(self) -> DynamoDBClient:
        return self.clients.client("dynamodb")

    def get(self, key: Key[ItemT]) -> ItemT | None:
        """Return the item under this key."""
        with translated("dynamodb"):
            found = self._dynamodb.get_item(TableName=self.name, Key=_key(key), ConsistentRead=True).get("Item")
        return None if found is None else decoded(found)

    def put(self, item: Mapping[str, Any], *, unless_exists: bool = False) -> bool:
        """Write an item; False if `unless_exists` kept it from replacing another."""
        condition = "attribute_not_exists(pk)" if unless_exists else ""
        written = self._write(self._dynamodb.put_item, Item=encoded(item), **_condition(condition, {}))
        return written is not None

    def put_if(self, item: Mapping[str, Any], condition: str, values: Mapping[str, Any]) -> bool:
        """Write an item; False if the condition, as in `update`, does not hold for the one that it would replace."""
        parameters = {**_condition(condition, values), **_names(condition)}
        return self._write(self._dynamodb.put_item, Item=encoded(item), **parameters) is not None

    def update(self, key: Key[ItemT], change: str, values: Mapping[str, Any], *, condition: str = "") -> ItemT | None:
        """Apply an UpdateExpression and return the new item; None if the condition does not hold. In both expressions
        `:name` stands for a value, `#name` for the attribute `name`."""
        parameters = {"UpdateExpression": change, "ReturnValues": "ALL_NEW", **_condition(condition, values)}
        names = _names(f"{change} {condition}")
        answer = self._write(self._dynamodb.update_item, Key=_key(key), **parameters, **names)
        return None if answer is None else decoded(answer["Attributes"])

    def delete(self, key: tuple[str, str], *, condition: str = "", values: Mapping[str, Value] | None = None) -> bool:
        """Delete an item; False if the condition does not hold."""
        parameters = _condition(condition, values or {})
        return self._write(self._dynamodb.delete_item, Key=_key(key), **parameters) is not None

    def _write(self, operation: Callable[..., Any], **parameters: Any) -> Any:
        """Return the answer of an operation that writes one item; None if its condition does not hold."""
        with translated("dynamodb"):
            try:
                return operation(TableName=self.name, **parameters)
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                return None

    def query(
        self,
        pk: Partition[ItemT],
        *,
        prefix: str = "",
        between: tuple[str, str] | None = None,
        descending: bool = False,
        first: int | None = None,
        index: tuple[str, str, str] | None = None,
    ) -> Iterator[ItemT]:
        """Yield a partition's items in the order of their sk (by UTF-8 bytes), page by page: those whose sk begins with
        `prefix`, or lies `between` two (both included). A page is one call. With `first` the first one has so many
        items, and each other one eight times as many as the one before. `index` is a secondary index: its name and its
        two keys."""
        name, hash_key, range_key = index or ("", "pk", "sk")
        condition, values = f"{hash_key} = :pk", {":pk": _value(pk)}
        if between:
            condition += f" AND {range_key} BETWEEN :low AND :high"
            values |= {":low": _value(between[0]), ":high": _value(between[1])}
        elif prefix:
            condition += f" AND begins_with({range_key}, :prefix)"
            values[":prefix"] = _value(prefix)
        request: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not descending,
            **({"IndexName": name} if index else {"ConsistentRead": True}),
        }
        while True:
            if first is not None:
                request["Limit"], first = first, 8 * first
            with translated("dynamodb"):
                page = self._dynamodb.query(**request)
            yield from map(decoded, page["Items"])
            if not (last := page.get("LastEvaluatedKey")):
                return
            request["ExclusiveStartKey"] = last

    def query_each(
        self, partitions: Iterable[tuple[Partition[ItemT], str]], *, first: int | None = None
    ) -> Iterator[ItemT]:
        """Yield the items of each partition, (pk, prefix), one after the other; the first ones of several are read at a
        time. `first` as in `query`."""

        def begin(partition: tuple[Partition[ItemT], str]) -> Iterator[ItemT]:
            items = self.query(partition[0], prefix=partition[1], first=first)
            return chain(list(islice(items, min(first or _AHEAD, _AHEAD))), items)

        return chain.from_iterable(Flow().map(begin, partitions))

    def query_merged(
        self,
        partitions: Sequence[Partition[ItemT]],
        *,
        between: tuple[str, str] | None = None,
        index: tuple[str, str, str] | None = None,
    ) -> Iterator[ItemT]:
        """Yield the items of these partitions together in the order of their sk, a page of each in memory; the first
        pages are read at a time. `between` and `index` as in `query`."""

        def begin(pk: Partition[ItemT]) -> Iterator[ItemT]:
            items = self.query(pk, between=between, index=index)
            return chain(list(islice(items, 1)), items)

        return merge(*Flow().map(begin, partitions), key=itemgetter(index[2] if index else "sk"))

    def get_many(self, keys: Iterable[Key[ItemT]]) -> dict[tuple[str, str], ItemT]:
        """Return the items that exist under these keys, each key given once."""

        def read(chunk: Sequence[Key[ItemT]]) -> list[Any]:
            found: list[Any] = []

            def read_some(left: Sequence[Any]) -> Sequence[Any]:
                request: Any = {self.name: {"Keys": left, "ConsistentRead": True}}
                answer = self._dynamodb.batch_get_item(RequestItems=request)
                found.extend(map(decoded, answer["Responses"].get(self.name, ())))
                return answer["UnprocessedKeys"][self.name]["Keys"] if answer.get("UnprocessedKeys") else ()

            self._until_done(read_some, [_key(key) for key in chunk])
            return found

        return {(item["pk"], item["sk"]): item for items in Flow().map(read, batched(keys, READS)) for item in items}

    def join(self, things: Iterable[Thing], key: Callable[[Thing], Key[ItemT]]) -> Iterator[tuple[Thing, ItemT | None]]:
        """Yield things in their order, each with the item under its key, a hundred of which are read at a time."""
        for some in batched(things, READS):
            keys = list(map(key, some))
            found = self.get_many(dict.fromkeys(keys))
            yield from zip(some, map(found.get, keys), strict=True)

    def put_together(
        self, new: Sequence[Mapping[str, Any]], also: Sequence[Mapping[str, Any]] = ()
    ) -> list[Any] | None:
        """Insert the `new` items and write the others, all or none; return None if they are written. Otherwise return
        the new ones that exist already, as far as DynamoDB names them: none where another transaction is in progress on
        one of them."""
        new_one = {
            "ConditionExpression": "attribute_not_exists(pk)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        puts: list[Any] = [{"Put": {"TableName": self.name, "Item": encoded(item), **new_one}} for item in new]
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

    def scan(self, *names: str, share: Share = WHOLE) -> Iterator[Item]:
        """Yield these attributes (none: all) of all items, or of a share of them, in no order, page by page."""
        request: dict[str, Any] = {"TableName": self.name, "ConsistentRead": True}
        if not share.is_all:
            request |= {"Segment": share.number, "TotalSegments": share.count}
        if names:
            request["ProjectionExpression"] = ", ".join(f"#{name}" for name in names)
            request["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
        with translated("dynamodb"):
            for page in self._dynamodb.get_paginator("scan").paginate(**request):
                yield from map(decoded, page["Items"])

    def write_many(self, puts: Iterable[Mapping[str, Any]] = (), deletes: Iterable[tuple[str, str]] = ()) -> None:
        """Write and delete items in no order, 25 per call, several calls at a time; each key given once."""

        def write(left: Sequence[Any]) -> Sequence[Any]:
            answer = self._dynamodb.batch_write_item(RequestItems={self.name: left})
            return answer.get("UnprocessedItems", {}).get(self.name, ())

        requests: Iterator[dict[str, Any]] = chain(
            ({"PutRequest": {"Item": encoded(item)}} for item in puts),
            ({"DeleteRequest": {"Key": _key(key)}} for key in deletes),
        )
        exhaust(Flow().map(partial(self._until_done, write), batched(requests, WRITES)))

    def insert_many(self, items: Iterable[Mapping[str, Any]]) -> Iterator[bool]:
        """Insert items, each by itself, 25 per call, several calls at a time; yield in their order whether each was
        inserted, or its key existed already: a call that was repeated may have written it itself. Each key once."""
        return self.change_many((_insertion(self.name, tuple(item)), tuple(item.values())) for item in items)

    def change_many(self, changes: Iterable[Change]) -> Iterator[bool]:
        """Execute PartiQL statements that write one item each, as `insert_many` does; yield whether each took effect:
        false if its condition did not hold (any more: a call that was repeated may itself be the reason)."""
        for answers in Flow().map(self._execute, batched(changes, STATEMENTS)):
            yield from answers

    def _execute(self, changes: Sequence[Change]) -> list[bool]:
        done = [False] * len(changes)

        def execute(left: Sequence[int]) -> list[int]:
            calls: list[Any] = [
                {"Statement": statement, "Parameters": [_value(value) for value in values]}
                for statement, values in (changes[place] for place in left)
            ]
            again = []
            answers = self._dynamodb.batch_execute_statement(Statements=calls)["Responses"]
            for place, answer in zip(left, answers, strict=True):
                code = answer.get("Error", {}).get("Code")
                if code in _PASSING:
                    again.append(place)
                elif code is not None and code not in _REFUSED:
                    raise StoreError(f"DynamoDB refused an item ({code}): {answer['Error'].get('Message', '')}")
                else:
                    done[place] = code is None
            return again

        self._until_done(execute, range(len(changes)))
        return done

    def _until_done(self, send: Callable[[Sequence[Any]], Sequence[Any]], left: Sequence[Any]) -> None:
        """Send what is left, until `send` returns that nothing is. Raises StoreError."""
        for _ in attempts():
            with translated("dynamodb"):
                left = send(left)
            if not left:
                return
        raise StoreError(f"DynamoDB keeps throttling the table {self.name}", hint="run the same command again later")


@cache
def _insertion(table: str, names: tuple[str, ...]) -> str:
    fields = ", ".join(f"'{name}': ?" for name in names)
    return f'INSERT INTO "{table}" VALUE {{{fields}}}'


def batched(items: Iterable[Thing], size: int) -> Iterator[list[Thing]]:
    """Yield lists of at most `size` items."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _names(expressions: str) -> dict[str, Any]:
    """Return the parameter for the attributes that `#name` stands for."""
    names = {f"#{name}": name for name in re.findall(r"#(\w+)", expressions)}
    return {"ExpressionAttributeNames": names} if names else {}


def _condition(condition: str, values: Mapping[str, Value]) -> dict[str, Any]:
    parameters: dict[str, Any] = {"ConditionExpression": condition} if condition else {}
    if values:
        parameters["ExpressionAttributeValues"] = {f":{name}": _value(value) for name, value in values.items()}
    return parameters


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
    """Return an item as DynamoDB's API has it."""
    return {name: _value(value) for name, value in item.items()}


def decoded(item: Mapping[str, Any]) -> Any:
    """Return an item of DynamoDB's API as a plain dictionary."""
    return {
        name: int(content) if kind == "N" else content  # S, B and BOOL are as they are
        for name, value in item.items()
        for kind, content in value.items()
    }
