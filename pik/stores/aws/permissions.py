"""What the caller may do, told by trying: calls that are allowed or denied like the real ones, and change nothing.

A write is tried under a condition that can never hold, so AWS denies it or finds that the condition does not hold. What
cannot be tried without changing something (sending a message, deleting an object) is simulated by IAM, if the caller
may ask it. IAM's simulation does not see everything that decides (session policies, bucket policies), so what can be
tried is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from pik.errors import StoreError
from pik.ports.stack import Permission
from pik.stores.aws.clients import Client
from pik.stores.aws.deployed import ALARMS, FUNCTIONS, SOURCE, Deployed
from pik.stores.aws.errors import Refused, briefly, denied
from pik.stores.aws.table import Table

READING, REPLAYING, ADMINISTERING = "reading", "replaying", "administering"
INSPECTING, PRODUCING = "inspecting", "producing"
LEVELS = (READING, REPLAYING, ADMINISTERING, INSPECTING, PRODUCING)
"""As docs/iam.md calls them: each of the first three comes with those before it."""

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
_UNSET = {
    "NoSuchBucketPolicy",
    "NoSuchPublicAccessBlockConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "ResourceNotFoundException",
}
"""What is not there, or not set, was allowed to be asked for."""

Verdict = tuple[bool | None, str]
"""Whether it is allowed (None: cannot be told), and why, unless it is."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One permission: who needs it, IAM's action, on what, and how to try it (None: only simulated)."""

    level: str
    action: str
    resource: str
    attempt: Callable[[], Verdict] | None


def permissions(deployed: Deployed) -> Iterator[Permission]:
    """Try everything, or have it simulated."""
    simulation = _Simulation(deployed)
    for one in probes(deployed):
        how = "tried"
        allowed, detail = one.attempt() if one.attempt is not None else (None, "it cannot be tried without a trace")
        if allowed is None:
            how = "simulated"
            allowed, reason = simulation.ask(one.action, one.resource)
            detail = f"{detail}, and {reason}" if allowed is None else reason
        told = "" if allowed is None else how
        forbidden = allowed is False and ("explicit deny" in detail or "explicitDeny" in detail)
        yield Permission(one.level, one.action, one.resource, allowed, told, detail, forbidden)


def probes(deployed: Deployed) -> Iterator[Probe]:
    """Every permission of every level, in the order of LEVELS."""
    names = _Arns(deployed)
    objects, tables, queues = _Objects(deployed), _Tables(deployed), _Queues(deployed)
    stack = deployed.stack
    both = (stack.index_table, stack.state_table)
    yield Probe(READING, "cloudformation:DescribeStacks", names.stack, lambda: (True, ""))
    for prefix in ("raw", "index"):
        yield Probe(READING, "s3:GetObject", names.objects(prefix), partial(objects.get, prefix))
    yield Probe(READING, "s3:ListBucket", names.bucket, lambda: objects.list("raw")[1])
    for action in ("BatchGetItem", "GetItem", "Query", "Scan"):
        for table in both:
            arn = names.table(table)
            yield Probe(READING, f"dynamodb:{action}", arn, partial(tables.read, action, table))
    for table, index in ((stack.index_table, "by_event"), (stack.state_table, "by_bucket")):
        arn = names.table(f"{table}/index/{index}")
        yield Probe(READING, "dynamodb:Query", arn, partial(tables.query_index, table, index))
    for action in ("ChangeMessageVisibility", "ReceiveMessage"):
        arn, url = names.queue(deployed.dead_letters), stack.dead_letter_queue_url
        yield Probe(READING, f"sqs:{action}", arn, partial(queues.settle, action, url))

    for action in (*_WRITES, "PartiQLUpdate", "PartiQLDelete"):
        arn = names.table(stack.state_table)
        yield Probe(REPLAYING, f"dynamodb:{action}", arn, partial(tables.write, action, stack.state_table))
    yield Probe(REPLAYING, "sqs:SendMessage", names.queue(deployed.queue), None)
    arn, url = names.queue(deployed.dead_letters), stack.dead_letter_queue_url
    yield Probe(REPLAYING, "sqs:DeleteMessage", arn, partial(queues.settle, "DeleteMessage", url))

    for prefix in ("raw", "index"):
        yield Probe(ADMINISTERING, "s3:PutObject", names.objects(prefix), partial(objects.put, prefix))
    yield Probe(ADMINISTERING, "s3:DeleteObject", names.objects("index"), None)
    for action in _WRITES:
        arn = names.table(stack.index_table)
        yield Probe(ADMINISTERING, f"dynamodb:{action}", arn, partial(tables.write, action, stack.index_table))
    yield Probe(ADMINISTERING, "sqs:SendMessage", names.queue(deployed.dead_letters), None)
    for action in ("ChangeMessageVisibility", "DeleteMessage"):
        arn, url = names.queue(deployed.queue), stack.queue_url
        yield Probe(ADMINISTERING, f"sqs:{action}", arn, partial(queues.settle, action, url))
    # Receiving counts as an attempt, and the last one buries the task.
    yield Probe(ADMINISTERING, "sqs:ReceiveMessage", names.queue(deployed.queue), None)

    yield from _inspecting(deployed, names)
    yield Probe(PRODUCING, "execute-api:Invoke", names.api, None)


