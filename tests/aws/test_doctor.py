"""`pik stack doctor`: what is missing is named, with what mends it, and nothing is changed by looking."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest

from pik.errors import StoreError
from pik.stores.aws.clients import Clients
from pik.stores.aws.deployment.health import AwsStackHealth
from pik.stores.aws.deployment.permissions import LEVELS, permissions, probes
from pik.stores.aws.deployment.stack import SOURCE, DeployedStack, look_up
from pik.usecases.deployment import Diagnosis, diagnose
from tests.aws.bare import OF_THE_EMULATOR, deploy_bare, grant, make_user
from tests.aws.emulator import ENVIRONMENT, REGION, ministack
from tests.aws.test_iam import policies
from tests.aws.test_stack import refuse

UP_TO = {"reading": 1, "replaying": 2, "administering": 3, "inspecting": 4}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an emulator that evaluates IAM policies."""
    with ministack(tmp_path_factory.mktemp("strict"), AUTH="true") as url:
        yield url


@pytest.fixture(scope="module")
def all_mighty(strict: str) -> Clients:
    """Whoever may do everything there."""
    made = Clients(REGION)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": strict}.items():
            patch.setenv(name, value)
        for service in ("cloudformation", "cloudwatch", "dynamodb", "iam", "lambda", "s3", "sqs"):
            made.client(service)  # with these credentials, before others take their place
    return made


