"""botocore's errors as ours, which name what is missing and say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pik.errors import StoreError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

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

SERVICES = {
    "cloudformation": "CloudFormation",
    "cloudwatch": "CloudWatch",
    "dynamodb": "DynamoDB",
    "execute-api": "API Gateway",
    "iam": "IAM",
    "lambda": "Lambda",
    "s3": "S3",
    "sqs": "SQS",
    "sts": "STS",
}
"""What people call the services that boto3 calls so."""


class Refused(StoreError):
    """A service answered with an error; `code` is the service's name for it. `retried` tells whether boto3 had sent the
    call before, without an answer or with one that asked for patience."""

    def __init__(self, message: str, *, code: str, hint: str = "", retried: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retried = retried


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
    """Whether the service refused because the caller may not do that."""
    return error.code in _DENIED


def briefly(error: StoreError) -> str:
    """Why something cannot be seen, in few words: which action is denied, if one is."""
    found = re.search(r"not authorized to perform: (\w+:\w+)", error.message)
    return f"{found[1]} is denied" if isinstance(error, Refused) and denied(error) and found else error.message


def _failure(service: str, error: BotoCoreError) -> StoreError:
    from botocore import exceptions as boto

    if isinstance(error, boto.ProfileNotFound):
        return StoreError(str(error), hint="aws configure list-profiles")
    if isinstance(error, boto.NoRegionError):
        return StoreError("no AWS region is set", hint="aws://STACK?region=eu-central-1, or set AWS_REGION")
    if isinstance(
        error,
        boto.NoCredentialsError
        | boto.PartialCredentialsError
        | boto.CredentialRetrievalError
        | boto.TokenRetrievalError,
    ):
        return StoreError(f"no usable AWS credentials: {error}", hint="aws sts get-caller-identity")
    if isinstance(error, boto.SSOError):
        return StoreError(f"the AWS single sign-on session cannot be used: {error}", hint="aws sso login")
    return StoreError(f"cannot reach {service}: {error}", hint="check the network, the region and AWS_ENDPOINT_URL")


def _refusal(service: str, error: ClientError) -> Refused:
    operation, answer = error.operation_name, error.response
    code = answer.get("Error", {}).get("Code", "")
    message = answer.get("Error", {}).get("Message", "") or code
    if code in _EXPIRED:
        return Refused("the AWS credentials have expired", code=code, hint="log in again: aws sso login")
    if code in _UNKNOWN:
        return Refused(f"AWS does not know these credentials ({code})", code=code, hint="aws sts get-caller-identity")
    if code in _DENIED:
        return Refused(f"{service} denies {operation}: {message}", code=code, hint="what is missing: pik stack doctor")
    retried = bool(answer.get("ResponseMetadata", {}).get("RetryAttempts"))
    return Refused(f"{service} refused {operation} ({code}): {message}", code=code, retried=retried)