def _inspecting(deployed: Deployed, names: _Arns) -> Iterator[Probe]:
    """The calls of `pik stack` itself, as it makes them."""

    def probe(action: str, resource: str, service: str, operation: str, **parameters: Any) -> Probe:
        client = deployed.clients.client(service)
        call = partial(getattr(client, operation), **parameters)
        return Probe(INSPECTING, action, resource, partial(_tried, call, _UNSET))

    stack = deployed.stack
    action, operation = "cloudformation:ListStackResources", "list_stack_resources"
    yield probe(action, names.stack, "cloudformation", operation, StackName=stack.name)
    for name in FUNCTIONS:
        called = deployed.outputs.get(name, name)
        action, operation = "lambda:GetFunctionConfiguration", "get_function_configuration"
        yield probe(action, names.function(called), "lambda", operation, FunctionName=called)
    source, action = _source(deployed), "lambda:GetEventSourceMapping"
    of = source or "00000000-0000-0000-0000-000000000000"
    yield probe(action, names.source(source or "*"), "lambda", "get_event_source_mapping", UUID=of)
    for url in (stack.queue_url, stack.dead_letter_queue_url):
        arn, operation = names.queue(url.rpartition("/")[2]), "get_queue_attributes"
        yield probe("sqs:GetQueueAttributes", arn, "sqs", operation, QueueUrl=url, AttributeNames=["QueueArn"])
    for action, operation in (
        ("DescribeTable", "describe_table"),
        ("DescribeContinuousBackups", "describe_continuous_backups"),
    ):
        for table in (stack.index_table, stack.state_table):
            yield probe(f"dynamodb:{action}", names.table(table), "dynamodb", operation, TableName=table)
    for action, operation in _SETTINGS.items():
        yield probe(f"s3:{action}", names.bucket, "s3", operation, Bucket=stack.raw_bucket)
    alarms = [f"{stack.name}-{ALARMS[0]}"]
    yield probe("cloudwatch:DescribeAlarms", names.alarms, "cloudwatch", "describe_alarms", AlarmNames=alarms)
    yield Probe(INSPECTING, "cloudwatch:GetMetricData", "*", lambda: _metrics(deployed.clients.client("cloudwatch")))


_WRITES = ("BatchWriteItem", "ConditionCheckItem", "DeleteItem", "PartiQLInsert", "PutItem", "UpdateItem")

_SETTINGS = {
    "GetBucketObjectLockConfiguration": "get_object_lock_configuration",
    "GetBucketPolicy": "get_bucket_policy",
    "GetBucketPublicAccessBlock": "get_public_access_block",
    "GetBucketVersioning": "get_bucket_versioning",
    "GetEncryptionConfiguration": "get_bucket_encryption",
}


def _metrics(client: Client) -> Verdict:
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    metric = {"Namespace": "AWS/SQS", "MetricName": "ApproximateAgeOfOldestMessage"}
    query = {"Id": "age", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}
    hour = {"StartTime": now - timedelta(hours=1), "EndTime": now}
    return _tried(lambda: client.get_metric_data(MetricDataQueries=[query], **hour))


def _source(deployed: Deployed) -> str:
    """The id of the event source mapping; empty if it is not known."""
    try:
        return deployed.resource(SOURCE)
    except StoreError:
        return ""


