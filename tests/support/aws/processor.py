"""The processor function without Lambda: a process that hands it what the queue holds, as an event source mapping does.

For tests that make a stack by hand; those that deploy the real template need none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pik.lambdas import processor
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import Stack, stack_of

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

NOTICED = 0.01
"""In the place of generation.NOTICED, here and for commands beside it: seconds until it looks again for changes."""

CONTEXT = SimpleNamespace(
    function_name="processor",
    memory_limit_in_mb=1024,
    invoked_function_arn="arn:aws:lambda:eu-central-1:000000000000:function:processor",
    aws_request_id="request",
)


def environment(stack: Stack) -> dict[str, str]:
    """What the template tells the stack's functions."""
    named = {f"PIK_{field.name.upper()}": getattr(stack, field.name) for field in fields(stack) if field.name != "name"}
    return {"PIK_STACK": stack.name, **named}


@contextmanager
def processing(stack: Stack, directory: Path) -> Iterator[None]:
    """The stack has a processor meanwhile; what it logs is in `directory`."""
    with (
        open(directory / "processor.log", "wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.aws.processor"],
            cwd=Path(__file__).resolve().parents[3],
            env={**os.environ, **environment(stack)},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def process_once(sqs: SQSClient, url: str) -> bool:
    """Hand the processor what is on the queue now; false if that is nothing."""
    answer = sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=10,
        VisibilityTimeout=60,
        WaitTimeSeconds=0,
        MessageSystemAttributeNames=["ApproximateReceiveCount"],
    )
    messages = answer.get("Messages", [])
    if messages:
        processor.handler({"Records": [_record(message) for message in messages]}, CONTEXT)
    return bool(messages)


def _record(message: MessageTypeDef) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
    }


if __name__ == "__main__":
    generation.NOTICED = NOTICED
    mine = Clients().client("sqs")
    while True:
        if not process_once(mine, stack_of(os.environ).queue_url):
            time.sleep(0.05)
