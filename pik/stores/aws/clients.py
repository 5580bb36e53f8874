"""boto3 clients with their types, one per service and process.

boto3 is imported where a client is made, so that opening a store is all that a command pays for before it needs one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

from pik.stores.aws.errors import translated

if TYPE_CHECKING:
    import boto3
    from botocore.credentials import ReadOnlyCredentials
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

_ATTEMPTS, _FUNCTION_ATTEMPTS = 5, 4
_CONNECT_TIMEOUT, _FUNCTION_CONNECT_TIMEOUT = 5, 2  # seconds
_READ_TIMEOUT, _FUNCTION_READ_TIMEOUT = 30, 5
"""A function ends after 29 seconds where a caller waits for it: a stalled call must be sent again, or fail, before."""


@dataclass(slots=True)
class Clients:
    """Makes clients on demand, with the caller's own credentials. Picklable: a worker process makes its own.

    Calls raise botocore's errors; adapters make them inside `errors.translated`.
    """

    region: str | None = None
    profile: str | None = None
    _made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _session: Any = field(default=None, repr=False, compare=False)

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
            self._made[service] = self._new_client(service)
        return self._made[service]

    def identity(self) -> tuple[ReadOnlyCredentials, str]:
        """Return the current credentials and the region. Raises StoreError without either."""
        from botocore.exceptions import NoCredentialsError, NoRegionError

        with translated("execute-api"):
            if self._session is None:  # kept, because it renews credentials that expire
                self._session = self._new_session()
            credentials = self._session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            if self._session.region_name is None:
                raise NoRegionError
            return credentials.get_frozen_credentials(), self._session.region_name

    def _new_session(self) -> boto3.Session:
        import boto3

        # Of the variables that name a region, boto3 itself knows AWS_DEFAULT_REGION only.
        region = self.region or os.environ.get("AWS_REGION") or None
        return boto3.Session(profile_name=self.profile, region_name=region)

    def _new_client(self, service: str) -> Any:
        from botocore.config import Config

        # "standard" retries throttling, 5xx and lost connections after a random part of a doubling delay (full jitter).
        in_function = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
        config = Config(
            retries={"mode": "standard", "total_max_attempts": _FUNCTION_ATTEMPTS if in_function else _ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            connect_timeout=_FUNCTION_CONNECT_TIMEOUT if in_function else _CONNECT_TIMEOUT,
            read_timeout=_FUNCTION_READ_TIMEOUT if in_function else _READ_TIMEOUT,
            user_agent_extra="pik",
        )
        with translated(service):
            return self._new_session().client(service, config=config)  # type: ignore[call-overload]  # any service
