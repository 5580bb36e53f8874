"""What AWS and the way to it may refuse, as errors that name what is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pik.errors import StoreError

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
    call before, and got no answer or one that asked for patience. `reasons` are those of a cancelled transaction."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        hint: str = "",
        retried: bool = False,
        reasons: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retried = retried
        self.reasons = reasons


def denied(error: Refused) -> bool:
    """Whether the service refused because the caller may not do that."""
    return error.code in _DENIED


def briefly(error: StoreError) -> str:
    """Why something cannot be seen, in few words: which action is denied, if one is."""
    found = re.search(r"not authorized to perform: (\w+:\w+)", error.message)
    return f"{found[1]} is denied" if isinstance(error, Refused) and denied(error) and found else error.message


def translated(service: str, operation: str, error: Exception) -> StoreError:
    """The error for what boto3 raised in an operation of a service (both as boto3 names them)."""
    from botocore import exceptions as boto

    name = SERVICES[service]
    if isinstance(error, boto.ClientError):
        return _refused(name, operation, error)
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
    return StoreError(f"cannot reach {name}: {error}", hint="check the network, the region and AWS_ENDPOINT_URL")


def _refused(name: str, operation: str, error: object) -> Refused:
    answer = getattr(error, "response", {})
    code = str(answer.get("Error", {}).get("Code", ""))
    said = str(answer.get("Error", {}).get("Message", "")) or code
    if code in _EXPIRED:
        return Refused("the AWS credentials have expired", code=code, hint="log in again: aws sso login")
    if code in _UNKNOWN:
        return Refused(f"AWS does not know these credentials ({code})", code=code, hint="aws sts get-caller-identity")
    if code in _DENIED:
        return Refused(f"{name} denies {operation}: {said}", code=code, hint="what is missing: pik stack doctor")
    retried = bool(answer.get("ResponseMetadata", {}).get("RetryAttempts"))
    reasons = answer.get("CancellationReasons") or ()
    return Refused(f"{name} refused {operation} ({code}): {said}", code=code, retried=retried, reasons=reasons)
