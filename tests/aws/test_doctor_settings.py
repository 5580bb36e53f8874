"""`pik stack doctor`: each setting that the kit relies on is looked at, and what mends it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from pik.ports.remote import Setting
from pik.stores.aws.clients import Clients
from pik.stores.aws.deployed_stack import SOURCE, DeployedStack, describe_stack
from pik.stores.aws.settings import settings
from pik.stores.aws.stack import parameter_change
from tests.aws.test_stack import deny, hook
from tests.support.aws.bare import deploy_bare, package
from tests.support.aws.emulator import REGION


def wrong(stack: DeployedStack) -> list[Setting]:
    return [one for one in settings(describe_stack(stack.clients, stack.stack.name)) if one.right is not True]


def test_a_stack_as_the_template_makes_it_is_set_right(stack) -> None:
    assert wrong(stack) == []
    assert len({one.name for one in settings(stack)}) == 46


def test_parameters_change_what_is_right(aws) -> None:
    locked = deploy_bare(
        aws,
        f"pik-{uuid4().hex[:8]}",
        ObjectLockMode="GOVERNANCE",
        MaxReceives="3",
        EnableProcessor="false",
        BreakGlassRoleArn="arn:aws:iam::123456789012:role/break-glass",
    )
    assert wrong(locked) == []
    found = {one.name: one.found for one in settings(locked)}
    assert found["Object Lock of the bucket"] == "enabled, GOVERNANCE for 30 days"
    assert found["the processor's switch"] == "Disabled"


def test_logs_of_the_api_need_the_accounts_role_only_if_they_are_chosen(aws) -> None:
    def found(chosen: str) -> Setting:
        made = deploy_bare(aws, f"pik-{uuid4().hex[:8]}", LogApiRequests=chosen)
        stack = replace(made, clients=Clients(REGION))
        events = stack.clients.client("apigateway").meta.events
        events.register("after-call.api-gateway.GetAccount", lambda parsed, **_: parsed.pop("cloudwatchRoleArn", None))
        (one,) = [each for each in settings(stack) if each.name == "logs of the API"]
        return one

    assert (found("false").right, found("false").found) == (True, "none: LogApiRequests is false")
    lacking = found("true")
    assert lacking.right is False
    assert lacking.found == "none: API Gateway has no role for logs in this account and region"
    assert lacking.fix == parameter_change(lacking.fix.split()[4], "CreateApiLogRole", "true")


def bucket_policy(stack: DeployedStack, *without: str) -> None:
    s3, bucket = stack.clients.client("s3"), stack.stack.raw_bucket
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    policy["Statement"] = [each for each in policy["Statement"] if each["Sid"] not in without]
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def allow_overwriting_index_only(stack: DeployedStack) -> None:
    """The statement is there, about something else."""
    s3, bucket = stack.clients.client("s3"), stack.stack.raw_bucket
    policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.put_bucket_policy(Bucket=bucket, Policy=policy.replace("/raw/*", "/index/*"))


def exempt_somebody(stack: DeployedStack) -> None:
    """From the statement about deleting."""
    s3, bucket = stack.clients.client("s3"), stack.stack.raw_bucket
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    exempt = {"ArnNotEquals": {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/mine"}}
    next(each for each in policy["Statement"] if each["Sid"] == "DenyDeletingRaw")["Condition"] = exempt
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def no_bucket_policy(stack: DeployedStack) -> None:
    stack.clients.client("s3").delete_bucket_policy(Bucket=stack.stack.raw_bucket)


def suspend_versions(stack: DeployedStack) -> None:
    suspended = {"VersioningStatus": "Suspended", "Status": "Suspended"}
    hook(stack.clients, "s3", "GetBucketVersioning", lambda parsed: parsed.update(suspended))


def open_to_the_public(stack: DeployedStack) -> None:
    stack.clients.client("s3").put_public_access_block(
        Bucket=stack.stack.raw_bucket,
        PublicAccessBlockConfiguration={"BlockPublicAcls": True, "BlockPublicPolicy": False},
    )


def no_public_access_block(stack: DeployedStack) -> None:
    stack.clients.client("s3").delete_public_access_block(Bucket=stack.stack.raw_bucket)


def another_lock(stack: DeployedStack) -> None:
    rule: Any = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    stack.clients.client("s3").put_object_lock_configuration(
        Bucket=stack.stack.raw_bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )


def another_key(stack: DeployedStack) -> None:
    """The stack was deployed with a key, and the bucket uses another one."""
    key = "arn:aws:kms:eu-central-1:123456789012:key/0-1"

    def change(parsed: Any) -> None:
        for each in parsed.get("Stacks", ()):
            of_key = [one for one in each["Parameters"] if one["ParameterKey"] == "KmsKeyArn"]
            of_key[0]["ParameterValue"] = key

    hook(stack.clients, "cloudformation", "DescribeStacks", change)


def stop_backups(stack: DeployedStack) -> None:
    stack.clients.client("dynamodb").update_continuous_backups(
        TableName=stack.stack.index_table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
    )


def unprotect(stack: DeployedStack) -> None:
    stack.clients.client("dynamodb").update_table(TableName=stack.stack.state_table, DeletionProtectionEnabled=False)


def set_queue(stack: DeployedStack, **attributes: str) -> None:
    sqs: Any = stack.clients.client("sqs")
    sqs.set_queue_attributes(QueueUrl=stack.stack.queue_url, Attributes=attributes)


def change_source(stack: DeployedStack, **changes: Any) -> None:
    stack.clients.client("lambda").update_event_source_mapping(UUID=stack.resource(SOURCE), **changes)


def drop_failed_plans(stack: DeployedStack) -> None:
    stack.clients.client("lambda").delete_function_event_invoke_config(
        FunctionName=stack.outputs["ReplayFunction"], Qualifier="$LATEST"
    )


def another_package(stack: DeployedStack) -> None:
    other = "arm64" if stack.parameters["Architecture"] == "x86_64" else "x86_64"
    stack.clients.client("lambda").update_function_code(
        FunctionName=stack.outputs["ReplayFunction"], ZipFile=package(other)
    )


def delete_alarm(stack: DeployedStack) -> None:
    stack.clients.client("cloudwatch").delete_alarms(AlarmNames=[stack.resource("LagAlarm")])


SEEN = {suspend_versions, another_key}
"""What the emulator cannot be made to do is put into its answers."""


@pytest.mark.parametrize(
    ("harm", "names", "command"),
    [
        (suspend_versions, ["versioning of the bucket"], "put-bucket-versioning --bucket {bucket}"),
        (
            another_key,
            ["encryption of the bucket"],
            '"KMSMasterKeyID": "arn:aws:kms:eu-central-1:123456789012:key/0-1"',
        ),
        (open_to_the_public, ["public access to the bucket"], "put-public-access-block --bucket {bucket}"),
        (no_public_access_block, ["public access to the bucket"], "BlockPublicAcls=true,BlockPublicPolicy=true"),
        (lambda stack: bucket_policy(stack, "DenyPlainHttp"), ["bucket policy: TLS only"], "DenyPlainHttp"),
        (
            lambda stack: bucket_policy(stack, "DenyOverwritingRaw"),
            ["bucket policy: overwriting of raw"],
            "DenyOverwritingRaw",
        ),
        (lambda stack: bucket_policy(stack, "DenyDeletingRaw"), ["bucket policy: deleting of raw"], "DenyDeletingRaw"),
        (
            lambda stack: bucket_policy(stack, "DenyChangingSettings"),
            ["bucket policy: changing of settings"],
            "DenyChangingSettings",
        ),
        (
            allow_overwriting_index_only,
            ["bucket policy: overwriting of raw", "bucket policy: deleting of raw"],
            "put-bucket-policy",
        ),
        (
            no_bucket_policy,
            [
                f"bucket policy: {what}"
                for what in ("TLS only", "overwriting of raw", "deleting of raw", "changing of settings")
            ],
            "put-bucket-policy --bucket {bucket}",
        ),
        (another_lock, ["Object Lock of the bucket"], "put-object-lock-configuration --bucket {bucket}"),
        (exempt_somebody, ["bucket policy: deleting of raw"], "DenyDeletingRaw"),
        (stop_backups, ["point-in-time recovery of {index}"], "update-continuous-backups --table-name {index}"),
        (unprotect, ["deletion protection of {state}"], "update-table --table-name {state} --deletion-protection-enab"),
        (lambda stack: set_queue(stack, RedrivePolicy=""), ["redrive of the replay queue"], "deadLetterTargetArn"),
        (
            lambda stack: set_queue(stack, VisibilityTimeout="1799"),
            ["visibility timeout of the replay queue"],
            "VisibilityTimeout=1800",
        ),
        (
            lambda stack: change_source(stack, FunctionResponseTypes=[]),
            ["answers of the processor"],
            "--function-response-types ReportBatchItemFailures",
        ),
        (lambda stack: change_source(stack, Enabled=False), ["the processor's switch"], "{source} --enabled"),
        (
            drop_failed_plans,
            ["replays that could not be planned"],
            "put-function-event-invoke-config --function-name {planner} --qualifier '$LATEST' --maximum-retry",
        ),
        (another_package, ["package of ReplayFunction"], "sam build --parameter-overrides Architecture="),
        (delete_alarm, ["alarm LagAlarm"], "sam deploy --stack-name {name}"),
    ],
)
def test_a_changed_setting_is_named_with_its_fix(
    stack, harm: Callable[[DeployedStack], None], names: list[str], command: str
) -> None:
    if harm in SEEN:
        stack = replace(stack, clients=Clients(REGION))
    harm(stack)
    here = {
        "name": stack.stack.name,
        "bucket": stack.stack.raw_bucket,
        "index": stack.stack.index_table,
        "state": stack.stack.state_table,
        "source": stack.resource(SOURCE),
        "planner": stack.outputs["ReplayFunction"],
    }
    found = wrong(stack)
    assert [one.name for one in found] == [name.format(**here) for name in names]
    assert all(one.right is False and command.format(**here) in one.fix for one in found), found


def test_promise_9_a_setting_that_cannot_be_seen_is_unknown(seen) -> None:
    deny(seen.clients, "s3", "GetBucketPolicy")
    found = wrong(seen)
    assert [one.name for one in found if not one.name.startswith("bucket policy: ")] == []
    assert len(found) == 4
    assert all(one.right is None and "no GetBucketPolicy for you" in one.found for one in found)
