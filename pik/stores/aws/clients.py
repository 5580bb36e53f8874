"""boto3 clients with their types, botocore's errors as ours, and concurrent calls.

boto3 is imported where a client is made, so that opening a store is all that a command pays for before it needs one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from pik.errors import NoAccess, StoreError
from pik.runtime.parallel import map_in_threads

if TYPE_CHECKING:
    import boto3
    from botocore.credentials import ReadOnlyCredentials
    from botocore.exceptions import BotoCoreError, ClientError
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

CONNECTIONS = 32
"""Calls of one client that may be under way at the same time."""

_LIMITS, _FUNCTION_LIMITS = (5, 5, 30), (4, 2, 5)
"""Attempts of a call, seconds for its connection and seconds for its answer. A function ends after 29 seconds where a
caller waits for it: a stalled call must be sent again, or fail, before."""

_STS_LIMITS = 2, 2, 5
"""Commands go on without an answer. A network without a way to STS gives none."""


@dataclass(slots=True)
class Clients:
    """Makes clients on demand, with the caller's own credentials. Picklable: a worker process makes its own.

    All of them share a session, which finds credentials, and reads what botocore knows of services, once. Calls raise
    botocore's errors; adapters make them inside `translated`.
    """

    region: str | None = None
    profile: str | None = None
    _made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _session: Any = field(default=None, repr=False, compare=False)
    _making: Any = field(default_factory=Lock, repr=False, compare=False)
    """A session makes one client at a time."""

    def __reduce__(self) -> tuple[Callable[..., Clients], tuple[str | None, str | None]]:
        return Clients, (self.region, self.profile)

    @overload
    def client(self, service: Literal["cloudformation"]) -> CloudFormationClient: ...
    @overload
    def client(self, service: Literal["cloudwatch"]) -> CloudWatchClient: ...
    @overload
    def client(self, service: Literal["dynamodb"]) -> DynamoDBClient: ...
    @overload
    def client(self, service: Literal["iam"]) -> IAMClient: ...
    @overload
    def client(self, service: Literal["lambda"]) -> LambdaClient: ...
    @overload
    def client(self, service: Literal["s3"]) -> S3Client: ...
    @overload
    def client(self, service: Literal["sqs"]) -> SQSClient: ...
    @overload
    def client(self, service: Literal["sts"]) -> STSClient: ...
    @overload
    def client(self, service: str) -> Any: ...
    def client(self, service: str) -> Any:
        """Return the client of `service`. Raises StoreError without credentials or region."""
        if service not in self._made:
            with self._making:
                if service not in self._made:
                    self._made[service] = self._new_client(service)
        return self._made[service]

    def identity(self) -> tuple[ReadOnlyCredentials, str]:
        """Return the current credentials and the region. Raises StoreError without either."""
        from botocore.exceptions import NoCredentialsError, NoRegionError

        with translated("execute-api"), self._making:
            session = self._shared_session()
            credentials = session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            if session.region_name is None:
                raise NoRegionError
            return credentials.get_frozen_credentials(), session.region_name

    def caller(self) -> str:
        """Return the ARN whose credentials these are. Raises StoreError."""
        with translated("sts"):
            return self.client("sts").get_caller_identity()["Arn"]

    def _shared_session(self) -> boto3.Session:
        """Return the session; it is kept, because it renews credentials that expire."""
        import boto3

        if self._session is None:
            # Of the variables that name a region, boto3 itself knows AWS_DEFAULT_REGION only.
            region = self.region or os.environ.get("AWS_REGION") or None
            self._session = boto3.Session(profile_name=self.profile, region_name=region)
        session: boto3.Session = self._session
        return session

    def _new_client(self, service: str) -> Any:
        from botocore.config import Config

        # "standard" retries throttling, 5xx and lost connections after a random part of a doubling delay (full jitter).
        in_function = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
        limits = _STS_LIMITS if service == "sts" else _FUNCTION_LIMITS if in_function else _LIMITS
        attempts, to_connect, to_answer = limits
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=CONNECTIONS,
            connect_timeout=to_connect,
            read_timeout=to_answer,
            user_agent_extra="pik",
        )
        with translated(service):
            return self._shared_session().client(service, config=config)  # type: ignore[call-overload]  # any service


_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_UNKNOWN = {
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "AuthFailure",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "403", "Forbidden"}

THROTTLED = {
    *("Throttling", "ThrottlingException", "ThrottlingError", "RequestLimitExceeded", "SlowDown"),
    *("ProvisionedThroughputExceeded", "ProvisionedThroughputExceededException", "TooManyRequestsException"),
}
"""Codes of services that ask for patience."""

SERVICES = {
    "apigateway": "API Gateway",
    "cloudformation": "CloudFormation",
    "cloudwatch": "CloudWatch",
    "dynamodb": "DynamoDB",
    "emr-serverless": "EMR Serverless",
    "execute-api": "API Gateway",
    "iam": "IAM",
    "lambda": "Lambda",
    "s3": "S3",
    "sqs": "SQS",
    "sts": "STS",
}
"""The services' names by boto3's."""


class Refused(StoreError):
    """A service answered with an error; `code` is the service's name for it. `retried` tells whether boto3 had sent the
    call before, without an answer or with one that asked for patience."""

    def __init__(self, message: str, *, code: str, hint: str = "", retried: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retried = retried


class AccessRefused(Refused, NoAccess):
    """A service does not accept the credentials, or not for this call."""


@contextmanager
def translated(service: str) -> Iterator[None]:
    """Raise botocore's errors as StoreError meanwhile, and those that `service` itself answered with as Refused."""
    try:
        yield
    except Exception as error:
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, ClientError):
            raise _refusal(SERVICES.get(service, service), error) from None
        if isinstance(error, BotoCoreError):
            raise _failure(SERVICES.get(service, service), error) from None
        raise