class _Arns:
    """The stack's resources as policies name them."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed
        self.stack = f"{deployed.arn.rpartition('/')[0]}/*"
        self.bucket = f"arn:{deployed.partition}:s3:::{deployed.stack.raw_bucket}"
        self.alarms = self._arn("cloudwatch", "alarm:*")
        api, _, stage = deployed.stack.api_url.removeprefix("https://").partition(".")
        self.api = self._arn("execute-api", f"{api or 'API_ID'}/{stage.rpartition('/')[2] or 'v1'}/POST/ingest")

    def _arn(self, service: str, name: str) -> str:
        here = self._deployed
        return f"arn:{here.partition}:{service}:{here.region}:{here.account}:{name}"

    def objects(self, prefix: str) -> str:
        return f"{self.bucket}/{prefix}/*"

    def table(self, name: str) -> str:
        return self._arn("dynamodb", f"table/{name}")

    def queue(self, name: str) -> str:
        return self._arn("sqs", name)

    def function(self, name: str) -> str:
        return self._arn("lambda", f"function:{name}")

    def source(self, name: str) -> str:
        return self._arn("lambda", f"event-source-mapping:{name}")


class _Objects:
    """Tries the bucket. Below each prefix the smallest of the first objects, if there is any, is what it reads."""

    def __init__(self, deployed: Deployed) -> None:
        self._s3, self._bucket = deployed.clients.client("s3"), deployed.stack.raw_bucket

    def list(self, prefix: str) -> tuple[str | None, Verdict]:
        """The key of a small object, if one is found; and whether listing is allowed."""
        found: dict[str, Any] = {}
        verdict = _tried(
            lambda: found.update(self._s3.list_objects_v2(Bucket=self._bucket, Prefix=f"{prefix}/", MaxKeys=100))
        )
        small = [each for each in found.get("Contents", ()) if 0 < each["Size"] <= _SMALL]
        return (min(small, key=lambda each: each["Size"])["Key"] if small else None), verdict

    def get(self, prefix: str) -> Verdict:
        key, (listing, _) = self.list(prefix)
        of = {"Bucket": self._bucket, "Key": key or f"{prefix}/{_MISSING_KEY}"}
        allowed, detail = _tried(lambda: self._s3.get_object(**of, Range="bytes=0-0"), _ABSENT)
        if allowed is False and key is None and not listing:
            return None, "without s3:ListBucket S3 denies what is not there, and no object is known to be"
        return allowed, detail

    def put(self, prefix: str) -> Verdict:
        """By creating an object that is there, with the bytes that it has: refused, and harmless where it is not."""
        key, _ = self.list(prefix)
        if key is None:
            return None, f"below {prefix}/ there is no small object yet that it could be tried on"
        try:
            data = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except StoreError as error:
            return None, f"it is tried on an object that can be read: {error.message}"
        of = {"Bucket": self._bucket, "Key": key, "Body": data, "IfNoneMatch": "*", "ChecksumAlgorithm": "SHA256"}
        written: list[Any] = []
        verdict = _tried(lambda: written.append(self._s3.put_object(**of)), _EXISTS)
        if written:
            raise StoreError(
                f"this S3 wrote {key} again, with the bytes that it had, although If-None-Match forbids that",
                hint="raw would not be create-only there: use an S3 that knows conditional writes",
            )
        return verdict


class _Tables:
    """Tries the tables."""

    def __init__(self, deployed: Deployed) -> None:
        self._clients = deployed.clients
        self._dynamodb = deployed.clients.client("dynamodb")

    def read(self, action: str, table: str) -> Verdict:
        key = _key(*_NOBODY)
        calls: dict[str, Callable[[], Any]] = {
            "GetItem": lambda: self._dynamodb.get_item(TableName=table, Key=key),
            "BatchGetItem": lambda: self._dynamodb.batch_get_item(RequestItems={table: {"Keys": [key]}}),
            "Query": lambda: next(Table(self._clients, table).query(_NOBODY[0]), None),
            "Scan": lambda: self._dynamodb.scan(TableName=table, Limit=1),
        }
        return _tried(calls[action])

    def query_index(self, table: str, index: str) -> Verdict:
        keys = {"by_event": ("event_prefix", "event_id"), "by_bucket": ("bucket_key", "version_key")}[index]
        return _tried(lambda: next(Table(self._clients, table).query(_NOBODY[0], index=(index, *keys)), None))

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
            return _tried(calls[action], _HELD)
        where = 'WHERE "pk" = ? AND "sk" = ? AND "run" = \'nobody\''
        if action == "PartiQLUpdate":
            return self._statement(f'UPDATE "{table}" SET "n" = 0 {where}', key)
        if action == "PartiQLDelete":
            return self._statement(f'DELETE FROM "{table}" {where}', key)
        return self._insert(table)

    def _insert(self, table: str) -> Verdict:
        """By inserting an item that is there: it takes no condition but that."""
        found: list[dict[str, Any]] = []
        verdict = _tried(lambda: found.extend(self._dynamodb.scan(TableName=table, Limit=100)["Items"]))
        # Leases and what is under way come and go; nothing else is deleted.
        lasting = [each for each in found if each["pk"]["S"] != "lease" and each["sk"]["S"] != "moving"]
        if not lasting:
            why = verdict[1] or f"{table} has no item yet that it could be tried on"
            return None, why
        return self._statement(f"INSERT INTO \"{table}\" VALUE {{'pk': ?, 'sk': ?}}", lasting[0])

    def _statement(self, statement: str, key: dict[str, Any]) -> Verdict:
        one = {"Statement": statement, "Parameters": [key["pk"], key["sk"]]}
        answers: list[dict[str, Any]] = []
        verdict = _tried(lambda: answers.extend(self._dynamodb.batch_execute_statement(Statements=[one])["Responses"]))
        if not answers or "Error" not in answers[0]:
            return verdict
        error = answers[0]["Error"]
        refused = Refused(error.get("Message", ""), code=error["Code"])
        return _verdict(refused, _HELD | _DUPLICATE)


class _Queues:
    """Tries the queues with a receipt that no message has, so nothing happens to any."""

    def __init__(self, deployed: Deployed) -> None:
        self._sqs = deployed.clients.client("sqs")

    def settle(self, action: str, url: str) -> Verdict:
        if action == "ReceiveMessage":  # visible again at once
            return _tried(lambda: self._sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, WaitTimeSeconds=0))
        of = {"QueueUrl": url, "ReceiptHandle": _NO_RECEIPT}
        if action == "DeleteMessage":
            return _tried(lambda: self._sqs.delete_message(**of), _RECEIPT)
        return _tried(lambda: self._sqs.change_message_visibility(VisibilityTimeout=0, **of), _RECEIPT)


class _Simulation:
    """What IAM says that the caller's policies allow, if the caller may ask."""

    def __init__(self, deployed: Deployed) -> None:
        self._clients = deployed.clients
        self._caller = ""
        self._why = ""

    def ask(self, action: str, resource: str) -> Verdict:
        if not self._caller and not self._why:
            self._identify()
        if self._why:
            return None, self._why
        try:
            answer = self._clients.client("iam").simulate_principal_policy(
                PolicySourceArn=self._caller, ActionNames=[action], ResourceArns=[resource]
            )
        except StoreError as error:
            self._why = f"IAM does not tell: {briefly(error)}"
            return None, self._why
        decision = answer["EvaluationResults"][0]["EvalDecision"]
        return decision == "allowed", "" if decision == "allowed" else f"IAM's simulation says {decision}"

    def _identify(self) -> None:
        try:
            arn = self._clients.client("sts").get_caller_identity()["Arn"]
        except StoreError as error:
            self._why = f"who asks is not known: {error.message}"
            return
        if arn.endswith(":root"):
            self._why = "IAM simulates no root user"
        role = re.fullmatch(r"(arn:[^:]+):sts::(\d+):assumed-role/([^/]+)/.*", arn)
        self._caller = f"{role[1]}:iam::{role[2]}:role/{role[3]}" if role else arn


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _tried(call: Callable[[], Any], proofs: Set[str] = frozenset()) -> Verdict:
    """What a call's answer says: an answer, or a refusal for a reason that comes behind permission, proves it."""
    try:
        call()
    except Refused as error:
        return _verdict(error, proofs)
    except StoreError as error:
        return None, error.message
    return True, ""


def _verdict(error: Refused, proofs: Set[str]) -> Verdict:
    if error.code in proofs:
        return True, ""
    return (False if denied(error) else None), error.message
