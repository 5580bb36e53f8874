"""An HTTP service as a target: one POST per message."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import parse_qsl, quote, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from pik.errors import TargetUnavailable, UsageError
from pik.model.duration import format_duration
from pik.model.instant import SECOND
from pik.ports.target import Message, one_line, shown_url
from pik.runtime.retries import Backoff
from pik.targets.parallel import send_in_threads

BACKOFF = Backoff(first=0.4, longest=20.0, attempts=7)
LONGEST_WAIT = 60.0
"""Seconds of a service's Retry-After that are waited; if it asks for more, it takes nothing at present."""

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
    if given := environment.get(AUTHORIZATION, "").strip():
        if not given.isascii() or not given.isprintable():
            raise UsageError(f"{AUTHORIZATION} is not the value of a header", hint=f"{AUTHORIZATION}='Bearer …'")
        headers["Authorization"] = given
    if headers and parts.scheme == "http" and host not in _LOOPBACK:
        raise UsageError(f"--target {shown}: credentials are not sent without encryption", hint="--target https://…")
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, ""))
    secrets = {parts.password or "", *(value for _, value in parse_qsl(parts.query)), *headers.values()}
    secrets |= {value.partition(" ")[2] for value in headers.values()}
    secrets |= {found for one in secrets for found in (unquote(one), quote(one), quote(one, safe=""))}
    hidden = tuple(sorted((one for one in secrets if len(one) >= _SECRET), key=len, reverse=True))
    return HttpTarget(bare, shown, headers, _pool(parts.scheme, host), hidden)


_SECRET = 4
"""Characters of a value in the URL from which on an answer that repeats it does not show it."""


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
    secrets: Sequence[str] = field(default=(), repr=False)
    """What is not shown of an answer that repeats it, the longest first."""
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
            # What asks for more patience than this is asked again by the next attempt.
            delay = next(delays, None) if answer.may_pass and answer.retry_after <= LONGEST_WAIT else None
            if delay is None:
                if answer.whole:
                    raise TargetUnavailable(f"{self.shown}: {answer.reason}", hint=answer.hint)
                return answer.reason
            if stopped.wait(max(delay, answer.retry_after)):
                return None

    def _post(self, body: bytes, headers: Mapping[str, str]) -> _Answer:
        try:
            response = self.pool.request("POST", self.url, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.LocationParseError as error:
            raise UsageError(f"--target {self.shown}: not a URL", hint="--target https://HOST/PATH") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            may_pass = not isinstance(error, (urllib3.exceptions.NameResolutionError, urllib3.exceptions.SSLError))
            reason, hint = _connection_error(error)
            return _Answer(reason, may_pass=may_pass, whole=True, hint=hint)
        status = response.status
        if 200 <= status < 300:
            return _Answer("", taken=True)
        reason = one_line(f"HTTP {status} {self._without_secrets(response.data[:10_000].decode(errors='replace'))}")
        if 300 <= status < 400:
            location = urljoin(self.url, response.headers.get("Location", ""))
            where = one_line(self._without_secrets(shown_url(location)))
            return _Answer(f"HTTP {status}, a redirect to {where}", whole=True, hint="name that URL as the target")
        seconds = _seconds(response.headers.get("Retry-After", ""), time.time())
        hint = f"{AUTHORIZATION}='Bearer …' sets the credentials" if status in (401, 403) else ""
        if seconds > LONGEST_WAIT:
            hint = f"it asks to wait {format_duration(int(seconds) * SECOND)}"
        return _Answer(
            reason,
            may_pass=status in _PASSING,
            whole=status in _MISCONFIGURED or (status in _PASSING and status != 500),
            retry_after=seconds,
            hint=hint,
        )

    def _without_secrets(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text

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


def _connection_error(error: BaseException) -> tuple[str, str]:
    """Return what happened to a connection, and what to do about it."""
    running = "check that the service is running"
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its host name cannot be resolved", "compare the host name"
    if isinstance(error, urllib3.exceptions.SSLError):
        hint = "compare its certificate; the variable SSL_CERT_FILE names a file of authorities to trust"
        return "its certificate or encryption is not accepted", hint
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "it cannot be reached: the connection is refused", running
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "it cannot be reached: no answer to a connection", running
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time", running
    return "the connection broke", running


def _seconds(retry_after: str, now: float) -> float:
    """Return the seconds from now that a Retry-After header asks to wait, as a number or until a date; 0 without."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except ValueError:
        return 0.0
