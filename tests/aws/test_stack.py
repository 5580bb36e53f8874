"""`pik stack status`: what is wrong with a stack is said, and so is what cannot be known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

import pik as package
from pik.ports.remote import Depth
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.stores.aws.deployed_stack import ALARMS, FUNCTIONS, SOURCE, DeployedStack, describe_stack
from pik.usecases.care.deployment import StackStatus, status
from tests.cli.conftest import pik
from tests.support.aws.bare import deploy_bare
from tests.support.aws.emulator import REGION
from tests.support.aws.template import properties, resources, template

__all__ = ["pik"]


@pytest.fixture
def look(aws: Clients, tmp_path) -> Callable[..., StackStatus]:
    """The status of a stack, as it is now; seen through other clients, if they are given."""

    def store() -> Store:
        return open_store(str(tmp_path / "store"), create=True)

    def look(deployed: DeployedStack, clients: Clients = aws) -> StackStatus:
        return status(describe_stack(clients, deployed.stack.name), store)

    return look


def hook(clients: Clients, service: str, operation: str, change: Callable[[Any], object]) -> None:
    """Change the answers of an operation, which the emulator gives otherwise."""
    events = clients.client(service).meta.events
    events.register(f"after-call.{service}.{operation}", lambda parsed, **_: change(parsed))


def deny(clients: Clients, service: str, operation: str) -> None:
    """The emulator of most tests evaluates no policies, so the denial is put in at the client's edge."""
    refuse(clients, service, operation, f"no {operation} for you")


def refuse(clients: Clients, service: str, operation: str, message: str) -> None:
    """Deny every call of an operation, with AWS's message."""

    def answer(**_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, operation)

    clients.client(service).meta.events.register(f"before-call.{service}.{operation}", answer)


def test_the_names_are_those_of_the_template() -> None:
    assert set(ALARMS) == set(resources("AWS::CloudWatch::Alarm"))
    assert set(FUNCTIONS) == set(resources("AWS::Serverless::Function"))
    assert set(resources("AWS::Lambda::EventSourceMapping")) == {SOURCE, "RecorderSource"}
    assert set(FUNCTIONS) <= set(template()["Outputs"])
    assert properties(SOURCE)["FunctionName"] == FUNCTIONS[-1]


def test_a_stack_that_is_well(stack, look) -> None:
    found = look(stack)
    assert (found.unhealthy, found.unknown) == ([], [])
    assert {part.name for part in found.parts if part.healthy} == {part.name for part in found.parts}
    assert {*FUNCTIONS, "stack", "processor", "recorder", "buffered requests", "dry run", "version"} <= {
        part.name for part in found.parts
    }
    assert found.depth == Depth(0, 0, 0, 0, None)
    assert found.alarms is not None
    assert len(found.alarms) == len(ALARMS)
    assert found.deployment.outputs["RawBucket"] == stack.stack.raw_bucket
    assert found.metrics is not None
    assert [metric.name for metric in found.metrics] == ["event_count"]


def kill(clients: Clients, stack: DeployedStack) -> None:
    clients.client("lambda").update_event_source_mapping(UUID=stack.resource(SOURCE), Enabled=False)


def stop_recording(clients: Clients, stack: DeployedStack) -> None:
    clients.client("lambda").update_event_source_mapping(UUID=stack.resource("RecorderSource"), Enabled=False)


def lose_request(clients: Clients, stack: DeployedStack) -> None:
    clients.client("sqs").send_message(QueueUrl=stack.resource("IngestDeadLetterQueue"), MessageBody="{}")


def unprotect(clients: Clients, stack: DeployedStack) -> None:
    clients.client("dynamodb").update_table(TableName=stack.stack.state_table, DeletionProtectionEnabled=False)


def stop_backups(clients: Clients, stack: DeployedStack) -> None:
    clients.client("dynamodb").update_continuous_backups(
        TableName=stack.stack.index_table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
    )


def bury(clients: Clients, stack: DeployedStack) -> None:
    clients.client("sqs").send_message(QueueUrl=stack.stack.dead_letter_queue_url, MessageBody="{}")


def ring(clients: Clients, stack: DeployedStack) -> None:
    clients.client("cloudwatch").set_alarm_state(
        AlarmName=stack.resource("LagAlarm"), StateValue="ALARM", StateReason="p99 is 2 h"
    )


def fail_update(clients: Clients, _stack: DeployedStack) -> None:
    failed = {"State": "Active", "LastUpdateStatus": "Failed", "LastUpdateStatusReason": "no such layer"}
    hook(clients, "lambda", "GetFunctionConfiguration", lambda parsed: parsed.update(failed))


