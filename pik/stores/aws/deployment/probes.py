"""Calls that are allowed or denied like the real ones, and change nothing: what each answer proves.

A write is tried under a condition that can never hold, so AWS denies it or finds that the condition does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from pik.errors import StoreError
from pik.stores.aws.clients import Refused, denied, translated
from pik.stores.aws.deployment.stack import DeployedStack
from pik.stores.aws.table import Table

_NOBODY = ("pik-doctor", "no item has this key")
_NEVER = "attribute_exists(pk) AND attribute_not_exists(pk)"
_NO_RECEIPT = "no message has this receipt"
_MISSING_KEY = "pik-doctor-looks-for-nothing"
_SMALL = 1 << 20  # bytes of an object that is worth reading for a look

_HELD = {"ConditionalCheckFailedException", "ConditionalCheckFailed", "TransactionCanceledException"}
_DUPLICATE = {"DuplicateItem", "DuplicateItemException"}
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_EXISTS = {"PreconditionFailed", "412"}
_RECEIPT = {"ReceiptHandleIsInvalid", "InvalidParameterValue", "AWS.SimpleQueueService.ReceiptHandleIsInvalid"}

Verdict = tuple[bool | None, str]
"""Whether it is allowed (None: cannot be told), and why, unless it is."""


class Objects:
    """Tries the bucket. Below each prefix the smallest of the first objects, if there is any, is what it reads."""

    def __init__(self, deployed: DeployedStack) -> None:
        self._s3: Any = deployed.clients.client("s3")
        self._bucket = deployed.stack.raw_bucket

    def list(self, prefix: str) -> tuple[str | None, Verdict]:
        """The key of a small object, if one is found; and whether listing is allowed."""
        found: dict[str, Any] = {}
        verdict = tried(
            lambda: found.update(self._s3.list_objects_v2(Bucket=self._bucket, Prefix=f"{prefix}/", MaxKeys=100))
        )
        small = [each for each in found.get("Contents", ()) if 0 < each["Size"] <= _SMALL]
        return (min(small, key=lambda each: each["Size"])["Key"] if small else None), verdict

    def get(self, prefix: str) -> Verdict:
        key, (listing, _) = self.list(prefix)
        of = {"Bucket": self._bucket, "Key": key or f"{prefix}/{_MISSING_KEY}"}
        allowed, detail = tried(lambda: self._s3.get_object(**of, Range="bytes=0-0"), _ABSENT)
        if allowed is False and key is None and not listing:
            return None, "without s3:ListBucket S3 denies what is not there, and no object is known to be"
        return allowed, detail

    def put(self, prefix: str) -> Verdict:
        """By creating an object that is there, with the bytes that it has: refused, and harmless where it is not."""
        key, _ = self.list(prefix)
        if key is None:
            return None, f"below {prefix}/ there is no small object yet that it could be tried on"
        try:
            with translated("s3"):
                data = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except StoreError as error:
            return None, f"it is tried on an object that can be read: {error.message}"
        of = {"Bucket": self._bucket, "Key": key, "Body": data, "IfNoneMatch": "*", "ChecksumAlgorithm": "SHA256"}
        written: list[Any] = []
        verdict = tried(lambda: written.append(self._s3.put_object(**of)), _EXISTS)
        if written:
            raise StoreError(
                f"this S3 wrote {key} again, with the bytes that it had, although If-None-Match forbids that",
                hint="raw would not be create-only there: use an S3 that knows conditional writes",
            )
        return verdict


class Tables:
    """Tries the tables."""

    def __init__(self, deployed: DeployedStack) -> None:
        self._clients = deployed.clients
        self._dynamodb: Any = deployed.clients.client("dynamodb")

    def read(self, action: str, table: str) -> Verdict:
        key = _key(*_NOBODY)
        calls: dict[str, Callable[[], Any]] = {
            "GetItem": lambda: self._dynamodb.get_item(TableName=table, Key=key),
            "BatchGetItem": lambda: self._dynamodb.batch_get_item(RequestItems={table: {"Keys": [key]}}),
            "Query": lambda: next(Table(self._clients, table).query(_NOBODY[0]), None),
            "Scan": lambda: self._dynamodb.scan(TableName=table, Limit=1),
        }
        return tried(calls[action])

    def query_index(self, table: str, index: str) -> Verdict:
        keys = {"by_event": ("event_prefix", "event_id"), "by_bucket": ("bucket_key", "version_key")}[index]
        return tried(lambda: next(Table(self._clients, table).query(_NOBODY[0], index=(index, *keys)), None))

    def write(self, action: str, table: str) -> Verdict:
        key = _key(*_NOBODY)
        never = {"TableName": table, "ConditionExpression": _NEVER}
        calls: dict[str, Callable[[], Any]] = {
            "PutItem": lambda: self._dynamodb.put_item(Item=key, **never),
            "DeleteItem": lambda: self._dynamodb.delete_item(Key=key, **never),
            "UpdateItem": lambda: self._dynamodb.update_item(Key=key, UpdateExpression="SET n = pk", **never),
            "ConditionCheckItem": lambda: self._dynamodb.transact_write_items(
                TransactItems=[{"ConditionCheck": {"Key": key, **never}}]
            ),
            # It takes no condition. Deleting what is not there changes nothing.
            "BatchWriteItem": lambda: self._dynamodb.batch_write_item(
                RequestItems={table: [{"DeleteRequest": {"Key": key}}]}
            ),
        }
        if action in calls:
            return tried(calls[action], _HELD)
        where = 'WHERE "pk" = ? AND "sk" = ? AND "run" = \'nobody\''
        if action == "PartiQLUpdate":
            return self._statement(f'UPDATE "{table}" SET "n" = 0 {where}', key)
        if action == "PartiQLDelete":
            return self._statement(f'DELETE FROM "{table}" {where}', key)
        return self._insert(table)

    def _insert(self, table: str) -> Verdict:
        """By inserting an item that is there: it takes no condition but that."""
        found: list[dict[str, Any]] = []
        verdict = tried(lambda: found.extend(self._dynamodb.scan(TableName=table, Limit=100)["Items"]))
        # Leases and what is under way come and go; nothing else is deleted.
        lasting = [each for each in found if each["pk"]["S"] != "lease" and each["sk"]["S"] != "moving"]
        if not lasting:
            why = verdict[1] or f"{table} has no item yet that it could be tried on"
            return None, why
        return self._statement(f"INSERT INTO \"{table}\" VALUE {{'pk': ?, 'sk': ?}}", lasting[0])

    def _statement(self, statement: str, key: dict[str, Any]) -> Verdict:
        one = {"Statement": statement, "Parameters": [key["pk"], key["sk"]]}
        answers: list[dict[str, Any]] = []
        verdict = tried(lambda: answers.extend(self._dynamodb.batch_execute_statement(Statements=[one])["Responses"]))
        if not answers or "Error" not in answers[0]:
            return verdict
        error = answers[0]["Error"]
        refused = Refused(error.get("Message", ""), code=error["Code"])
        return verdict_of(refused, _HELD | _DUPLICATE)


class Queues:
    """Tries the queues with a receipt that no message has, so nothing happens to any."""

    def __init__(self, deployed: DeployedStack) -> None:
        self._sqs: Any = deployed.clients.client("sqs")

    def settle(self, action: str, url: str) -> Verdict:
        if action == "ReceiveMessage":  # visible again at once
            return tried(lambda: self._sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, WaitTimeSeconds=0))
        of = {"QueueUrl": url, "ReceiptHandle": _NO_RECEIPT}
        if action == "DeleteMessage":
            return tried(lambda: self._sqs.delete_message(**of), _RECEIPT)
        return tried(lambda: self._sqs.change_message_visibility(VisibilityTimeout=0, **of), _RECEIPT)


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def tried(call: Callable[[], Any], proofs: Set[str] = frozenset()) -> Verdict:
    """What a call's answer says: an answer, or a refusal for a reason that comes behind permission, proves it."""
    try:
        with translated("AWS"):
            call()
    except Refused as error:
        return verdict_of(error, proofs)
    except StoreError as error:
        return None, error.message
    return True, ""


def verdict_of(error: Refused, proofs: Set[str]) -> Verdict:
    if error.code in proofs:
        return True, ""
    return (False if denied(error) else None), error.message
