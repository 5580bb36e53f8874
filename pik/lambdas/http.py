"""Requests and answers of API Gateway's REST APIs (the Lambda proxy integration)."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from collections.abc import Callable
from functools import wraps
from typing import Any

import msgspec

from pik.errors import Invalid, NotFound, PikError
from pik.lambdas.wiring import log_unforeseen, logger
from pik.usecases.ingest.api_request import TooLarge

Event = dict[str, Any]
Answer = dict[str, Any]
Handler = Callable[[Event, Any], Answer]


def body_of(event: Event) -> bytes:
    """The request's body. Raises Invalid."""
    text = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return str(text).encode(errors="surrogatepass")
    try:
        return b64decode(text, validate=True)
    except (Error, ValueError):
        raise Invalid("the body is not the base64 that it is said to be") from None


def content_type(event: Event) -> str:
    """What the request's body is said to be, without parameters; empty if nothing is said."""
    said = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    return str(said.get("content-type") or "").partition(";")[0].strip().lower()


def answer(status: int, document: Any) -> Answer:
    """An answer with a JSON document."""
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json", "Cache-Control": "no-store"},
        "body": msgspec.json.encode(document).decode(),
    }


def error(status: int, message: str, field: str = "") -> Answer:
    """An answer that says what is wrong, and with which field."""
    return answer(status, {"error": message, "field": field} if field else {"error": message})


def answering(handler: Handler) -> Handler:
    """The handler, whose every error becomes an answer; what nobody foresaw becomes 500, and the log tells it."""

    @wraps(handler)
    def call(event: Event, context: Any) -> Answer:
        try:
            return handler(event, context)
        except PikError as problem:
            status = _status(problem)
            if status >= 500:
                logger.error("refused", extra={"reason": problem.message})
            return error(status, problem.message, problem.field if isinstance(problem, Invalid) else "")
        except Exception as problem:  # noqa: BLE001 - whoever asked gets an answer, and the log what happened
            log_unforeseen("failed", problem)
            return error(500, f"internal error; the log has it under {getattr(context, 'aws_request_id', 'no id')}")

    return call


def _status(problem: PikError) -> int:
    if isinstance(problem, TooLarge):
        return 413
    if isinstance(problem, NotFound):
        return 404
    return 400 if problem.exit_code == 2 else 503
