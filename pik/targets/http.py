"""An HTTP service as a target: one POST per message."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from pik.errors import TargetUnavailable, UsageError
from pik.ports.target import Message, one_line, shown_url
from pik.runtime.storage import Backoff
from pik.targets.parallel import send_in_threads

BACKOFF = Backoff(first=0.4, longest=20.0, attempts=7)
LONGEST_WAIT = 60.0
"""Seconds that a service's Retry-After is followed, at most."""

CONNECTIONS = 8
"""Requests at a time, each of another entity."""

_TIMEOUT = urllib3.Timeout(connect=5, read=30)
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Status codes that may pass: the request is repeated."""

_MISCONFIGURED = {401, 402, 403, 404, 405, 407, 410, 451}
"""Status codes that every other message would get, too."""

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
AUTHORIZATION = "PIK_TARGET_AUTHORIZATION"


def http_target(url: str, environment: Mapping[str, str]) -> HttpTarget:
    """Return the target of a URL, with `USER:PASSWORD@` of the URL or PIK_TARGET_AUTHORIZATION as credentials. Raises
    UsageError."""
    shown = shown_url(url)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise UsageError(f"--target {shown}: there is no host, or no such port", hint="--target https://HOST/PATH")
    headers = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
    if environment.get(AUTHORIZATION):
        headers["Authorization"] = environment[AUTHORIZATION]
    if headers and parts.scheme == "http" and host not in _LOOPBACK:
        raise UsageError(f"--target {shown}: credentials are not sent without encryption", hint="--target https://…")
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, ""))
    return HttpTarget(bare, shown, headers, _pool(parts.scheme, host))


def _pool(scheme: str, host: str) -> urllib3.PoolManager:
    """Return a pool of connections, through the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name."""
    proxy = getproxies().get(scheme)
    if proxy and not proxy_bypass(host):
        return urllib3.ProxyManager(proxy, maxsize=CONNECTIONS, timeout=_TIMEOUT, retries=False)
    return urllib3.PoolManager(maxsize=CONNECTIONS, timeout=_TIMEOUT, retries=False)


@dataclass(slots=True)
class HttpTarget:
    """Sends messages of different entities in parallel, and those of one entity one after the other."""

    url: str
    shown: str
    headers: Mapping[str, str] = field(repr=False)
    pool: urllib3.PoolManager = field(repr=False)
    backoff: Backoff = BACKOFF
    at_most: int = 100
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    """Ends what the threads of the last call still do."""

    def check(self) -> None:
        """Nothing can be known without a request that the service might take for an event."""

    def send(self, messages: Sequence[Message], answers: dict[int, str]) -> None:
        groups: dict[str, list[int]] = {}
        for position, message in enumerate(messages):
            groups.setdefault(message.entity_id, []).append(position)
        self._stopped = threading.Event()
        send = partial(self._send_in_order, messages, answers)
        send_in_threads(list(groups.values()), send, self._stopped, CONNECTIONS)

    def _send_in_order(
        self,
        messages: Sequence[Message],
        answers: dict[int, str],
        positions: Sequence[int],
        stopped: threading.Event,
    ) -> None:
        for position in positions:
            reason = None if stopped.is_set() else self._send_one(messages[position], stopped)
            if reason is None:
                return
            answers[position] = reason

    def _send_one(self, message: Message, stopped: threading.Event) -> str | None:
        """Return why the service refused the message; empty if it took it, None if sending was stopped before it
        answered. Raises TargetUnavailable."""
        headers = {"Content-Type": message.content_type, **message.attributes, **self.headers}
        delays = self.backoff.delays()
        while True:
            answer = self._post(message.body, headers)
            if answer.taken:
                return ""
            delay = next(delays, None) if answer.may_pass else None
            if delay is None:
                if answer.whole:
                    raise TargetUnavailable(f"{self.shown}: {answer.reason}", hint=answer.hint)
                return answer.reason
            if stopped.wait(min(max(delay, answer.retry_after), LONGEST_WAIT)):
                return None

    def _post(self, body: bytes, headers: Mapping[str, str]) -> _Answer:
        try:
            response = self.pool.request("POST", self.url, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.LocationParseError as error:
            raise UsageError(f"--target {self.shown}: not a URL", hint="--target https://HOST/PATH") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            may_pass = not isinstance(error, (urllib3.exceptions.NameResolutionError, urllib3.exceptions.SSLError))
            return _Answer(_connection_error(error), may_pass=may_pass, whole=True, hint="is the service running?")
        status = response.status
        if 200 <= status < 300:
            return _Answer("", taken=True)
        reason = one_line(f"HTTP {status} {response.data[:1000].decode(errors='replace')}")
        if 300 <= status < 400:
            where = shown_url(response.headers.get("Location", "elsewhere"))
            return _Answer(f"HTTP {status}, a redirect to {where}", whole=True, hint="name that URL as the target")
        return _Answer(
            reason,
            may_pass=status in _PASSING,
            whole=status in _MISCONFIGURED or (status in _PASSING and status != 500),
            retry_after=_seconds(response.headers.get("Retry-After", "")),
            hint=f"{AUTHORIZATION}='Bearer …' sets the credentials" if status in (401, 403) else "",
        )

    def close(self) -> None:
        self._stopped.set()
        self.pool.clear()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of one request. `whole`: every other message would fare alike."""

    reason: str
    taken: bool = False
    may_pass: bool = False
    whole: bool = False
    retry_after: float = 0.0
    hint: str = ""


def _connection_error(error: BaseException) -> str:
    """Return what happened to a connection, in words."""
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its host name cannot be resolved"
    if isinstance(error, urllib3.exceptions.SSLError):
        return "its certificate or encryption is not accepted"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "it cannot be reached: the connection is refused"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "it cannot be reached: no answer to a connection"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return "the connection broke"


def _seconds(retry_after: str) -> float:
    """Return the seconds in a Retry-After header; 0 for a date, or none."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
