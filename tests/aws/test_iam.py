"""The policies of docs/iam.md allow what the deployed store does, and name what they allow."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.session import get_session

import pik
from pik.ports.remote import Level
from pik.stores.aws.permissions import POLICIES
from tests.support.aws.policy import as_list
from tests.support.aws.template import properties, resources
from tools.gen_iam import PAGE, page, policy

LEVELS = ("reading", "replaying", "correcting", "administering", "inspecting")
SERVICES = ("cloudformation", "cloudwatch", "dynamodb", "iam", "lambda", "s3", "sqs", "sts")
OF_ONESELF = {"iam:GetRole", "sts:GetCallerIdentity"}
"""What `pik stack doctor` does if it may, and what AWS lets everybody do."""

OF_FUNCTIONS = {"lambda:InvokeFunction"}
OF_FUNCTIONS_ALONE = {"WriteLogs", "SendTraces", "BufferRequests", "TakeRequests"}
"""What only a function of the stack does: ReplayFunction calls itself."""

PREFIXES = ("raw", "index", "corrections", "compact", "partials", "backups", "STACK")
WITHOUT_RESOURCE = {"InspectAlarms", "InspectMetrics"}
"""Statements about what CloudWatch has no resources for, or none that is narrower."""

ACTIONS = {
    "BatchExecuteStatement": "PartiQLInsert",  # and others, which the page lists
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
    "DeleteMessageBatch": "DeleteMessage",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "Invoke": "InvokeFunction",
    "ListObjectsV2": "ListBucket",
    "SendMessageBatch": "SendMessage",
    "TransactWriteItems": "ConditionCheckItem",
}
"""Operations that IAM knows under another name."""


def policies() -> dict[str, list[dict[str, Any]]]:
    """The statements of each level."""
    return {level.value: policy(level)["Statement"] for level in Level}


def _allowed(*levels: str) -> set[str]:
    return {action for level in levels for one in policies()[level] for action in as_list(one["Action"])}


def _operations(services: Iterable[str] = SERVICES) -> dict[str, str]:
    """IAM's action by the method of a boto3 client."""
    found = {}
    for service in services:
        for name in get_session().get_service_model(service).operation_names:
            found[xform_name(name)] = f"{service}:{ACTIONS.get(name, name)}"
    return found


def _used(services: Iterable[str] = SERVICES) -> set[str]:
    """The actions behind every client method that the store's code names, called or passed on."""
    operations = _operations(services)
    names: set[str] = set()
    for path in (Path(pik.__file__).parent / "stores/aws").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return {operations[name] for name in names & operations.keys()}


def test_an_administrator_may_do_all_that_the_store_does() -> None:
    used = _used()
    assert {"s3:PutObject", "dynamodb:PartiQLInsert", "cloudformation:DescribeStacks"} <= used
    assert used - _allowed(*LEVELS) == OF_ONESELF | OF_FUNCTIONS


def test_the_page_allows_what_jobs_of_emr_serverless_call_and_no_more() -> None:
    """Their policies are written by hand: they are of an application, which is not part of the stack."""
    used = _used(["emr-serverless"])
    assert used
    assert used == set(re.findall(r'"(emr-serverless:\w+)"', PAGE.read_text(encoding="utf-8")))


def test_every_kind_of_statement_that_the_store_makes_is_allowed() -> None:
    made = " ".join(path.read_text() for path in (Path(pik.__file__).parent / "stores/aws").rglob("*.py"))
    for keyword, action in (("INSERT INTO", "Insert"), ("UPDATE", "Update"), ("DELETE FROM", "Delete")):
        assert re.search(rf"f'{keyword} ", made), keyword
        assert f"dynamodb:PartiQL{action}" in _allowed("replaying")


def test_who_reads_cannot_write() -> None:
    verbs = {action.partition(":")[2] for action in _allowed("reading", "inspecting")}
    assert not [verb for verb in verbs if re.match("Put|Delete|Update|Send|Create|Partiql|BatchWrite", verb, re.I)]


@pytest.mark.parametrize("level", [*LEVELS, "producing"])
def test_every_statement_allows_named_actions_on_named_resources(level) -> None:
    for statement in policies()[level]:
        assert set(statement) == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        assert not [action for action in as_list(statement["Action"]) if "*" in action], statement["Sid"]
        for resource in as_list(statement["Resource"]):
            if statement["Sid"] in WITHOUT_RESOURCE:
                continue
            assert "*" not in resource.removesuffix("/*"), statement["Sid"]
            named = resource.split("/")[-2] in PREFIXES if "/" in resource else True
            assert named or not resource.endswith("/*"), statement["Sid"]


def test_raw_cannot_be_deleted_by_any_role() -> None:
    for statements in policies().values():
        for statement in statements:
            if [action for action in as_list(statement["Action"]) if action.startswith("s3:Delete")]:
                prefixes = [one.partition("RAW_BUCKET/")[2] for one in as_list(statement["Resource"])]
                assert prefixes == ["index/*", "compact/*"]


def test_the_page_has_the_policies_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "`make docs` writes it again"
    assert re.findall(r"<!-- policy:(\w+) -->", page()) == [level.value for level in Level]


def test_correcting_is_a_permission_that_neither_replaying_nor_a_function_has() -> None:
    corrections = "arn:{partition}:s3:::{raw_bucket}/corrections/*"
    who = {
        level.value
        for level, statements in POLICIES.items()
        for one in statements
        if "s3:PutObject" in one.actions and corrections in one.resources
    }
    assert who == {"correcting", "administering"}  # a rebuild of the index records what it changed
    written, read = [], []
    for name in resources("AWS::IAM::Role"):
        for document in properties(name, KmsKeyArn="KEY").get("Policies", ()):
            for statement in document["PolicyDocument"]["Statement"]:
                if "RawBucket.Arn/corrections/*" in as_list(statement["Resource"]):
                    actions = as_list(statement["Action"])
                    read += [name] if "s3:GetObject" in actions else []
                    written += [name] if "s3:PutObject" in actions else []
    assert (written, sorted(read)) == ([], ["ProcessorRole", "ReplayRole"])


RESOURCES = {
    "RawBucket.Arn": "arn:{partition}:s3:::{raw_bucket}",
    "IndexTable.Arn": "arn:{partition}:dynamodb:{region}:{account}:table/{index_table}",
    "StateTable.Arn": "arn:{partition}:dynamodb:{region}:{account}:table/{state_table}",
    "ReplayQueue.Arn": "arn:{partition}:sqs:{region}:{account}:{queue}",
    "DeadLetterQueue.Arn": "arn:{partition}:sqs:{region}:{account}:{dead_letters}",
    "KEY": "{kms_key}",
}
"""The ARNs of template.yaml as POLICIES has them."""


def test_the_functions_may_do_nothing_on_the_stores_resources_that_no_person_may() -> None:
    people = {
        (action, resource)
        for statements in POLICIES.values()
        for one in statements
        for action in one.actions
        for resource in one.resources
    }
    for role in resources("AWS::IAM::Role"):
        for document in properties(role, KmsKeyArn="KEY").get("Policies", ()):
            for statement in document["PolicyDocument"]["Statement"]:
                for resource in as_list(statement["Resource"]):
                    name = next((one for one in RESOURCES if resource.startswith(one)), None)
                    if name is None:
                        assert statement["Sid"] in OF_FUNCTIONS_ALONE, (role, statement)
                        continue
                    arn = RESOURCES[name] + resource.removeprefix(name)
                    assert {(action, arn) for action in as_list(statement["Action"])} <= people, (role, statement)
