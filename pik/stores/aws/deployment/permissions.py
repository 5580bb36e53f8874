"""The permissions that people need on a stack, and which of them IAM says that the caller has.

POLICIES is the only place where they are listed: the doctor asks IAM about them, `tools/gen_docs.py` writes them into
docs/iam.md, and tests hold the calls of the store and the roles of template.yaml against them.

IAM simulates every permission; none is tried, because some calls cannot be tried without a trace. What a simulation
cannot see is in docs/iam.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pik.errors import StoreError
from pik.ports.remote import Level, Permission
from pik.stores.aws.clients import Clients, Refused, briefly, denied, translated
from pik.stores.aws.deployment.stack import SOURCE, DeployedStack

if TYPE_CHECKING:
    from mypy_boto3_iam.type_defs import EvaluationResultTypeDef


@dataclass(frozen=True, slots=True)
class Statement:
    """Actions on resources that a level needs. `sid` is their purpose; the fields of the resources' ARNs are NAMES."""

    level: Level
    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


NAMES = (
    *("partition", "region", "account", "stack", "raw_bucket", "index_table", "state_table", "queue", "dead_letters"),
    *("ingest_function", "replay_function", "processor_function", "source_id", "api_id", "kms_key", "caller"),
)
"""What resources are made of, in capitals on docs/iam.md."""

_STACK = "arn:{partition}:cloudformation:{region}:{account}:stack/{stack}/*"
_BUCKET = "arn:{partition}:s3:::{raw_bucket}"
_RAW, _INDEX_FILES, _CORRECTIONS = f"{_BUCKET}/raw/*", f"{_BUCKET}/index/*", f"{_BUCKET}/corrections/*"
_TABLE = "arn:{partition}:dynamodb:{region}:{account}:table/"
_INDEX, _STATE = f"{_TABLE}{{index_table}}", f"{_TABLE}{{state_table}}"
_SQS = "arn:{partition}:sqs:{region}:{account}:"
_QUEUE, _DEAD_LETTERS = f"{_SQS}{{queue}}", f"{_SQS}{{dead_letters}}"
_LAMBDA = "arn:{partition}:lambda:{region}:{account}:"
_FUNCTIONS = tuple(f"{_LAMBDA}function:{{{name}_function}}" for name in ("ingest", "replay", "processor"))
_ALARMS = "arn:{partition}:cloudwatch:{region}:{account}:alarm:*"
_INGEST = "arn:{partition}:execute-api:{region}:{account}:{api_id}/v1/POST/ingest"
_CALLER = "arn:{partition}:iam::{account}:{caller}"
_KEY = "{kms_key}"

_SIMULATE = "iam:SimulatePrincipalPolicy"
_WRITES = tuple(
    f"dynamodb:{each}"
    for each in ("BatchWriteItem", "ConditionCheckItem", "DeleteItem", "PartiQLInsert", "PutItem", "UpdateItem")
)

POLICIES = (
    Statement(Level.READING, "FindStack", ("cloudformation:DescribeStacks",), (_STACK,)),
    Statement(Level.READING, "ReadObjects", ("s3:GetObject",), (_RAW, _INDEX_FILES, _CORRECTIONS)),
    Statement(Level.READING, "ListObjects", ("s3:ListBucket",), (_BUCKET,)),
    Statement(
        Level.READING,
        "ReadTables",
        ("dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan"),
        (_INDEX, _STATE),
    ),
    Statement(
        Level.READING, "QueryIndexes", ("dynamodb:Query",), (f"{_INDEX}/index/by_event", f"{_STATE}/index/by_bucket")
    ),
    Statement(
        Level.READING, "ReadDeadLetters", ("sqs:ChangeMessageVisibility", "sqs:ReceiveMessage"), (_DEAD_LETTERS,)
    ),
    Statement(Level.READING, "DecryptWithKey", ("kms:Decrypt",), (_KEY,)),
    Statement(Level.REPLAYING, "WriteState", (*_WRITES, "dynamodb:PartiQLDelete", "dynamodb:PartiQLUpdate"), (_STATE,)),
    Statement(Level.REPLAYING, "SendTasks", ("sqs:SendMessage",), (_QUEUE,)),
    Statement(Level.REPLAYING, "DeleteDeadLetters", ("sqs:DeleteMessage",), (_DEAD_LETTERS,)),
    Statement(Level.REPLAYING, "EncryptWithKey", ("kms:GenerateDataKey",), (_KEY,)),
    Statement(Level.ADMINISTERING, "CreateObjects", ("s3:PutObject",), (_RAW, _INDEX_FILES, _CORRECTIONS)),
    Statement(Level.ADMINISTERING, "WriteIndex", _WRITES, (_INDEX,)),
    Statement(Level.ADMINISTERING, "DeleteIndexFiles", ("s3:DeleteObject",), (_INDEX_FILES,)),
    Statement(Level.ADMINISTERING, "BuryTasks", ("sqs:SendMessage",), (_DEAD_LETTERS,)),
    Statement(
        Level.ADMINISTERING,
        "TakeTasks",
        ("sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"),
        (_QUEUE,),
    ),
    Statement(Level.INSPECTING, "ListResources", ("cloudformation:ListStackResources",), (_STACK,)),
    Statement(Level.INSPECTING, "InspectFunctions", ("lambda:GetFunctionConfiguration",), _FUNCTIONS),
    Statement(
        Level.INSPECTING,
        "InspectProcessorSource",
        ("lambda:GetEventSourceMapping",),
        (f"{_LAMBDA}event-source-mapping:{{source_id}}",),
    ),
    Statement(Level.INSPECTING, "InspectQueues", ("sqs:GetQueueAttributes",), (_QUEUE, _DEAD_LETTERS)),
    Statement(
        Level.INSPECTING,
        "InspectTables",
        ("dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTable"),
        (_INDEX, _STATE),
    ),
    Statement(
        Level.INSPECTING,
        "InspectBucket",
        (
            "s3:GetBucketObjectLockConfiguration",
            "s3:GetBucketPolicy",
            "s3:GetBucketPublicAccessBlock",
            "s3:GetBucketVersioning",
            "s3:GetEncryptionConfiguration",
        ),
        (_BUCKET,),
    ),
    Statement(Level.INSPECTING, "InspectAlarms", ("cloudwatch:DescribeAlarms",), (_ALARMS,)),
    Statement(Level.INSPECTING, "InspectMetrics", ("cloudwatch:GetMetricData",), ("*",)),
    Statement(Level.INSPECTING, "SimulatePermissions", (_SIMULATE,), (_CALLER,)),
    Statement(Level.PRODUCING, "SendEvents", ("execute-api:Invoke",), (_INGEST,)),
)