def roll_back(clients: Clients, _stack: DeployedStack) -> None:
    def change(parsed: Any) -> None:
        for each in parsed.get("Stacks", ()):
            each["StackStatus"] = "UPDATE_ROLLBACK_COMPLETE"

    hook(clients, "cloudformation", "DescribeStacks", change)


def fill_index(clients: Clients, _stack: DeployedStack) -> None:
    def change(parsed: Any) -> None:
        for each in parsed["Table"].get("GlobalSecondaryIndexes", []):
            each["IndexStatus"] = "CREATING"

    hook(clients, "dynamodb", "DescribeTable", change)


SEEN = {fail_update, roll_back, fill_index}
"""What the emulator cannot be made to do is put into its answers."""


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (kill, "processor is Disabled: the kill switch is thrown (not by EnableProcessor, which is true)"),
        (stop_recording, "recorder is Disabled: buffered requests wait in the queue, which keeps them for 14 days"),
        (
            lose_request,
            "buffered requests: 0 waiting, 0 in flight; 1 could not be recorded: docs/http.md, Dead letters",
        ),
        (stop_backups, "point-in-time recovery of {index_table} is off: nothing is backed up"),
        (bury, "1 dead letter"),
        (ring, "alarm {name}-LagAlarm-"),
        (fail_update, "IngestFunction is Active: its last update failed: no such layer"),
        (roll_back, "stack is UPDATE_ROLLBACK_COMPLETE"),
        (fill_index, "table {state_table} is ACTIVE: its index by_bucket is CREATING"),
    ],
)
def test_what_is_wrong_is_reported(aws, stack, look, harm, said: str) -> None:
    clients = Clients(REGION) if harm in SEEN else aws
    harm(clients, stack)
    found = look(stack, clients)
    expected = said.format(
        name=stack.stack.name, state_table=stack.stack.state_table, index_table=stack.stack.index_table
    )
    assert [one for one in found.unhealthy if one.startswith(expected)], found.unhealthy


def test_dlq_list_says_that_a_buffered_request_is_in_the_other_queue(pik, aws, stack) -> None:
    url = f"aws://{stack.stack.name}"
    assert pik("dlq", "list", "--store", url).out.split() == "no dead letters of replay tasks lost requests 0".split()
    lose_request(aws, stack)
    found = pik("dlq", "list", "--store", url)
    assert " ".join(found.out.split()) == (
        "no dead letters of replay tasks lost requests 1 buffered request could not be recorded, in another queue:"
        " docs/http.md, Dead letters"
    )
    assert pik("dlq", "list", "--store", url, "--format", "json").json()["lost_requests"] == 1


@pytest.mark.parametrize("one", ["01M8B719WA97JXMA9PQ3V1DB5E", "7c2f5a3e-8d41-4b0a-9a66-0f1c5d2e9b84"])
def test_a_buffered_request_that_has_no_batch_yet_may_wait_in_the_queue(pik, stack, one: str) -> None:
    found = pik("batches", one, "--store", f"aws://{stack.stack.name}")
    assert (found.code, "while it waits in the queue; how many do: pik --store" in found.err) == (4, True), found
    short = pik("batches", one[:8], "--store", f"aws://{stack.stack.name}")
    assert (short.code, "queue" in short.err) == (4, False)


def test_a_table_without_deletion_protection_is_healthy_and_the_step_is_shown(aws, stack, look) -> None:
    unprotect(aws, stack)
    found = look(stack)
    (part,) = (one for one in found.parts if one.name == f"deletion protection of {stack.stack.state_table}")
    assert (found.unhealthy, part.state) == ([], "off")
    assert part.detail.endswith(f"--table-name {stack.stack.state_table} --deletion-protection-enabled")


def test_buffered_requests_that_wait_are_counted(aws, stack, look) -> None:
    stop_recording(aws, stack)
    sqs, url = aws.client("sqs"), stack.resource("IngestQueue")
    for _ in range(3):
        sqs.send_message(QueueUrl=url, MessageBody="{}")
    sqs.receive_message(QueueUrl=url)
    (part,) = (one for one in look(stack).parts if one.name == "buffered requests")
    assert (part.state, part.healthy) == ("2 waiting, 1 in flight", True)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ({"DryRun": "true"}, "dry run is on: functions write and send nothing"),
        ({"EnableProcessor": "false"}, "processor is Disabled: the kill switch is thrown (EnableProcessor is false)"),
    ],
)
def test_what_a_parameter_switches_off_is_reported(aws, look, parameter, said: str) -> None:
    found = look(deploy_bare(aws, f"pik-{uuid4().hex[:8]}", **parameter))
    assert [one for one in found.unhealthy if one.startswith(said)], found.unhealthy


