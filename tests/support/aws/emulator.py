"""MiniStack, an emulator that really behaves, as a process of its own; and the resources of a stack, made by hand.

One process serves a whole test session (of each worker); each test has resources of its own, under names of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Final
from uuid import uuid4

from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import Stack, output_name

PROGRAM = Path(__file__).resolve().parents[3] / ".venv-ministack/bin/ministack"
REGION: Final = "eu-central-1"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Beside AWS_ENDPOINT_URL: what the tools of AWS want to know."""


@contextmanager
def ministack(directory: Path, **environment: str) -> Iterator[str]:
    """The URL of a running emulator, which keeps its files in `directory` and ends with the context."""
    port = free_port()
    settings = {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "LAMBDA_EXECUTOR": "local",
        "IOT_MTLS_ENABLED": "0",  # its listener would ignore BIND_HOST
        "TMPDIR": str(directory),
    }
    with (
        open(directory / "ministack.log", "wb") as log,
        subprocess.Popen(
            [PROGRAM],
            cwd=directory,
            env={**os.environ, **settings, **environment},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            _wait(process, port, directory)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def _wait(process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
    for _ in range(600):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, (directory / "ministack.log").read_text()
        time.sleep(0.1)
    raise AssertionError("the emulator does not answer")


def make_stack(clients: Clients) -> Stack:
    """A bucket, two tables and two queues like the template's, without the template."""
    name = f"pik-{uuid4().hex[:12]}"
    s3, dynamodb, sqs = clients.client("s3"), clients.client("dynamodb"), clients.client("sqs")
    s3.create_bucket(Bucket=f"{name}-raw", CreateBucketConfiguration={"LocationConstraint": REGION})
    _table(dynamodb, f"{name}-index", "by_event", "event_prefix", "event_id", "KEYS_ONLY")
    _table(dynamodb, f"{name}-state", "by_bucket", "bucket_key", "version_key", "ALL")
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


def _table(dynamodb, name, index, hash_key, range_key, projection):
    keys = [("pk", "HASH"), ("sk", "RANGE")]
    of_index = [(hash_key, "HASH"), (range_key, "RANGE")]
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key, _ in keys + of_index],
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys],
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": [{"AttributeName": key, "KeyType": kind} for key, kind in of_index],
                "Projection": {"ProjectionType": projection},
            }
        ],
    )
