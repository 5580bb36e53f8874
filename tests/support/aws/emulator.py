"""MiniStack for a test session, and the resources of a stack, made by hand.

One process serves a whole test session (of each worker); each test has resources of its own, under names of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from uuid import uuid4

from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import Stack, output_name
from tools.ministack import ENVIRONMENT, REGION, free_port, start

__all__ = ["ENVIRONMENT", "REGION", "free_port", "make_stack", "ministack", "publish"]


@contextmanager
def ministack(directory: Path, **environment: str) -> Iterator[str]:
    """The URL of a running emulator, which keeps its files in `directory` and ends with the context."""
    running = start(directory, environment=environment)
    with running.process:
        try:
            yield running.url
        finally:
            running.process.terminate()


def make_stack(clients: Clients) -> Stack:
    """A bucket, two tables and two queues like the template's, without the template."""
    name = f"pik-{uuid4().hex[:12]}"
    s3, dynamodb, sqs = clients.client("s3"), clients.client("dynamodb"), clients.client("sqs")
    s3.create_bucket(Bucket=f"{name}-raw", CreateBucketConfiguration={"LocationConstraint": REGION})
    _table(dynamodb, f"{name}-index")
    _table(dynamodb, f"{name}-state", by_bucket=("bucket_key", "version_key"))
    return Stack(
        name=name,
        raw_bucket=f"{name}-raw",
        index_table=f"{name}-index",
        state_table=f"{name}-state",
        queue_url=sqs.create_queue(QueueName=f"{name}-replay")["QueueUrl"],
        dead_letter_queue_url=sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"],
    )


def publish(clients: Clients, stack: Stack) -> str:
    """The URL of the stack's store: CloudFormation tells its resources as outputs, as if it had made them."""
    names = {field.name: output_name(field.name) for field in fields(Stack) if field.name != "name"}
    outputs = {output: {"Value": getattr(stack, field)} for field, output in names.items() if getattr(stack, field)}
    template = {"Resources": {"Marker": {"Type": "AWS::SQS::Queue"}}, "Outputs": outputs}
    clients.client("cloudformation").create_stack(StackName=stack.name, TemplateBody=json.dumps(template))
    return f"aws://{stack.name}"


def _table(dynamodb, name, **indexes):
    indexed = [
        {"IndexName": index, "KeySchema": _schema(keys), "Projection": {"ProjectionType": "ALL"}}
        for index, keys in indexes.items()
    ]
    named = ["pk", "sk", *(key for keys in indexes.values() for key in keys)]
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in named],
        KeySchema=_schema(("pk", "sk")),
        **({"GlobalSecondaryIndexes": indexed} if indexed else {}),
    )


def _schema(keys):
    return [{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=True)]