def test_a_stack_of_another_version_is_reported(stack, look, monkeypatch) -> None:
    monkeypatch.setattr("pik.usecases.care.deployment.__version__", "9.0.0")
    assert look(stack).unhealthy == [f"version is {package.__version__}: this pik is 9.0.0: deploy it, or use that"]


@pytest.mark.parametrize(
    ("service", "operation", "unknown"),
    [
        ("lambda", "GetFunctionConfiguration", [*FUNCTIONS]),
        ("lambda", "GetEventSourceMapping", ["processor", "recorder"]),
        ("cloudformation", "ListStackResources", ["processor", "recorder", "buffered requests", "alarms"]),
        ("dynamodb", "DescribeTable", ["table ", "deletion protection of "]),
        ("dynamodb", "DescribeContinuousBackups", ["point-in-time recovery of "]),
        ("s3", "HeadBucket", ["bucket "]),
        ("sqs", "GetQueueAttributes", ["queues", "buffered requests"]),
        ("cloudwatch", "DescribeAlarms", ["alarms"]),
    ],
)
def test_promise_9_what_cannot_be_known_is_reported(own, stack, look, service, operation, unknown) -> None:
    deny(own, service, operation)
    found = look(stack, own)
    assert found.unhealthy == []
    assert all(f"no {operation} for you" in one for one in found.unknown)
    for name in unknown:
        assert [one for one in found.unknown if name in one], (name, found.unknown)


def test_a_store_that_cannot_be_read_hides_its_batches_and_nothing_else(stack) -> None:
    found = status(stack, lambda: open_store("./no-such-store"))
    (unknown,) = found.unknown
    assert unknown.startswith("last batches, metrics, rebuild of the index: no store at ")
    assert (found.batches, found.metrics, found.unhealthy) == (None, None, [])


def test_what_waits_is_counted_and_its_age_is_known_once_cloudwatch_knows_it(aws, stack, look) -> None:
    """The emulator reports no ages of its own."""
    kill(aws, stack)
    sqs, url = aws.client("sqs"), stack.stack.queue_url
    for delay in (0, 0, 0, 900):
        sqs.send_message(QueueUrl=url, MessageBody="{}", DelaySeconds=delay)
    sqs.receive_message(QueueUrl=url)
    hidden = "CloudWatch has no value of the last 15 minutes"
    found = look(stack)
    assert found.depth == Depth(2, 1, 1, 0, None, hidden)
    assert found.unknown == [f"age of the oldest task: {hidden}"]

    dimension = {"Name": "QueueName", "Value": stack.queue}
    datum = {"MetricName": "ApproximateAgeOfOldestMessage", "Dimensions": [dimension], "Value": 1234.0}
    aws.client("cloudwatch").put_metric_data(
        Namespace="AWS/SQS", MetricData=[{**datum, "Timestamp": datetime.now(UTC)}]
    )
    found = look(stack)
    assert found.depth == Depth(2, 1, 1, 0, 1234)
    assert found.unknown == []


def test_looking_takes_no_task_and_no_letter(aws, stack, look) -> None:
    kill(aws, stack)
    for url in (stack.stack.queue_url, stack.stack.dead_letter_queue_url):
        aws.client("sqs").send_message(QueueUrl=url, MessageBody="{}")
    assert look(stack).depth == look(stack).depth
    for url in (stack.stack.queue_url, stack.stack.dead_letter_queue_url):
        (message,) = aws.client("sqs").receive_message(
            QueueUrl=url, MessageSystemAttributeNames=["ApproximateReceiveCount"]
        )["Messages"]
        assert message["Attributes"]["ApproximateReceiveCount"] == "1"


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_a_local_store_has_no_stack(pik, command: str) -> None:
    refused = pik("stack", command)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        "error: ./.pik is a local store, and has no stack\n"
        "hint: --store aws://STACK; `pik status` and `pik verify` look at a local store\n"
    )


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_there_is_no_such_stack(pik, aws, command: str) -> None:
    refused = pik("stack", command, "--store", "aws://nobody")
    assert (refused.code, refused.out) == (4, "")
    assert refused.err.startswith("error: there is no stack nobody in this account in eu-central-1\n")
