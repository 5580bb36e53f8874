"""Which resources a stack has: from CloudFormation's outputs, or inside of it from a function's environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields

from pik.errors import NotFound, StoreError
from pik.stores.aws.clients import Clients
from pik.stores.aws.errors import Refused, denied, translated


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployed stack's resources, by name or URL. `raw_retention_days` is what its parameter says; 0 is for good."""

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


_OPTIONAL = {"api_url", "version", "raw_retention_days"}


def output_name(field: str) -> str:
    """The CloudFormation output that a field of Stack comes from: raw_bucket is RawBucket."""
    return field.title().replace("_", "")


def find_stack(clients: Clients, name: str) -> Stack:
    """The resources of the stack that is called so. Raises NotFound, StoreError."""
    cloudformation = clients.client("cloudformation")
    try:
        with translated("cloudformation"):
            stacks = cloudformation.describe_stacks(StackName=name)["Stacks"]
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
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", ())}
    missing = [output_name(field.name) for field in _required() if not outputs.get(output_name(field.name))]
    if missing:
        raise StoreError(
            f"the stack {name} has no output {', '.join(missing)}: it is not one of pik's, or not deployed to its end",
            hint=f"aws cloudformation describe-stacks --stack-name {name}",
        )
    values = {field.name: outputs.get(output_name(field.name), "") for field in fields(Stack) if field.name != "name"}
    return Stack(name=name, **values)


def stack_of(environment: Mapping[str, str]) -> Stack:
    """The stack that a function runs in. Raises StoreError naming the variable that is not set."""
    values = {}
    for field in fields(Stack):
        variable = "PIK_STACK" if field.name == "name" else f"PIK_{field.name.upper()}"
        if not environment.get(variable) and field.name not in _OPTIONAL:
            raise StoreError(f"the environment variable {variable} is not set", hint="template.yaml sets it")
        values[field.name] = environment.get(variable, "")
    return Stack(**values)


def _required() -> list[Field[str]]:
    return [field for field in fields(Stack) if field.name not in _OPTIONAL | {"name"}]
