"""Where a stack's store is: the resources that its URL, CloudFormation's outputs or a function's environment name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from pik.errors import NotFound, StoreError, UsageError
from pik.stores.aws.clients import Clients, Refused, denied, throttled, translated

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackTypeDef


_NEEDED = {"raw_bucket", "index_table", "state_table"}
_OPTIONAL = {"api_url", "version", "raw_retention_days"}


@dataclass(frozen=True, slots=True)
class Stack:
    """The resources that a store needs, by name or URL. `raw_retention_days` is the parameter's value; 0: forever.

    Where the store's URL names bucket and tables, it may name no queues; what needs them is then refused.
    """

    name: str
    raw_bucket: str
    index_table: str
    state_table: str
    queue_url: str = ""
    dead_letter_queue_url: str = ""
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


class Location(NamedTuple):
    """What the URL of a deployed store says: clients for its region and account, the stack's name, and the resources
    that it names itself, by the fields of Stack."""

    clients: Clients
    name: str
    resources: Mapping[str, str]


def located(url: str) -> Location:
    """Take the URL of a deployed store apart. Raises UsageError."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = "region", "profile", *_FIELDS
    if unknown := [name for name in options if name not in known]:
        close = get_close_matches(unknown[0], known, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        hint = f"{meant}A store's URL may have {', '.join(known)}"
        raise UsageError(f"{url!r} is not a store: unknown parameter {unknown[0]!r}", hint=hint)
    if not parts.netloc or parts.path.strip("/"):
        raise UsageError(f"{url!r} is not a store", hint="aws://STACK or aws://STACK?region=eu-central-1&profile=NAME")
    if empty := [name for name, value in options.items() if not value]:
        raise UsageError(f"{url!r} is not a store: {empty[0]} is empty", hint="leave it out, or give it a value")
    if not options.get("raw_retention_days", "0").isdecimal():
        raise UsageError(f"{url!r} is not a store: raw_retention_days is not a number", hint="0: raw does not expire")
    clients = Clients(options.pop("region", None), options.pop("profile", None))
    return Location(clients, parts.netloc, options)


def find_stack(clients: Clients, name: str, named: Mapping[str, str] = MappingProxyType({})) -> Stack:
    """Return the resources of the stack `name`; those in `named` are taken from there, and if these are bucket and
    tables, CloudFormation is not asked. Raises NotFound, StoreError."""
    if named.keys() >= _NEEDED:
        return Stack(name=name, **named)
    return replace(resources_of(name, outputs_of(description(clients, name))), **named)


def direct_url(stack: Stack, region: str, profile: str | None = None) -> str:
    """Return the URL of the stack's store that names all resources, so that opening it does not ask CloudFormation."""
    options = {"region": region, "profile": profile or ""}
    options |= {each: getattr(stack, each) for each in _FIELDS if each != "version"}
    return f"aws://{stack.name}?{urlencode({name: one for name, one in options.items() if one}, safe='/:')}"


def stack_of(environment: Mapping[str, str]) -> Stack:
    """Return the stack that a function runs in. Raises StoreError naming the variable that is not set."""
    values = {"name": environment.get("PIK_STACK", "")}
    values |= {each: environment.get(f"PIK_{each.upper()}", "") for each in _FIELDS}
    for each, value in values.items():
        if not value and each not in _OPTIONAL:
            variable = "PIK_STACK" if each == "name" else f"PIK_{each.upper()}"
            raise StoreError(f"the environment variable {variable} is not set", hint="template.yaml sets it")
    return Stack(**values)


def parameter_change(stack: str, name: str, value: str) -> str:
    """Return the command that gives a parameter of the stack another value, and changes nothing else. It needs neither
    the template nor a build. Every other parameter must be named, too, or it gets its default."""
    others = f"Parameters[?ParameterKey!=`{name}`].{{ParameterKey: ParameterKey, UsePreviousValue: `true`}}"
    changed = f'`[{{"ParameterKey": "{name}", "ParameterValue": "{value}"}}]`'
    parameters = f"aws cloudformation describe-stacks --stack-name {stack} --output json --query"
    return (
        f"aws cloudformation update-stack --stack-name {stack} --use-previous-template"
        " --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND"
        f" --parameters \"$({parameters} '[Stacks[0].{others}, {changed}][]')\""
    )


def description(clients: Clients, name: str) -> StackTypeDef:
    """Return how CloudFormation describes the stack `name`. Raises NotFound, StoreError."""
    cloudformation = clients.client("cloudformation")
    try:
        with translated("cloudformation"):
            return cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except Refused as error:
        if denied(error):  # the doctor could not find the stack either
            hint = "it takes cloudformation:DescribeStacks on the stack; docs/iam.md has the policy"
            raise StoreError(error.message, hint=hint) from None
        if throttled(error):
            raise StoreError(
                error.message, hint="a URL that names the resources asks nothing: pik stack status"
            ) from None
        if error.code != "ValidationError":
            raise
        raise NotFound(
            f"there is no stack {name} in this account in {cloudformation.meta.region_name}",
            hint="aws cloudformation list-stacks; aws://STACK?region=…&profile=… names another region or account",
        ) from None


def outputs_of(stack: StackTypeDef) -> dict[str, str]:
    """Return the outputs of a stack, by name."""
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}


def resources_of(name: str, outputs: Mapping[str, str]) -> Stack:
    """Return the resources of the stack `name` by its outputs. Raises StoreError if one is missing."""
    values = {each: outputs.get(output_name(each), "") for each in _FIELDS}
    missing = [output_name(each) for each, value in values.items() if not value and each not in _OPTIONAL]
    if missing:
        raise StoreError(
            f"the stack {name} has no output {', '.join(missing)}: it is not a pik stack, or not completely deployed",
            hint=f"aws cloudformation describe-stacks --stack-name {name}",
        )
    return Stack(name=name, **values)
