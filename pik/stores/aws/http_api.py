"""The stack's HTTP API, called with the caller's own credentials or with the stack's key."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from gzip import compress
from time import time_ns
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from pik.errors import Ambiguous, Invalid, NotFound, NotHeld, NothingSelected, StoreError, UsageError, command
from pik.model.batch import Verdict
from pik.model.instant import format_instant
from pik.model.run import Run, RunRequest
from pik.ports.remote import (
    GZIP,
    Answer,
    Api,
    PlannedReplay,
    PlannedRun,
    RecordResult,
    RecordStatus,
    RunView,
    Unanswered,
)
from pik.runtime.retries import Backoff, retry
from pik.stores.aws.clients import CONNECTIONS, Clients
from pik.stores.aws.stack import find_stack, located

BACKOFF = Backoff(first=0.2, longest=20.0, attempts=8)
_CONNECT, _READ = 5, 35  # seconds; API Gateway itself gives up after 29
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

Done = TypeVar("Done")


def open_api(url: str, environment: Mapping[str, str] = os.environ) -> Api:
    """Return the API of the stack in a store's URL, with retries. `PIK_API_URL` takes the place of the stack's output
    ApiUrl, `PIK_API_KEY` that of credentials. Raises UsageError, NotFound, StoreError."""
    clients, name, named = located(url)
    base = environment.get("PIK_API_URL") or named.get("api_url") or find_stack(clients, name).api_url
    if not base:
        raise StoreError(
            f"the stack {name} has no output ApiUrl: it is not completely deployed",
            hint="sam deploy, or PIK_API_URL=https://… names its API",
        )
    parts = urlsplit(base)
    if not parts.hostname or (parts.scheme != "https" and parts.hostname not in _LOOPBACK):
        raise UsageError(f"PIK_API_URL: {base} does not begin with https://", hint="aws cloudformation describe-stacks")
    return RetryingApi(HttpApi(base.rstrip("/"), clients, environment.get("PIK_API_KEY") or None), BACKOFF)


@dataclass(slots=True)
class RetryingApi:
    """Repeats requests that have no answer. Events that are sent again are duplicates, and a replay has a key."""

    api: Api
    backoff: Backoff = BACKOFF

    def ingest(self, records: Sequence[bytes]) -> Answer:
        repeated = False

        def once() -> Answer:
            nonlocal repeated
            try:
                return self.api.ingest(records)
            except Unanswered as error:
                repeated = repeated or error.maybe_done
                raise

        answered = self._retry(once)
        return Answer(answered.results, repeated)

    def replay(self, request: RunRequest, *, key: str, dry_run: bool = False) -> PlannedReplay:
        return self._retry(lambda: self.api.replay(request, key=key, dry_run=dry_run))

    def run(self, run_id: str) -> Run:
        return self._retry(lambda: self.api.run(run_id))

    def _retry(self, call: Callable[[], Done]) -> Done:
        return retry(call, lambda error: isinstance(error, Unanswered), self.backoff)


@dataclass(slots=True)
class HttpApi:
    """Sends one request per call."""

    url: str
    clients: Clients
    key: str | None = None
    _session: Any = field(default=None, repr=False, compare=False)

    def ingest(self, records: Sequence[bytes]) -> Answer:
        # The stack's IngestMode may be another: the caller waits for the results.
        status, body = self._send("POST", "/ingest?mode=sync", compress(b"\n".join(records)), GZIP)
        answer = _decoded(body, _Results) if status in (200, 400) else None
        if answer is None or len(answer.results) != len(records):
            problem = self._refused(status, body)
            raise problem if isinstance(problem, StoreError) else StoreError(f"the API refused: {problem.message}")
        if any(one.status == RecordStatus.VALID for one in answer.results):
            raise _dry_run()
        return Answer([_result(one) for one in answer.results])

    def replay(self, request: RunRequest, *, key: str, dry_run: bool = False) -> PlannedReplay:
        body = {
            "entity_id": request.entities[0],
            "start_time": format_instant(request.start),
            "end_time": format_instant(request.end),
            "metrics": request.metrics,
            "assume": request.assumed,
            "reason": request.reason,
            "dry_run": dry_run,
        }
        headers = {"Idempotency-Key": f'"{key}"'}
        status, content = self._send("POST", "/replay", msgspec.json.encode(body), "application/json", headers)
        planned = _decoded(content, PlannedRun) if status in (200, 202) else None
        if planned is None:
            refused = self._refused(status, content)
            if status == 404 and isinstance(refused, NotFound):
                hint = f"its events of all time: {command('events', '--entity', request.entities[0])}"
                raise NothingSelected(refused.message, hint=hint)
            raise refused
        if planned.dry_run and not dry_run:
            raise _dry_run()
        return PlannedReplay(planned.run(request, time_ns()), planned.metrics_left_out)

    def run(self, run_id: str) -> Run:
        status, body = self._send("GET", f"/replay/{quote(run_id, safe='')}", b"", "")
        view = _decoded(body, RunView) if status == 200 else None
        if view is None:
            raise self._refused(status, body)
        return view.run()

    def _send(
        self, method: str, path: str, body: bytes, content_type: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> tuple[int, bytes]:
        """Return status and body of the API's own answer. Raises Unanswered, StoreError."""
        from botocore import exceptions as boto

        typed = {"Content-Type": content_type} if content_type else {}
        request = self._signed(method, path, body, {**typed, **headers})
        try:
            answer = self._http().send(request.prepare())
            status, content = int(answer.status_code), bytes(answer.content)
        except (boto.HTTPClientError, boto.ConnectionError) as error:
            unsent = isinstance(error, boto.ConnectTimeoutError | boto.EndpointConnectionError | boto.SSLError)
            raise Unanswered(
                f"the API at {self.url} does not answer: {error}",
                hint="check the network, the region and PIK_API_URL",
                maybe_done=not unsent,
            ) from None
        if status == 429 or status >= 500:
            raise Unanswered(
                f"the API at {self.url} answered {method} {path.partition('?')[0]} with {status}: {_message(content)}",
                hint="run the same command again later",
                maybe_done=status != 429,
            )
        return status, content

    def _http(self) -> Any:
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        if self._session is None:
            options: dict[str, Any] = {
                "verify": os.environ.get("AWS_CA_BUNDLE") or True,
                "proxies": get_environ_proxies(self.url),
                "timeout": (_CONNECT, _READ),
                "max_pool_connections": CONNECTIONS,
            }
            self._session = URLLib3Session(**options)
        return self._session

    def _signed(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method, self.url + path, headers, body)
        if self.key is not None:
            request.headers["x-api-key"] = self.key
        else:
            credentials, region = self.clients.identity()
            SigV4Auth(credentials, "execute-api", region).add_auth(request)
        return request

    def _refused(self, status: int, body: bytes) -> StoreError | Invalid:
        refusal, message = _decoded(body, _Refusal), _message(body)
        if status in (401, 403):
            return self._denied(message)
        if refusal is None or not refusal.error:
            return StoreError(
                f"what answers at {self.url} is not pik's API ({status}): {message}",
                hint="check the stack's output ApiUrl, and that it runs the version of this pik",
            )
        if status == 404:
            return NotFound(message)
        if status == 409:
            return Ambiguous(message, unlisted=message)
        if status == 410:
            return NotHeld(message)
        if status == 400:
            return Invalid(message, field=refusal.field)
        return StoreError(f"the API at {self.url} refused the request ({status}): {message}")

    def _denied(self, message: str) -> StoreError:
        if "expired" in message:
            return StoreError(f"the AWS credentials have expired: {message}", hint="log in again: aws sso login")
        hint = "docs/iam.md has the policy that it takes; a stack with ApiAuthorization=API_KEY wants PIK_API_KEY"
        if self.key is not None:
            hint = "PIK_API_KEY is not the stack's key, or the stack wants signed requests (ApiAuthorization=IAM)"
        return StoreError(f"the API at {self.url} denies the request: {message}", hint=hint)


