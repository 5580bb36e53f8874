"""What the caller may do, told by trying: calls that are allowed or denied like the real ones, and change nothing.

What cannot be tried without changing something (sending a message, deleting an object) is simulated by IAM, if the
caller may ask it. The simulation does not see everything that decides (session policies, bucket policies), so what can
be tried is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pik.errors import StoreError
from pik.ports.remote import Permission
from pik.stores.aws.clients import briefly, translated
from pik.stores.aws.deployment.probes import Objects, Queues, Tables, Verdict, tried
from pik.stores.aws.deployment.stack import ALARMS, FUNCTIONS, SOURCE, DeployedStack

READING, REPLAYING, ADMINISTERING = "reading", "replaying", "administering"
INSPECTING, PRODUCING = "inspecting", "producing"
LEVELS = (READING, REPLAYING, ADMINISTERING, INSPECTING, PRODUCING)
"""As docs/iam.md calls them: each of the first three comes with those before it."""

_UNSET = {
    "NoSuchBucketPolicy",
    "NoSuchPublicAccessBlockConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "ResourceNotFoundException",
}
"""What is not there, or not set, was allowed to be asked for."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One permission: who needs it, IAM's action, on what, and how to try it (None: only simulated)."""

    level: str
    action: str
    resource: str
    attempt: Callable[[], Verdict] | None


def permissions(deployed: DeployedStack) -> Iterator[Permission]:
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
        # Where a key of one's own encrypts the bucket or a queue, the key may be what is denied.
        of_key = re.search(r"not authorized to perform: (kms:\w+) on resource: (arn:[^\s\"]+)", detail)
        action, resource = of_key.groups() if of_key else (one.action, one.resource)
        yield Permission(one.level, action, resource, allowed, told, detail, forbidden)


def probes(deployed: DeployedStack) -> Iterator[Probe]:
    """Every permission of every level, in the order of LEVELS."""
    names = _Arns(deployed)
    objects, tables, queues = Objects(deployed), Tables(deployed), Queues(deployed)
    stack = deployed.stack
    both = (stack.index_table, stack.state_table)
    yield Probe(READING, "cloudformation:DescribeStacks", names.stack, lambda: (True, ""))
    for prefix in ("raw", "index", "corrections"):
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
    yield Probe(ADMINISTERING, "s3:PutObject", names.objects("corrections"), None)
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


def _inspecting(deployed: DeployedStack, names: _Arns) -> Iterator[Probe]:
    """The calls of `pik stack` itself, as it makes them."""

    def probe(action: str, resource: str, service: str, operation: str, **parameters: Any) -> Probe:
        client: Any = deployed.clients.client(service)
        call = partial(getattr(client, operation), **parameters)
        return Probe(INSPECTING, action, resource, partial(tried, call, _UNSET))

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


def _metrics(client: Any) -> Verdict:
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    metric = {"Namespace": "AWS/SQS", "MetricName": "ApproximateAgeOfOldestMessage"}
    query = {"Id": "age", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}
    hour = {"StartTime": now - timedelta(hours=1), "EndTime": now}
    return tried(lambda: client.get_metric_data(MetricDataQueries=[query], **hour))


def _source(deployed: DeployedStack) -> str:
    """The id of the event source mapping; empty if it is not known."""
    try:
        return deployed.resource(SOURCE)
    except StoreError:
        return ""


class _Arns:
    """The stack's resources as policies name them."""

    def __init__(self, deployed: DeployedStack) -> None:
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


class _Simulation:
    """What IAM says that the caller's policies allow, if the caller may ask."""

    def __init__(self, deployed: DeployedStack) -> None:
        self._clients = deployed.clients
        self._caller = ""
        self._why = ""

    def ask(self, action: str, resource: str) -> Verdict:
        if not self._caller and not self._why:
            self._identify()
        if self._why:
            return None, self._why
        try:
            with translated("iam"):
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
            with translated("sts"):
                arn = self._clients.client("sts").get_caller_identity()["Arn"]
        except StoreError as error:
            self._why = f"who asks is not known: {error.message}"
            return
        if arn.endswith(":root"):
            self._why = "IAM simulates no root user"
        role = re.fullmatch(r"(arn:[^:]+):sts::(\d+):assumed-role/([^/]+)/.*", arn)
        self._caller = f"{role[1]}:iam::{role[2]}:role/{role[3]}" if role else arn
