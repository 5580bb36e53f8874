"""A stack as CloudFormation knows it: its parameters, and what its resources are really called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pik.errors import StoreError
from pik.stores.aws.clients import Clients
from pik.stores.aws.deployment.outputs import Stack, find_stack
from pik.stores.aws.errors import translated

FUNCTIONS = ("IngestFunction", "ReplayFunction", "ProcessorFunction")
SOURCE = "ProcessorSource"
"""The event source mapping that takes tasks to the processor."""

ALARMS = (
    *("DeadLettersAlarm", "OldestMessageAlarm", "IngestErrorsAlarm", "ReplayErrorsAlarm", "ProcessorErrorsAlarm"),
    *("IngestThrottlesAlarm", "ReplayThrottlesAlarm", "ProcessorThrottlesAlarm", "ApiErrorsAlarm", "LagAlarm"),
)
"""How template.yaml calls them."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """`arn` is the stack's own; `state` is CloudFormation's word; parameters and outputs by name."""

    clients: Clients
    stack: Stack
    arn: str
    state: str
    reason: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    _resources: dict[str, str] = field(default_factory=dict)

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
        """The physical id of what the template calls so; empty if the stack has none. Raises StoreError."""
        if not self._resources:
            paginator = self.clients.client("cloudformation").get_paginator("list_stack_resources")
            with translated("cloudformation"):
                for page in paginator.paginate(StackName=self.stack.name):
                    for each in page["StackResourceSummaries"]:
                        self._resources[each["LogicalResourceId"]] = each.get("PhysicalResourceId", "")
        return self._resources.get(logical, "")

    def function(self, logical: str) -> str:
        """A function's name. Raises StoreError if the stack does not tell."""
        if not self.outputs.get(logical):
            raise StoreError(f"the stack has no output {logical}")
        return self.outputs[logical]


def look_up(clients: Clients, name: str) -> Deployed:
    """The stack that is called so. Raises as `find_stack` does."""
    stack = find_stack(clients, name)
    with translated("cloudformation"):
        (found,) = clients.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return Deployed(
        clients=clients,
        stack=stack,
        arn=found["StackId"],
        state=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        parameters={each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", ())},
        outputs={each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())},
    )
