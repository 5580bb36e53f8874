"""The permissions that people need on a stack, and which of them the caller has, as simulated by IAM.

POLICIES is the only place where they are listed: the doctor asks IAM about them, `tools/gen_docs.py` writes them into
docs/iam.md, and tests hold the calls of the store and the roles of template.yaml against them.

IAM simulates every permission; none is tried, because some calls cannot be tried without a trace. What a simulation
cannot see is in docs/iam.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pik.errors import StoreError
from pik.ports.remote import Level, Permission
from pik.stores.aws.clients import Clients, Refused, briefly, denied, translated
from pik.stores.aws.deployed_stack import BUFFER, LOST_REQUESTS, RECORDER_SOURCE, SOURCE, DeployedStack

if TYPE_CHECKING:
    from mypy_boto3_iam.type_defs import EvaluationResultTypeDef


@dataclass(frozen=True, slots=True)
class Statement:
    """Actions on resources. `sid` is their purpose; a resource is an ARN with the fields of `_names`."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


_STACK = "arn:{partition}:cloudformation:{region}:{account}:stack/{stack}/*"
_BUCKET = "arn:{partition}:s3:::{raw_bucket}"
_INDEX_FILES = f"{_BUCKET}/index/*"
_CORRECTIONS = f"{_BUCKET}/corrections/*"
_COPIES = f"{_BUCKET}/compact/*"
_OBJECTS = (f"{_BUCKET}/raw/*", _INDEX_FILES, _CORRECTIONS, _COPIES)
_TABLE = "arn:{partition}:dynamodb:{region}:{account}:table/"
_INDEX, _STATE = f"{_TABLE}{{index_table}}", f"{_TABLE}{{state_table}}"
_SQS = "arn:{partition}:sqs:{region}:{account}:"
_QUEUE, _DEAD_LETTERS = f"{_SQS}{{queue}}", f"{_SQS}{{dead_letters}}"
_BUFFER, _LOST_REQUESTS = f"{_SQS}{{ingest_queue}}", f"{_SQS}{{lost_requests}}"
_LAMBDA = "arn:{partition}:lambda:{region}:{account}:"
_FUNCTION_NAMES = ("ingest", "recorder", "replay", "processor")
_FUNCTIONS = tuple(f"{_LAMBDA}function:{{{name}_function}}" for name in _FUNCTION_NAMES)
_PLANNER = f"{_LAMBDA}function:{{replay_function}}"
_SOURCES = tuple(f"{_LAMBDA}event-source-mapping:{{{name}source_id}}" for name in ("", "recorder_"))
_API_ACCOUNT = "arn:{partition}:apigateway:{region}::/account"
_ALARMS = "arn:{partition}:cloudwatch:{region}:{account}:alarm:*"
_INGEST = "arn:{partition}:execute-api:{region}:{account}:{api_id}/v1/POST/ingest"
_CALLER = "arn:{partition}:iam::{account}:{caller}"
_KEY = "{kms_key}"

_SIMULATE = "iam:SimulatePrincipalPolicy"


