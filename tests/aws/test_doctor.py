"""`pik stack doctor`: what is missing is named, with what mends it, and nothing is changed by looking."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from pik.ports.remote import Level
from pik.stores.aws.clients import Clients
from pik.stores.aws.deployed_stack import BUFFER, LOST_REQUESTS, RECORDER_SOURCE, SOURCE, DeployedStack, describe_stack
from pik.stores.aws.permissions import permissions
from pik.usecases.care.deployment import Diagnosis, diagnose
from tests.aws.test_iam import policies
from tests.cli.conftest import pik
from tests.support.aws.bare import OF_THE_EMULATOR, deploy_bare, grant, make_user
from tests.support.aws.emulator import ENVIRONMENT, REGION, ministack

__all__ = ["pik"]

SERVICES = ("cloudformation", "cloudwatch", "dynamodb", "iam", "lambda", "s3", "sqs", "sts")
LEVELS = ("reading", "replaying", "correcting", "administering", "inspecting")


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
        for service in SERVICES:
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
        "INGEST_QUEUE": stack.resource(BUFFER).rpartition("/")[2],
        "LOST_REQUESTS": stack.resource(LOST_REQUESTS).rpartition("/")[2],
        "QUEUE": stack.queue,
        "INGEST_FUNCTION": stack.outputs["IngestFunction"],
        "RECORDER_FUNCTION": stack.outputs["RecorderFunction"],
        "REPLAY_FUNCTION": stack.outputs["ReplayFunction"],
        "PROCESSOR_FUNCTION": stack.outputs["ProcessorFunction"],
        "RECORDER_SOURCE_ID": stack.resource(RECORDER_SOURCE),
        "SOURCE_ID": stack.resource(SOURCE),
        "CALLER": "*",  # this emulator's root, which IAM does not simulate
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
def somebody(root: Clients, guarded: DeployedStack, monkeypatch) -> Callable[[list[Any]], DeployedStack]:
    """What the doctor sees who is asked by a user with a policy of these statements."""
    user = f"ann-{uuid4().hex[:8]}"
    for name, value in make_user(root, user).items():
        monkeypatch.setenv(name, value)

    def granted(statements: list[Any]) -> DeployedStack:
        grant(root, user, statements)
        return describe_stack(Clients(REGION), guarded.stack.name)

    return granted


def lacking(found: Diagnosis) -> dict[str, set[str]]:
    return {level.name: {one.partition(" on ")[0] for one in level.missing} for level in found.levels}


def test_what_iam_is_asked_about_is_what_the_page_lists(stack) -> None:
    found = list(permissions(stack))
    for level in Level:
        listed = {
            (action, resource)
            for each in filled(stack, level)
            for action in as_list(each["Action"])
            for resource in as_list(each["Resource"])
        }
        assert {(one.action, one.resource) for one in found if one.level == level} == listed, level
    assert {(one.allowed, one.detail) for one in found} == {(None, "IAM does not simulate the account's root user")}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_who_may_read_learns_what_replaying_needs(guarded, somebody) -> None:
    found = diagnose(somebody([*filled(guarded, "reading"), OF_THE_EMULATOR]), ("reading",))
    missing = lacking(found)
    assert missing["reading"] == set()
    assert found.policy is None
    listed = {action for each in filled(guarded, "replaying") for action in as_list(each["Action"])}
    assert missing["replaying"] == listed
    assert missing["inspecting"] == {
        action for each in filled(guarded, "inspecting") for action in as_list(each["Action"])
    } - {"iam:SimulatePrincipalPolicy"}
    assert missing["producing"] == {"execute-api:Invoke"}


@pytest.mark.parametrize("level", LEVELS)
def test_each_policy_of_the_page_is_enough_for_its_level(guarded, somebody, level: str) -> None:
    granted = [each for name in Level(level).needed for each in filled(guarded, name)]
    missing = lacking(diagnose(somebody([*granted, OF_THE_EMULATOR, WITHOUT_ARN]), ()))
    assert [name for name in Level(level).needed if missing[name]] == [], missing


def test_what_the_doctor_prescribes_mends_it(guarded, somebody) -> None:
    find = {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}
    needed = ("reading", "replaying", "administering", "producing")
    before = diagnose(somebody([find, OF_THE_EMULATOR]), needed)
    assert before.missing
    assert before.policy is not None
    healed = before.policy["Statement"]
    after = diagnose(somebody([find, OF_THE_EMULATOR, *healed]), needed)
    assert (list(after.missing), after.policy) == ([], None)
    assert {action for each in healed for action in each["Action"]} <= {
        action for level in Level for each in policies()[level] for action in as_list(each["Action"])
    }


def test_what_another_policy_forbids_no_policy_mends(guarded, somebody) -> None:
    never = {"Effect": "Deny", "Action": "s3:ListBucket", "Resource": "*"}
    found = diagnose(somebody([*filled(guarded, "reading"), never, OF_THE_EMULATOR]), ("reading",))
    assert [(one.action, one.forbidden) for one in found.missing] == [("s3:ListBucket", True)]
    assert found.policy is None


def test_without_simulation_everything_but_that_is_unknown(guarded, somebody) -> None:
    found = diagnose(somebody(filled(guarded, "reading")), ("reading",))
    assert {one.action for one in found.permissions if one.allowed is False} == {"iam:SimulatePrincipalPolicy"}
    assert {one.allowed for one in found.permissions} == {None, False}
    assert {one.detail for one in found.permissions} == {"IAM does not simulate: iam:SimulatePrincipalPolicy is denied"}


def test_what_a_simulation_leaves_out_is_unknown(guarded, somebody) -> None:
    health = somebody([{"Effect": "Allow", "Action": "*", "Resource": "*"}])

    def shorten(parsed: Any, **_: Any) -> None:
        parsed["EvaluationResults"] = parsed["EvaluationResults"][1:]

    health.clients.client("iam").meta.events.register("after-call.iam.SimulatePrincipalPolicy", shorten)
    found = list(permissions(health))
    assert {(one.allowed, one.detail) for one in found} == {(True, ""), (None, "IAM's simulation leaves it out")}


def test_what_could_not_be_checked_is_not_called_well(pik, guarded, somebody) -> None:
    store = ("--store", f"aws://{guarded.stack.name}?region={REGION}", "--format", "json")
    somebody(filled(guarded, "reading"))
    unknown = pik("stack", "doctor", *store)
    assert unknown.code == 3, unknown.err
    found = json.loads(unknown.out)
    assert {(one["level"], one["allowed"]) for one in found["permissions"]} == {("reading", None)}
    assert found["settings_unknown"] > 0
    assert found["note"].startswith("what is unknown was not checked")
    somebody([{"Effect": "Allow", "Action": "*", "Resource": "*"}])
    known = pik("stack", "doctor", *store)
    found = json.loads(known.out)
    assert (known.code, found["permissions"], found["settings_unknown"]) == (1, [], 0), found


def test_the_role_of_a_session_is_what_iam_is_asked_about(guarded, root, monkeypatch) -> None:
    iam, name = root.client("iam"), f"ann-{uuid4().hex[:8]}"
    document = json.dumps({"Version": "2012-10-17", "Statement": []})
    role = iam.create_role(RoleName=name, Path="/aws-reserved/sso/", AssumeRolePolicyDocument=document)["Role"]
    granted = json.dumps({"Version": "2012-10-17", "Statement": [*filled(guarded, "reading"), OF_THE_EMULATOR]})
    iam.put_role_policy(RoleName=name, PolicyName="pik", PolicyDocument=granted)
    session = f"arn:aws:sts::{guarded.account}:assumed-role/{name}/ann"
    asked = []

    def assumed(parsed: Any, **_: Any) -> None:
        parsed["Arn"] = session

    clients = Clients(REGION)
    clients.client("sts").meta.events.register("after-call.sts.GetCallerIdentity", assumed)
    clients.client("iam").meta.events.register(
        "provide-client-params.iam.SimulatePrincipalPolicy", lambda params, **_: asked.append(params["PolicySourceArn"])
    )
    list(permissions(replace(guarded, clients=clients)))
    assert set(asked) == {role["Arn"]}


@pytest.mark.parametrize(
    ("verdict", "detail"),
    [
        ({"OrganizationsDecisionDetail": {"AllowedByOrganizations": False}}, "a policy of the organization denies it"),
        (
            {"PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False}},
            "the permissions boundary denies it",
        ),
    ],
)
def test_what_no_policy_of_the_callers_own_can_allow_is_forbidden(guarded, somebody, verdict, detail) -> None:
    health = somebody([*filled(guarded, "reading"), OF_THE_EMULATOR])

    def boundary(parsed: Any, **_: Any) -> None:
        for one in parsed.get("EvaluationResults", ()):
            one.update(EvalDecision="implicitDeny", **verdict)

    health.clients.client("iam").meta.events.register("after-call.iam.SimulatePrincipalPolicy", boundary)
    found = diagnose(health, ("reading",))
    assert {(one.detail, one.forbidden) for one in found.missing} == {(detail, True)}
    assert found.policy is None


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


def test_a_key_of_the_stack_takes_permissions_on_it(guarded, somebody) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/0-1"
    health = somebody([*filled(guarded, "reading"), OF_THE_EMULATOR])
    parameters = {**health.parameters, "KmsKeyArn": key}
    found = diagnose(replace(health, parameters=parameters), ("reading",))
    assert {(one.action, one.resource) for one in found.missing} == {("kms:Decrypt", key)}
    assert found.policy is not None
    assert found.policy["Statement"] == [{"Effect": "Allow", "Action": ["kms:Decrypt"], "Resource": [key]}]


def test_an_examination_makes_no_call_that_writes(guarded, somebody) -> None:
    health = somebody([{"Effect": "Allow", "Action": "*", "Resource": "*"}])
    made: set[str] = set()

    def record(model: Any, **_: Any) -> None:
        made.add(model.name)

    for service in SERVICES:
        health.clients.client(service).meta.events.register("before-call", record)
    diagnose(health, list(Level))
    list(health.parts())
    health.depth()
    health.alarms()
    assert {"SimulatePrincipalPolicy", "GetBucketPolicy", "DescribeTable", "HeadBucket"} <= made
    assert [one for one in made if not re.match("(Get|List|Describe|Head|Simulate)[A-Z]", one)] == []


def test_an_examination_changes_nothing(guarded, root, somebody) -> None:
    before = contents(guarded)
    everything = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    found = diagnose(somebody(everything), list(Level))
    assert [one for one in found.permissions if one.allowed is not True] == []
    assert contents(guarded) == before
    (task,) = root.client("sqs").receive_message(
        QueueUrl=guarded.stack.queue_url, MessageSystemAttributeNames=["ApproximateReceiveCount"]
    )["Messages"]
    assert task["Attributes"]["ApproximateReceiveCount"] == "1"
