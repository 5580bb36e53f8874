"""The functions of the stack, one per module, and here what they share: adapters, logs, and requests over HTTP.

Only this module knows the adapters; each is created once and kept for later calls.
"""

from __future__ import annotations

import pik.lambdas.machine  # noqa: F401 - before what is compiled

# isort: split
import os
from base64 import b64decode
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from time import time_ns
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

import msgspec
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit

from pik.errors import Ambiguous, Busy, Invalid, NotFound, NotHeld, PikError, StoreError
from pik.model.ids import MILLISECOND
from pik.ports.remote import ApiError

if TYPE_CHECKING:
    from pik.ports.buffer import Buffer
    from pik.ports.engine import Engine
    from pik.ports.store import Store

# Their settings are the environment's: POWERTOOLS_SERVICE_NAME, POWERTOOLS_METRICS_NAMESPACE, POWERTOOLS_LOG_LEVEL.
logger = Logger(service=os.environ.get("POWERTOOLS_SERVICE_NAME", "pik"))
BY_REQUEST = correlation_paths.API_GATEWAY_REST
"""Where a request of API Gateway has its id, by which every line of the log names it."""
metrics = Metrics(namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "pik"), service=logger.service)


@cache
def store() -> Store:
    """Return the store of the stack that this function belongs to. Raises StoreError."""
    from pik.stores.aws import open_deployed

    return open_deployed(os.environ)


@cache
def buffer() -> Buffer:
    """Return the queue of buffered requests. Raises StoreError."""
    from pik.stores.aws import open_buffer

    if not (url := os.environ.get("PIK_INGEST_QUEUE_URL")):
        raise StoreError("the environment variable PIK_INGEST_QUEUE_URL is not set", hint="template.yaml sets it")
    return open_buffer(url)


@cache
def engine() -> Engine:
    """Return the engine that computes metrics."""
    from pik.engine import DuckEngine

    return DuckEngine()


def call_again(event: dict[str, Any]) -> None:
    """Invoke this function again with `event`, asynchronously. Raises StoreError."""
    from pik.stores.aws import invoke_later

    invoke_later(os.environ["AWS_LAMBDA_FUNCTION_NAME"], event)


def log_unexpected(message: str, error: Exception, **ids: str) -> None:
    """Log an unexpected error by its type and place. Its message may quote a payload, and is not logged."""
    stack = [f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in extract_tb(error.__traceback__)]
    logger.error(message, extra={"error": type(error).__name__, "stack": stack, **ids})


def dry_run() -> bool:
    """Return whether the stack checks and counts everything, and writes and sends nothing."""
    return os.environ.get("DRY_RUN", "").lower() in ("true", "1")


def ingest_mode() -> str:
    """Return how requests to record events are answered that do not say it: `sync` or `async`."""
    return os.environ.get("PIK_INGEST_MODE") or "sync"


@cache
def timezone() -> str | None:
    """Return the IANA name of the zone that times without an offset are in, if one is set. Raises StoreError."""
    from pik.errors import StoreError, UsageError
    from pik.model.zone import load_zone

    name = os.environ.get("PIK_TIMEZONE") or None
    try:
        return None if name is None else load_zone(name).name
    except UsageError as error:
        raise StoreError(f"the stack's parameter TimeZone: {error.message}", hint=error.hint) from None


def attempts() -> int:
    """Return how often a task is tried. The queue delivers it once more, so that the processor, which may have been
    killed each time, can make it a dead letter and end its run."""
    return int(os.environ.get("PIK_MAX_RECEIVES", "6")) - 1


# Requests and responses of API Gateway's REST APIs (the Lambda proxy integration).

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


def caller(event: Event) -> str:
    """Return who sent the request: the ARN of the caller or, where the API takes keys, the id of the key (which is no
    secret); empty if API Gateway names neither."""
    identity = (event.get("requestContext") or {}).get("identity") or {}
    if arn := identity.get("userArn"):
        return str(arn)
    return f"api-key:{identity['apiKeyId']}" if identity.get("apiKeyId") else ""


def request_id(event: Event, context: Any) -> str:
    """Return the id by which API Gateway's log and those of the functions (as `correlation_id`) know the request; where
    the gateway gave none, that of the call."""
    return str((event.get("requestContext") or {}).get("requestId") or context.aws_request_id)


def received_at(event: Event) -> int:
    """Return when API Gateway received the request, in nanoseconds; now, where it does not say so."""
    epoch = (event.get("requestContext") or {}).get("requestTimeEpoch")
    return time_ns() if epoch is None else int(epoch) * MILLISECOND


def parameter(event: Event, name: str) -> str:
    """Return a parameter of the request's query, empty if there is none."""
    return str((event.get("queryStringParameters") or {}).get(name) or "")


def header(event: Event, name: str) -> str:
    """Return a header of the request without white space around it, empty if there is none."""
    headers = {each.lower(): value for each, value in (event.get("headers") or {}).items()}
    return str(headers.get(name.lower()) or "").strip()


def content_type(event: Event) -> str:
    """Return the request's media type without parameters, empty without a Content-Type."""
    return header(event, "Content-Type").partition(";")[0].strip().lower()


class KeyReused(Invalid):
    """An idempotency key came with another request than before."""


def respond(status: int, document: Any) -> Response:
    """Return a response with a JSON document."""
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json", "Cache-Control": "no-store"},
        "body": msgspec.json.encode(document).decode(),
    }


def _status(error: PikError) -> int:
    match error:
        case NotHeld():
            return 410
        case Ambiguous():
            return 409
        case KeyReused():
            return 422
        case NotFound():
            return 404
        case _:
            return 400 if error.exit_code == 2 else 503


def _cause(error: PikError) -> str:
    """Return why a request gets 503: something else is under way, as a rebuild of the index is; AWS throttles; or the
    store cannot be used for another reason."""
    from pik.stores.aws.clients import throttled

    if isinstance(error, Busy):
        return "Busy"
    return "Throttled" if isinstance(error, StoreError) and throttled(error) else "Unavailable"


def http_handler(handler: Handler) -> Handler:
    """Decorate a handler so that its errors become responses; an unexpected one becomes 500, and is logged.
    Metrics count 503 by cause, and 500."""

    @wraps(handler)
    def call(event: Event, context: Any) -> Response:
        named = request_id(event, context)
        try:
            return handler(event, context)
        except PikError as error:
            status = _status(error)
            if status >= 500:
                cause = _cause(error)
                logger.error("refused", extra={"reason": error.message, "cause": cause})
                metrics.add_metric(name=f"{cause}Count", unit=MetricUnit.Count, value=1)
            # The caller need not learn the ids of others.
            message = error.unlisted if isinstance(error, Ambiguous) else error.message
            return respond(status, ApiError(message, named, error.field if isinstance(error, Invalid) else ""))
        except Exception as error:  # noqa: BLE001 - the caller gets a response whatever happens
            log_unexpected("failed", error)
            metrics.add_metric(name="FailedCount", unit=MetricUnit.Count, value=1)
            return respond(500, ApiError("internal error; the log has it under the request's id", named))

    return call