def denied(error: Refused) -> bool:
    """Return whether the service refused because the caller lacks a permission."""
    return error.code in _DENIED


def throttled(error: StoreError) -> bool:
    """Return whether a service asked for patience, and boto3's attempts were used up."""
    return isinstance(error, Refused) and error.code in THROTTLED


def briefly(error: StoreError) -> str:
    """Return an error in few words: only the action, if it was denied."""
    found = re.search(r"not authorized to perform: ([\w-]+:\w+)", error.message)
    return f"{found[1]} is denied" if isinstance(error, Refused) and denied(error) and found else error.message


def _failure(service: str, error: BotoCoreError) -> NoAccess:
    from botocore import exceptions as boto

    if isinstance(error, boto.ProfileNotFound):
        return NoAccess(str(error), hint="aws configure list-profiles")
    if isinstance(error, boto.NoRegionError):
        return NoAccess("no AWS region is set", hint="aws://STACK?region=eu-central-1, or set AWS_REGION")
    if isinstance(
        error,
        boto.NoCredentialsError
        | boto.PartialCredentialsError
        | boto.CredentialRetrievalError
        | boto.TokenRetrievalError,
    ):
        return NoAccess(f"no usable AWS credentials: {error}", hint="aws sts get-caller-identity")
    if isinstance(error, boto.SSOError):
        return NoAccess(f"the AWS single sign-on session cannot be used: {error}", hint="aws sso login")
    return NoAccess(f"cannot reach {service}: {error}", hint="check the network, the region and AWS_ENDPOINT_URL")


def _refusal(service: str, error: ClientError) -> Refused:
    operation, answer = error.operation_name, error.response
    code = answer.get("Error", {}).get("Code", "")
    message = answer.get("Error", {}).get("Message", "") or code
    if code in _EXPIRED:
        return AccessRefused("the AWS credentials have expired", code=code, hint="log in again: aws sso login")
    if code in _UNKNOWN:
        hint = "aws sts get-caller-identity"
        return AccessRefused(f"AWS does not know these credentials ({code})", code=code, hint=hint)
    if code in _DENIED:
        hint = "what is missing: pik stack doctor"
        return AccessRefused(f"{service} denies {operation}: {message}", code=code, hint=hint)
    retried = bool(answer.get("ResponseMetadata", {}).get("RetryAttempts"))
    hint = "run the same command again later" if code in THROTTLED else ""
    return Refused(f"{service} refused {operation} ({code}): {message}", code=code, hint=hint, retried=retried)


_FIRST = 8
_SLOW = 1.0  # seconds: a call that took so long has been throttled or kept waiting

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Flow:
    """Grows by one call with each answer that came swiftly, and halves with each slow one, as TCP does."""

    def __init__(self) -> None:
        self._allowed = float(_FIRST)

    def map(self, function: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Iterator[Result]:
        """Yield the results in the order of the arguments, of which no more are taken than are in flight."""

        def timed(argument: Argument) -> Result:
            begun = monotonic()
            try:
                return function(argument)
            finally:
                swift = monotonic() - begun < _SLOW
                allowed = self._allowed
                self._allowed = min(CONNECTIONS, allowed + 1 / allowed) if swift else max(1, allowed / 2)

        return map_in_threads(timed, arguments, CONNECTIONS, lambda: int(self._allowed))