def _dry_run() -> StoreError:
    return StoreError(
        "the stack is in a dry run: its functions check and count, and record nothing",
        hint="sam deploy --parameter-overrides DryRun=false",
    )


class _Result(msgspec.Struct):
    status: str
    conflict: bool = False
    error: str = ""
    field: str = ""


class _Results(msgspec.Struct):
    results: list[_Result]


class _Refusal(msgspec.Struct):
    """An error of pik's functions, or in `message` one of API Gateway itself."""

    error: str = ""
    message: str = ""
    request_id: str = ""
    field: str = ""


def _decoded(body: bytes, kind: type[Done]) -> Done | None:
    """Return the JSON document as `kind`; None if it is something else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _message(body: bytes) -> str:
    """Return the error message of pik or API Gateway with the request's id, or the beginning of whatever the body
    is."""
    refusal = _decoded(body, _Refusal)
    message = refusal and (refusal.error or refusal.message)
    if refusal and message and refusal.request_id:
        return f"{message} (request {refusal.request_id})"
    return message or " ".join(body[:100].decode(errors="replace").split()) or "nothing"


def _result(result: _Result) -> RecordResult:
    if result.status == RecordStatus.ACCEPTED:
        return RecordResult(Verdict.ACCEPTED)
    if result.status == RecordStatus.DUPLICATE:
        return RecordResult(Verdict.CONFLICT if result.conflict else Verdict.EXACT)
    return RecordResult(None, result.error, result.field)
