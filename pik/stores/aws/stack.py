"""A stack's resources, parameters and outputs: from CloudFormation, or in its functions from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from pik.errors import NotFound, StoreError
from pik.stores.aws.clients import Clients, Refused, denied, translated

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackTypeDef


FUNCTIONS = ("IngestFunction", "ReplayFunction", "ProcessorFunction")
SOURCE = "ProcessorSource"
"""The event source mapping that delivers tasks to the processor."""

ALARMS = (
    *("DeadLettersAlarm", "OldestMessageAlarm", "IngestErrorsAlarm", "ReplayErrorsAlarm", "ProcessorErrorsAlarm"),
    *("IngestThrottlesAlarm", "ReplayThrottlesAlarm", "ProcessorThrottlesAlarm", "ApiErrorsAlarm", "LagAlarm"),
)
"""Logical names in template.yaml, like those above."""

_OPTIONAL = {"api_url", "version", "raw_retention_days"}


@dataclass(frozen=True, slots=True)
class Stack:
    """The resources that a store needs, by name or URL. `raw_retention_days` is the parameter's value; 0: forever."""

    name: str
    raw_bucket: str
    index_table: str
    state_table: str
    queue_url: str
    dead_letter_queue_url: str
    api_url: str = ""
    version: str = ""
    raw_retention_days: str = "0"

    @property
    def retention_days(self) -> int | None:
        """Days after which raw expires; None: never."""
        return int(self.raw_retention_days or "0") or None


_FIELDS = tuple(each.name for each in fields(Stack) if each.name != "name")


def output_name(field_name: str) -> str:
    """Return the CloudFormation output that a field of Stack comes from: raw_bucket is RawBucket."""
    return field_name.title().replace("_", "")


def find_stack(clients: Clients, name: str) -> Stack:
    """Return the resources of the stack `name`. Raises NotFound, StoreError."""
    return _resources(name, _outputs(_describe(clients, name)))


def stack_of(environment: Mapping[str, str]) -> Stack:
    """Return the stack that a function runs in. Raises StoreError naming the variable that is not set."""
    values = {"name": environment.get("PIK_STACK", "")}
    values |= {each: environment.get(f"PIK_{each.upper()}", "") for each in _FIELDS}
    for each, value in values.items():
        if not value and each not in _OPTIONAL:
            variable = "PIK_STACK" if each == "name" else f"PIK_{each.upper()}"
            raise StoreError(f"the environment variable {variable} is not set", hint="template.yaml sets it")
    return Stack(**values)


@dataclass(frozen=True, slots=True)
class DeployedStack:
    """A stack as CloudFormation describes it. `state` is its stack status; parameters and outputs are by name."""

    clients: Clients
    stack: Stack
    arn: str
    state: str
    reason: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    _physical_ids: dict[str, str] = field(default_factory=dict)

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1]

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    @property
    def account(self) -> str:
        return self.arn.split(":")[4]

    @property
    def queue(self) -> str:
        """The replay queue's name."""
        return self.stack.queue_url.rpartition("/")[2]

    @property
    def dead_letters(self) -> str:
        """The name of the queue of dead letters."""
        return self.stack.dead_letter_queue_url.rpartition("/")[2]

    def resource(self, logical: str) -> str:
        """Return the physical id of a resource of the template; empty if the stack has none. Raises StoreError."""
        if not self._physical_ids:
            paginator = self.clients.client("cloudformation").get_paginator("list_stack_resources")
            with translated("cloudformation"):
                for page in paginator.paginate(StackName=self.stack.name):
                    for each in page["StackResourceSummaries"]:
                        self._physical_ids[each["LogicalResourceId"]] = each.get("PhysicalResourceId", "")
        return self._physical_ids.get(logical, "")

    def function(self, logical: str) -> str:
        """Return a function's name. Raises StoreError if the stack has no such output."""
        if not self.outputs.get(logical):
            raise StoreError(f"the stack has no output {logical}")
        return self.outputs[logical]


def describe_stack(clients: Clients, name: str) -> DeployedStack:
    """Return the stack `name` as CloudFormation describes it. Raises as `find_stack` does."""
    found = _describe(clients, name)
    outputs = _outputs(found)
    return DeployedStack(
        clients=clients,
        stack=_resources(name, outputs),
        arn=found["StackId"],
        state=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        parameters={each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", ())},
        outputs=outputs,
    )


def _describe(clients: Clients, name: str) -> StackTypeDef:
    cloudformation = clients.client("cloudformation")
    try:
        with translated("cloudformation"):
            return cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except Refused as error:
        if denied(error):  # the doctor could not find the stack either
            hint = "it takes cloudformation:DescribeStacks on the stack; docs/iam.md has the policy"
            raise StoreError(error.message, hint=hint) from None
        if error.code != "ValidationError":
            raise
        raise NotFound(
            f"there is no stack {name} in this account in {cloudformation.meta.region_name}",
            hint="aws cloudformation list-stacks; aws://STACK?region=…&profile=… names another region or account",
        ) from None


def _outputs(stack: StackTypeDef) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}


def _resources(name: str, outputs: Mapping[str, str]) -> Stack:
    values = {each: outputs.get(output_name(each), "") for each in _FIELDS}
    missing = [output_name(each) for each, value in values.items() if not value and each not in _OPTIONAL]
    if missing:
        raise StoreError(
            f"the stack {name} has no output {', '.join(missing)}: it is not a pik stack, or not completely deployed",
            hint=f"aws cloudformation describe-stacks --stack-name {name}",
        )
    return Stack(name=name, **values)
