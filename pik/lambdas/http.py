"""Requests and responses of API Gateway's REST APIs (the Lambda proxy integration)."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from functools import wraps
from typing import Any

import msgspec

from pik.errors import Invalid, NotFound, PikError
from pik.lambdas.wiring import log_unexpected, logger
from pik.ports.remote import ApiError
from pik.usecases.ingest.api_request import TooLarge

Event = dict[str, Any]
Response = dict[str, Any]
Handler = Callable[[Event, Any], Response]


def body_of(event: Event) -> bytes:
    """Return the request's body. Raises Invalid."""
    text = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return str(text).encode(errors="surrogatepass")
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise Invalid("the body is not valid base64, which isBase64Encoded promises") from None


def content_type(event: Event) -> str:
    """Return the request's media type without parameters, empty without a Content-Type."""
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    return str(headers.get("content-type") or "").partition(";")[0].strip().lower()


def respond(status: int, document: Any) -> Response:
    """Return a response with a JSON document."""
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json", "Cache-Control": "no-store"},
        "body": msgspec.json.encode(document).decode(),
    }


def http_handler(handler: Handler) -> Handler:
    """Decorate a handler so that its errors become responses; an unexpected one becomes 500, and is logged."""

    @wraps(handler)
    def call(event: Event, context: Any) -> Response:
        try:
            return handler(event, context)
        except PikError as error:
            status = _status(error)
            if status >= 500:
                logger.error("refused", extra={"reason": error.message})
            return respond(status, ApiError(error.message, error.field if isinstance(error, Invalid) else ""))
        except Exception as error:  # noqa: BLE001 - the caller gets a response whatever happens
            log_unexpected("failed", error)
            request_id = getattr(context, "aws_request_id", "no id")
            return respond(500, ApiError(f"internal error; the log has it under {request_id}"))

    return call


def _status(error: PikError) -> int:
    if isinstance(error, TooLarge):
        return 413
    if isinstance(error, NotFound):
        return 404
    return 400 if error.exit_code == 2 else 503
