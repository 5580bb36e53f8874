"""boto3 clients: one of each service and process, whose errors are ours.

boto3 is imported where a client is made, so that opening a store is all that a command pays for before it needs one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pik.errors import StoreError
from pik.stores.aws.errors import Refused, translated

if TYPE_CHECKING:
    import boto3

CONNECTIONS = 32
"""Calls of one client that may be under way at the same time."""

_ATTEMPTS, _FUNCTION_ATTEMPTS = 5, 4
_CONNECTING, _FUNCTION_CONNECTING = 5, 2  # seconds
_READING, _FUNCTION_READING = 30, 5
"""In a function, which lives 29 seconds if somebody waits for its answer, a call that stalls is to be sent again before
that, and if need be refused."""


@dataclass(slots=True)
class Clients:
    """Makes clients when they are asked for, with the caller's own credentials. Picklable: a worker process makes its
    own."""

    region: str | None = None
    profile: str | None = None
    _made: dict[str, Client] = field(default_factory=dict, repr=False, compare=False)
    _session: Any = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Callable[..., Clients], tuple[str | None, str | None]]:
        return Clients, (self.region, self.profile)

    def client(self, service: str) -> Client:
        """The client of `service`. Raises StoreError without credentials or region."""
        if service not in self._made:
            self._made[service] = Client(service, self._boto(service))
        return self._made[service]

    def identity(self) -> tuple[Any, str]:
        """Credentials as they are now, and the region. Raises StoreError without either."""
        from botocore.exceptions import BotoCoreError, NoCredentialsError, NoRegionError

        try:
            if self._session is None:  # kept, because it renews credentials that expire
                self._session = self._new_session()
            credentials = self._session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            if self._session.region_name is None:
                raise NoRegionError
            return credentials.get_frozen_credentials(), self._session.region_name
        except BotoCoreError as error:
            raise translated("execute-api", "", error) from None

    def _new_session(self) -> boto3.Session:
        import boto3

        # Of the variables that name a region, boto3 itself knows AWS_DEFAULT_REGION only.
        region = self.region or os.environ.get("AWS_REGION") or None
        return boto3.Session(profile_name=self.profile, region_name=region)

    def _boto(self, service: str) -> Any:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        # "standard" retries throttling, 5xx and lost connections after a random part of a doubling delay (full jitter).
        in_function = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
        config = Config(
            retries={"mode": "standard", "total_max_attempts": _FUNCTION_ATTEMPTS if in_function else _ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            connect_timeout=_FUNCTION_CONNECTING if in_function else _CONNECTING,
            read_timeout=_FUNCTION_READING if in_function else _READING,
            user_agent_extra="pik",
        )
        try:
            session = self._new_session()
            return session.client(service, config=config)  # type: ignore[call-overload]  # any service
        except BotoCoreError as error:
            raise translated(service, "", error) from None


@dataclass(frozen=True, slots=True)
class Client:
    """A boto3 client of which each operation raises StoreError, or Refused with the service's error code."""

    service: str
    boto: Any

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        method = getattr(self.boto, operation)

        def call(**parameters: Any) -> Any:
            from botocore.exceptions import BotoCoreError, ClientError

            try:
                return method(**parameters)
            except (BotoCoreError, ClientError) as error:
                raise translated(self.service, operation, error) from None

        return call


__all__ = ["CONNECTIONS", "Client", "Clients", "Refused", "StoreError"]