def _actions(service: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{service}:{name}" for name in names)


_READ = _actions("dynamodb", "BatchGetItem", "GetItem", "Query", "Scan")
_WRITE = _actions(
    *("dynamodb", "BatchWriteItem", "ConditionCheckItem", "DeleteItem", "PartiQLInsert", "PutItem", "UpdateItem")
)
_DESCRIBE = _actions("dynamodb", "DescribeContinuousBackups", "DescribeTable")
_TAKE = _actions("sqs", "ChangeMessageVisibility", "DeleteMessage", "ReceiveMessage")
_GET_SETTINGS = _actions(
    *("s3", "GetBucketObjectLockConfiguration", "GetBucketPolicy", "GetBucketPublicAccessBlock"),
    *("GetBucketVersioning", "GetEncryptionConfiguration"),
)

POLICIES = {
    Level.READING: (
        Statement("FindStack", ("cloudformation:DescribeStacks",), (_STACK,)),
        Statement("ReadObjects", ("s3:GetObject",), _OBJECTS),
        Statement("ListObjects", ("s3:ListBucket",), (_BUCKET,)),
        Statement("ReadTables", _READ, (_INDEX, _STATE)),
        Statement("QueryIndexes", ("dynamodb:Query",), (f"{_STATE}/index/by_bucket",)),
        Statement("ReadDeadLetters", _actions("sqs", "ChangeMessageVisibility", "ReceiveMessage"), (_DEAD_LETTERS,)),
        Statement("DecryptWithKey", ("kms:Decrypt",), (_KEY,)),
    ),
    Level.REPLAYING: (
        Statement("WriteState", (*_WRITE, "dynamodb:PartiQLDelete", "dynamodb:PartiQLUpdate"), (_STATE,)),
        Statement("SendTasks", ("sqs:SendMessage",), (_QUEUE,)),
        Statement("DeleteDeadLetters", ("sqs:DeleteMessage",), (_DEAD_LETTERS,)),
        Statement("EncryptWithKey", ("kms:GenerateDataKey",), (_KEY,)),
    ),
    Level.CORRECTING: (
        Statement("RecordCorrections", ("s3:PutObject",), (_CORRECTIONS,)),
        Statement("FollowCorrections", _actions("dynamodb", "BatchWriteItem", "DeleteItem", "UpdateItem"), (_INDEX,)),
        Statement("EncryptWithKey", ("kms:GenerateDataKey",), (_KEY,)),
    ),
    Level.ADMINISTERING: (
        Statement("CreateObjects", ("s3:PutObject",), _OBJECTS),
        Statement("WriteIndex", _WRITE, (_INDEX,)),
        Statement("DeleteIndexFilesAndCopies", ("s3:DeleteObject",), (_INDEX_FILES, _COPIES)),
        Statement("BuryTasks", ("sqs:SendMessage",), (_DEAD_LETTERS,)),
        Statement("TakeTasks", _TAKE, (_QUEUE,)),
        Statement("FetchBackups", ("s3:GetObject",), (f"{_BUCKET}/backups/*",)),
        Statement("KeepPartialValues", _actions("s3", "GetObject", "PutObject"), (f"{_BUCKET}/partials/*",)),
    ),
    Level.INSPECTING: (
        Statement("ListResources", ("cloudformation:ListStackResources",), (_STACK,)),
        Statement("InspectFunctions", ("lambda:GetFunction", "lambda:GetFunctionConfiguration"), _FUNCTIONS),
        Statement("InspectPlanning", ("lambda:ListFunctionEventInvokeConfigs",), (_PLANNER,)),
        Statement("InspectSources", ("lambda:GetEventSourceMapping",), _SOURCES),
        Statement("InspectQueues", ("sqs:GetQueueAttributes",), (_QUEUE, _DEAD_LETTERS, _BUFFER, _LOST_REQUESTS)),
        Statement("InspectTables", _DESCRIBE, (_INDEX, _STATE)),
        Statement("InspectBucket", _GET_SETTINGS, (_BUCKET,)),
        Statement("InspectApiLogs", ("apigateway:GET",), (_API_ACCOUNT,)),
        Statement("InspectAlarms", ("cloudwatch:DescribeAlarms",), (_ALARMS,)),
        Statement("InspectMetrics", ("cloudwatch:GetMetricData",), ("*",)),
        Statement("SimulatePermissions", (_SIMULATE,), (_CALLER,)),
    ),
    Level.PRODUCING: (Statement("SendEvents", ("execute-api:Invoke",), (_INGEST,)),),
}


def permissions(deployed: DeployedStack) -> Iterator[Permission]:
    """Yield every permission of every level, and whether the caller has it."""
    simulation = _Simulation(deployed.clients)
    names = _names(deployed, simulation.caller)
    for level, statements in POLICIES.items():
        for statement in statements:
            for resource in filter(None, (each.format(**names) for each in statement.resources)):  # perhaps no key
                for action, answer in zip(statement.actions, simulation.ask(statement.actions, resource), strict=True):
                    yield Permission(level, action, resource, *answer)


def _names(deployed: DeployedStack, caller: str) -> dict[str, str]:
    stack = deployed.stack

    def resource(logical: str) -> str:
        with suppress(StoreError):
            return deployed.resource(logical).rpartition("/")[2]  # a queue's is its URL
        return ""

    names = asdict(stack) | {
        "stack": stack.name,
        **{name: getattr(deployed, name) for name in ("partition", "region", "account", "queue", "dead_letters")},
        **{f"{name}_function": deployed.outputs.get(f"{name.title()}Function") for name in _FUNCTION_NAMES},
        "source_id": resource(SOURCE),
        "recorder_source_id": resource(RECORDER_SOURCE),
        "ingest_queue": resource(BUFFER),
        "lost_requests": resource(LOST_REQUESTS),
        "api_id": stack.api_url.removeprefix("https://").partition(".")[0],
        "caller": caller.rpartition(":")[2],
    }
    return {name: value or "*" for name, value in names.items()} | {"kms_key": deployed.parameters.get("KmsKeyArn", "")}


_Answer = tuple[bool | None, str, bool]
"""Whether it is allowed, why not, and whether another policy forbids it."""


class _Simulation:
    """Asks IAM what the caller's policies allow. `caller` is the ARN of its user or role; empty if it has none."""

    def __init__(self, clients: Clients) -> None:
        self._iam = clients.client("iam")
        self._unknown = ""  # why IAM does not answer
        self._denied = False
        self.caller = ""
        try:
            arn = clients.caller()
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
                return [_answer(results.get(action)) for action in actions]
            except StoreError as error:
                self._unknown = f"IAM does not simulate: {briefly(error)}"
                self._denied = isinstance(error, Refused) and denied(error)
        lacking = {_SIMULATE} if self._denied else set()
        return [(False if action in lacking else None, self._unknown, False) for action in actions]

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


def _answer(result: EvaluationResultTypeDef | None) -> _Answer:
    if result is None:
        return None, "IAM's simulation leaves it out", False
    decision = result["EvalDecision"]
    if decision == "allowed":
        return True, "", False
    if result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations") is False:
        return False, "a policy of the organization denies it", True
    if result.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary") is False:
        return False, "the permissions boundary denies it", True
    return False, f"IAM's simulation: {decision}", decision == "explicitDeny"