@pytest.fixture
def root(all_mighty: Clients, strict: str, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """The same, and an environment that leads there."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": strict}.items():
        monkeypatch.setenv(name, value)
    return all_mighty


@pytest.fixture
def guarded(root: Clients) -> DeployedStack:
    """A stack there, with something in it."""
    made = deploy_bare(root, f"pik-{uuid4().hex[:8]}", tls=False, EnableProcessor="false")
    for prefix in ("raw", "index"):
        root.client("s3").put_object(Bucket=made.stack.raw_bucket, Key=f"{prefix}/one", Body=b"one", IfNoneMatch="*")
    for table in (made.stack.index_table, made.stack.state_table):
        root.client("dynamodb").put_item(TableName=table, Item={"pk": {"S": "a"}, "sk": {"S": "b"}})
    for url in (made.stack.queue_url, made.stack.dead_letter_queue_url):
        root.client("sqs").send_message(QueueUrl=url, MessageBody="{}")
    return made


WITHOUT_ARN = {
    "Effect": "Allow",
    "Action": ["cloudwatch:DescribeAlarms", "lambda:ListEventSourceMappings"],
    "Resource": "*",
}
"""It does not know these resources, and takes the one mapping for all."""


def names(stack: DeployedStack) -> Mapping[str, str]:
    """The placeholders of docs/iam.md."""
    return {
        "RAW_BUCKET": stack.stack.raw_bucket,
        "INDEX_TABLE": stack.stack.index_table,
        "STATE_TABLE": stack.stack.state_table,
        "DEAD_LETTERS": stack.dead_letters,
        "QUEUE": stack.queue,
        "INGEST_FUNCTION": stack.outputs["IngestFunction"],
        "REPLAY_FUNCTION": stack.outputs["ReplayFunction"],
        "PROCESSOR_FUNCTION": stack.outputs["ProcessorFunction"],
        "SOURCE_ID": stack.resource(SOURCE),
        "API_ID": stack.stack.api_url.removeprefix("https://").partition(".")[0],
        "REGION": stack.region,
        "ACCOUNT": stack.account,
        "STACK": stack.stack.name,
    }


def filled(stack: DeployedStack, level: str) -> list[Any]:
    """The statements of a level, for this stack."""
    text = json.dumps(policies()[level])
    for placeholder, name in names(stack).items():
        text = text.replace(placeholder, name)
    statements: list[Any] = json.loads(text)
    return statements


@pytest.fixture
def somebody(root: Clients, guarded: DeployedStack, monkeypatch) -> Callable[[list[Any]], AwsStackHealth]:
    """What the doctor sees who is asked by a user with a policy of these statements."""
    user = f"ann-{uuid4().hex[:8]}"
    for name, value in make_user(root, user).items():
        monkeypatch.setenv(name, value)

    def granted(statements: list[Any]) -> AwsStackHealth:
        grant(root, user, statements)
        return AwsStackHealth(look_up(Clients(REGION), guarded.stack.name))

    return granted


def lacking(found: Diagnosis) -> dict[str, set[str]]:
    return {level.name: {one.partition(" on ")[0] for one in level.missing} for level in found.levels}


def test_what_is_tried_is_what_the_page_lists(stack) -> None:
    for level in LEVELS:
        tried = {(probe.action, probe.resource) for probe in probes(stack) if probe.level == level}
        listed = {
            (action, resource)
            for each in filled(stack, level)
            for action in as_list(each["Action"])
            for resource in as_list(each["Resource"])
        }
        assert tried == listed, level


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_who_may_read_is_told_what_replaying_takes(guarded, somebody) -> None:
    found = diagnose(somebody([*filled(guarded, "reading"), OF_THE_EMULATOR]), ("reading",))
    missing = lacking(found)
    assert missing["reading"] == set()
    assert found.policy is None
    listed = {action for each in filled(guarded, "replaying") for action in as_list(each["Action"])}
    # The emulator takes a statement for one action, which the user has.
    assert missing["replaying"] == {one for one in listed if "PartiQL" not in one}
    assert missing["inspecting"] == {
        action for each in filled(guarded, "inspecting") for action in as_list(each["Action"])
    }
    assert missing["producing"] == {"execute-api:Invoke"}


@pytest.mark.parametrize("level", UP_TO)
def test_each_policy_of_the_page_is_enough_for_its_level(guarded, somebody, level: str) -> None:
    granted = [each for name in list(UP_TO)[: UP_TO[level]] for each in filled(guarded, name)]
    missing = lacking(diagnose(somebody([*granted, OF_THE_EMULATOR, WITHOUT_ARN]), ()))
    assert [name for name in list(UP_TO)[: UP_TO[level]] if missing[name]] == [], missing


def test_what_the_doctor_prescribes_mends_it(guarded, somebody) -> None:
    find = {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}
    needed = ("reading", "replaying", "administering", "producing")
    before = diagnose(somebody([find, OF_THE_EMULATOR]), needed)
    assert before.missing
    assert before.policy is not None
    # Without s3:ListBucket it cannot be told whether objects can be read, so that is found when it is there.
    again = diagnose(somebody([find, OF_THE_EMULATOR, *before.policy["Statement"]]), needed)
    healed = [*before.policy["Statement"], *(again.policy or {"Statement": []})["Statement"]]
    after = diagnose(somebody([find, OF_THE_EMULATOR, *healed]), needed)
    assert (list(after.missing), after.policy) == ([], None)
    assert {action for each in healed for action in each["Action"]} <= {
        action for level in LEVELS for each in policies()[level] for action in as_list(each["Action"])
    }


def test_what_another_policy_forbids_no_policy_mends(guarded, somebody) -> None:
    never = {"Effect": "Deny", "Action": "s3:ListBucket", "Resource": "*"}
    found = diagnose(somebody([*filled(guarded, "reading"), never, OF_THE_EMULATOR]), ("reading",))
    assert [(one.action, one.forbidden) for one in found.missing] == [("s3:ListBucket", True)]
    assert found.policy is None


def test_without_simulation_what_cannot_be_tried_is_unknown(guarded, somebody) -> None:
    found = diagnose(somebody(filled(guarded, "reading")), ("reading",))
    untold = {one.action: one.detail for one in found.permissions if one.allowed is None}
    assert set(untold) == {
        *("s3:PutObject", "sqs:SendMessage", "s3:DeleteObject", "sqs:ReceiveMessage", "execute-api:Invoke"),
    }
    assert all("IAM does not tell" in detail for detail in untold.values())


def contents(stack: DeployedStack) -> Any:
    """All that is in the stack."""
    dynamodb, sqs = stack.clients.client("dynamodb"), stack.clients.client("sqs")
    versions = stack.clients.client("s3").list_object_versions(Bucket=stack.stack.raw_bucket)
    tables = [dynamodb.scan(TableName=table)["Items"] for table in (stack.stack.index_table, stack.stack.state_table)]
    counts = [
        sqs.get_queue_attributes(
            QueueUrl=url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        for url in (stack.stack.queue_url, stack.stack.dead_letter_queue_url)
    ]
    objects = [(each["Key"], each["VersionId"], each["ETag"]) for each in versions["Versions"]]
    return objects, versions.get("DeleteMarkers"), tables, counts


def test_a_key_that_is_denied_is_what_is_missing(seen) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/0-1"
    said = f"User: ann is not authorized to perform: kms:Decrypt on resource: {key} because no policy allows it"
    refuse(seen.clients, "s3", "GetObject", said)
    found = diagnose(AwsStackHealth(seen), ("reading",))
    assert {(one.action, one.resource) for one in found.missing} == {("kms:Decrypt", key)}
    assert found.policy is not None
    assert found.policy["Statement"] == [{"Effect": "Allow", "Action": ["kms:Decrypt"], "Resource": [key]}]


def test_promise_2_a_storage_that_overwrites_is_found_out(seen) -> None:
    """Some S3 of others know no conditional writes. What is there is written again, byte for byte."""
    s3, bucket = seen.clients.client("s3"), seen.stack.raw_bucket
    s3.put_object(Bucket=bucket, Key="raw/one", Body=b"one")

    def forget(request: Any, **_: object) -> None:
        del request.headers["If-None-Match"]

    s3.meta.events.register("before-sign.s3.PutObject", forget)
    with pytest.raises(StoreError, match="wrote raw/one again, with the bytes that it had"):
        list(permissions(seen))
    assert s3.get_object(Bucket=bucket, Key="raw/one")["Body"].read() == b"one"


def test_an_examination_changes_nothing(guarded, root, somebody) -> None:
    before = contents(guarded)
    everything = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    found = diagnose(somebody(everything), LEVELS)
    assert [one for one in found.permissions if one.allowed is not True] == []
    assert contents(guarded) == before
    (task,) = root.client("sqs").receive_message(
        QueueUrl=guarded.stack.queue_url, MessageSystemAttributeNames=["ApproximateReceiveCount"]
    )["Messages"]
    assert task["Attributes"]["ApproximateReceiveCount"] == "1"