def permissions(deployed: DeployedStack) -> Iterator[Permission]:
    """Yield every permission of every level, and whether the caller has it."""
    simulation = _Simulation(deployed.clients)
    names = _names(deployed, simulation.caller)
    for statement in POLICIES:
        for resource in filter(None, (each.format(**names) for each in statement.resources)):  # no key: no statement
            for action, answer in zip(statement.actions, simulation.ask(statement.actions, resource), strict=True):
                yield Permission(statement.level, action, resource, answer.allowed, answer.detail, answer.forbidden)


def _names(deployed: DeployedStack, caller: str) -> dict[str, str]:
    stack = deployed.stack
    try:
        source = deployed.resource(SOURCE)
    except StoreError:
        source = ""
    functions = {
        f"{name}_function": deployed.outputs.get(f"{name.title()}Function", "*")
        for name in ("ingest", "replay", "processor")
    }
    return {
        "partition": deployed.partition,
        "region": deployed.region,
        "account": deployed.account,
        "stack": stack.name,
        "raw_bucket": stack.raw_bucket,
        "index_table": stack.index_table,
        "state_table": stack.state_table,
        "queue": deployed.queue,
        "dead_letters": deployed.dead_letters,
        "source_id": source or "*",
        "api_id": stack.api_url.removeprefix("https://").partition(".")[0] or "*",
        "kms_key": deployed.parameters.get("KmsKeyArn", ""),
        "caller": caller.rpartition(":")[2] or "*",
        **functions,
    }


@dataclass(frozen=True, slots=True)
class _Answer:
    allowed: bool | None
    detail: str = ""
    forbidden: bool = False


class _Simulation:
    """Asks IAM what the caller's policies allow. `caller` is the ARN of its user or role; empty if it has none."""

    def __init__(self, clients: Clients) -> None:
        self._iam = clients.client("iam")
        self._unknown = ""  # why IAM does not answer
        self._denied = False
        self.caller = ""
        try:
            with translated("sts"):
                arn = clients.client("sts").get_caller_identity()["Arn"]
        except StoreError as error:
            self._unknown = f"the caller is unknown: {briefly(error)}"
            return
        if arn.endswith(":root"):
            self._unknown = "IAM does not simulate the account's root user"
            return
        self.caller = self._principal(arn)

    def ask(self, actions: Sequence[str], resource: str) -> list[_Answer]:
        """Return an answer per action."""
        if not self._unknown:
            pages = self._iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=self.caller, ActionNames=actions, ResourceArns=[resource]
            )
            try:
                with translated("iam"):
                    results = {each["EvalActionName"]: each for page in pages for each in page["EvaluationResults"]}
                return [_answer(results[action]) for action in actions]
            except StoreError as error:
                self._unknown = f"IAM does not simulate: {briefly(error)}"
                self._denied = isinstance(error, Refused) and denied(error)
        unknown, lacking = _Answer(None, self._unknown), _Answer(False, self._unknown)
        return [lacking if self._denied and action == _SIMULATE else unknown for action in actions]

    def _principal(self, arn: str) -> str:
        """Return the ARN of the role that was assumed, with its path if the caller may see it, or of the user."""
        role = re.fullmatch(r"(arn:[^:]+):sts::(\d+):assumed-role/([^/]+)/.*", arn)
        if role is None:
            return arn
        try:
            with translated("iam"):
                return self._iam.get_role(RoleName=role[3])["Role"]["Arn"]
        except StoreError:
            return f"{role[1]}:iam::{role[2]}:role/{role[3]}"


def _answer(result: EvaluationResultTypeDef) -> _Answer:
    decision = result["EvalDecision"]
    if decision == "allowed":
        return _Answer(True)
    if result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations") is False:
        return _Answer(False, "a policy of the organization denies it", forbidden=True)
    if result.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary") is False:
        return _Answer(False, "the permissions boundary denies it", forbidden=True)
    return _Answer(False, f"IAM's simulation: {decision}", forbidden=decision == "explicitDeny")
