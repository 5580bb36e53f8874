"""Calling a service of AWS with the caller's own credentials, and its errors as ours."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pik.errors import TargetUnavailable, UsageError
from pik.ports.target import one_line, shown_url

if TYPE_CHECKING:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_UNKNOWN = {
    *("AuthFailure", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSignatureException"),
    *("SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidSecurity", "IncompleteSignature"),
}
_DENIED = {
    *("AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"),
    "InvalidAccountIdException",
}
_ABSENT = {
    *("NonExistentQueue", "QueueDoesNotExist", "NotFound", "NotFoundException", "ResourceNotFoundException"),
    "InvalidAddress",  # of SQS: no queue can have this URL
}
_ARN = re.compile(r"arn:[\w-]+:(?P<service>\w+):(?P<region>[\w-]+):(?P<account>\d*):(?P<name>.+)")
_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")


class AwsError(TargetUnavailable):
    """A service answered with an error. `code` is its name for it, without a prefix."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code

    @property
    def denied(self) -> bool:
        """Whether the caller lacks a permission."""
        return self.code in _DENIED

    @property
    def absent(self) -> bool:
        """Whether there is no such queue, topic or bus."""
        return self.code in _ABSENT


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL names: a queue, topic or bus by its name or ARN, perhaps of another account."""

    shown: str
    name: str
    arn: str = ""
    account: str = ""
    region: str | None = None
    profile: str | None = None


def address(url: str) -> Address:
    """Return what a URL such as `sqs://NAME?region=…&profile=…` names, without a look at whether it is a name. Raises
    UsageError."""
    shown = shown_url(url)
    scheme, _, rest = url.partition("://")
    name, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(options.keys() - {"region", "profile"}):
        raise UsageError(
            f"--target {shown}: unknown option {unknown[0]!r}", hint=f"--target '{scheme}://NAME?region=…&profile=…'"
        )
    region = options.get("region")
    if region is not None and not _REGION.fullmatch(region):
        raise UsageError(f"--target {shown}: {region!r} is not a region", hint=f"{scheme}://NAME?region=eu-central-1")
    if not name.startswith("arn:"):
        return Address(shown, name, region=region, profile=options.get("profile"))
    found = _ARN.fullmatch(name)
    if found is None or found["service"] != scheme:
        raise UsageError(f"--target {shown}: {name!r} is not the ARN of a resource of {scheme}", hint="compare the ARN")
    if region is not None and region != found["region"]:
        raise UsageError(f"--target {shown}: the ARN is of another region", hint="leave out ?region=…")
    return Address(shown, found["name"], name, found["account"], found["region"], options.get("profile"))


@dataclass(slots=True)
class Service:
    """One service of AWS, by boto3's name for it. `clients` are boto3's, each made at its first call."""

    name: str
    title: str
    address: Address
    clients: dict[str, Any] = field(default_factory=dict, repr=False)

    def call(self, operation: str, permission: str, **parameters: Any) -> Any:
        """Return the answer of an operation, which needs `permission`. Raises AwsError if the service answered with an
        error, TargetUnavailable if it could not be asked, UsageError without a region."""
        return self._call(self.name, operation, permission, parameters)

    def prepare(self) -> None:
        """Make the client, so that threads do not make several. Raises TargetUnavailable, UsageError."""
        self._client(self.name)

    def own_arn(self, name: str) -> str:
        """Return the ARN of what has this name in the caller's account and the region. Raises TargetUnavailable."""
        region = self.region()
        identity = self._call("sts", "get_caller_identity", "sts:GetCallerIdentity", {})
        partition = identity["Arn"].split(":")[1]
        return f"arn:{partition}:{self.name}:{region}:{identity['Account']}:{name}"

    def region(self) -> str:
        """Return the region that is called. Raises TargetUnavailable if none is set."""
        return str(self._client(self.name).meta.region_name)

    def close(self) -> None:
        """Close the connections."""
        for client in self.clients.values():
            client.close()
        self.clients.clear()

    def _call(self, service: str, operation: str, permission: str, parameters: dict[str, Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client(service), operation)(**parameters)
        except ClientError as error:
            raise self._refusal(error, permission) from None
        except BotoCoreError as error:
            raise self._failure(error) from None

    def _client(self, service: str) -> Any:
        if service in self.clients:
            return self.clients[service]
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        # "standard" repeats throttled calls, 5xx and lost connections after a random part of a doubling delay.
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 6},
            connect_timeout=5,
            read_timeout=30,
            user_agent_extra="pik",
        )
        try:
            made: Any = self._session().client(service, config=config)  # type: ignore[call-overload]  # any service
        except BotoCoreError as error:
            raise self._failure(error) from None
        self.clients[service] = made
        return made

    def _session(self) -> boto3.Session:
        import boto3

        # Of the variables that name a region, boto3 itself knows AWS_DEFAULT_REGION only.
        region = self.address.region or os.environ.get("AWS_REGION") or None
        return boto3.Session(profile_name=self.address.profile, region_name=region)

    def _refusal(self, error: ClientError, permission: str) -> AwsError:
        answer = error.response.get("Error", {})
        whole_code = answer.get("Code", "")
        code = whole_code.rpartition(".")[2]
        shown = self.address.shown
        if code in _EXPIRED:
            return AwsError(f"{shown}: the AWS credentials have expired", code=code, hint="log in again: aws sso login")
        if code in _UNKNOWN:
            message = f"{shown}: AWS does not know these credentials ({code})"
            return AwsError(message, code=code, hint="aws sts get-caller-identity")
        text = one_line(f"{self.title} refused {error.operation_name} ({whole_code}): {answer.get('Message') or code}")
        hint = self.hint(whole_code, permission) or "run the same command again later"
        return AwsError(f"{shown}: {text}", code=code, hint=hint)

    def hint(self, code: str, permission: str) -> str:
        """Return what to do about an error that every message would get; nothing for another one."""
        if code.upper().startswith("KMS") and "Throttl" not in code:
            return f"allow kms:GenerateDataKey and kms:Decrypt on the key of {self.address.name}"
        code = code.rpartition(".")[2]
        if code in _DENIED:
            return f"allow {permission} on {self.address.arn or self.address.name}"
        return "compare the name, the region and the account" if code in _ABSENT else ""

    def _failure(self, error: BotoCoreError) -> TargetUnavailable | UsageError:
        from botocore import exceptions as boto

        shown = self.address.shown
        if isinstance(error, boto.ProfileNotFound):
            return UsageError(f"--target {shown}: {error}", hint="aws configure list-profiles")
        if isinstance(error, boto.NoRegionError):
            return UsageError(f"--target {shown}: no AWS region is set", hint="add ?region=eu-central-1")
        if isinstance(
            error,
            boto.NoCredentialsError
            | boto.PartialCredentialsError
            | boto.CredentialRetrievalError
            | boto.TokenRetrievalError,
        ):
            what = type(error).__name__  # its text may be what a program for credentials printed
            return TargetUnavailable(f"{shown}: no usable AWS credentials ({what})", hint="aws sts get-caller-identity")
        if isinstance(error, boto.SSOError):
            return TargetUnavailable(f"{shown}: the AWS single sign-on session cannot be used", hint="aws sso login")
        return TargetUnavailable(
            f"{shown}: cannot reach {self.title}: {one_line(str(error))}",
            hint="check the network, the region and AWS_ENDPOINT_URL",
        )
