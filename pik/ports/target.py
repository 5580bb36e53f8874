"""Where history is sent again: a queue, a topic, a service or a file that takes messages.

An adapter in `pik/targets/` is chosen by the scheme of `--target` (`pik.targets.target_of`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

REPUBLISH_ID = "pik-republish-id"
EVENT_ID = "pik-event-id"
DELIVERY = "pik-delivery"
"""Names of attributes: the republish, the event, and (where every delivery is sent) the delivery as BATCH_ID/SEQ."""


@dataclass(frozen=True, slots=True)
class Message:
    """One event, or one delivery of it, as it is sent.

    `message_id` is unique within a republish and the same at each attempt: 26 to 120 characters, letters, digits and
    `-`. `body` is UTF-8 text without line breaks: a JSON object if `content_type` is `application/cloudevents+json` or
    `application/json`, anything if it is `text/plain`. `attributes` (at most 5; names of lower-case letters and `-`,
    values of printable ASCII) are sent next to the body where the target has a place for them: headers, message
    attributes. `event_time` is in nanoseconds since the epoch. Messages of one `entity_id` belong in order.
    """

    message_id: str
    event_id: str
    source: str
    event_type: str
    entity_id: str
    event_time: int
    body: bytes
    content_type: str
    attributes: Mapping[str, str]


class Target(Protocol):
    """Takes messages, each at least once. It is used by one thread, but may send from several.

    The target is sent nothing before `send`, and opening it needs no network.
    """

    shown: str
    """Its URL without anything that may be secret; it is stored and printed."""

    at_most: int
    """Messages that `send` is given at once, at most. The adapter splits them further where the driver takes less,
    or fewer bytes."""

    def check(self) -> None:
        """Raise UsageError or TargetUnavailable if nothing could be sent to the target as it is now: it does not exist,
        or access is denied. Sends nothing, and changes nothing. What can only be known by sending is not checked."""

    def send(self, messages: Sequence[Message], answers: dict[int, str]) -> None:
        """Send the messages. What becomes of each is put into `answers`, by its position in `messages`, as soon as that
        is known: empty if it was taken, and is durable as far as the target confirms it, or why it was not.

        Messages of one entity reach the target in the given order where it keeps an order at all; one that was not
        taken does not hold up those after it. A message that is refused because of what it is (too large, not what the
        receiver expects) has a reason: one printable line, at most 300 characters, without secrets. What may pass is
        repeated first (`pik.runtime.storage.Backoff`).

        Raises TargetUnavailable if the target takes nothing at present: it cannot be reached, access is denied, it
        still answers that it is overloaded or out of order after all attempts. A KeyboardInterrupt during the call is
        not held up by repeating or waiting. After either, messages without an answer may or may not have been taken.
        """

    def close(self) -> None:
        """Let go of connections and files. What `send` returned as taken does not depend on it."""


_NOT_SECRET = {"region", "profile", "config"}
"""Options of targets that are not HTTP services; the values of all others are hidden."""


def shown_url(url: str) -> str:
    """Return the URL with `…` in the place of a password or a user's name, and of each value in its query that is not
    an option of pik. A path is returned as it is."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    scheme = scheme.lower()
    before, question, query = rest.partition("#")[0].partition("?")
    is_http = scheme in ("http", "https")
    place, slash, path = before.partition("/") if is_http else (before, "", "")
    if is_http and "@" in rest and "@" not in place and ":" in place:
        return f"{scheme}://…"  # a password with a character that ends the host: where it ends cannot be known
    if "@" in place:
        place = "…@" + place.rpartition("@")[2]

    def hidden(match: re.Match[str]) -> str:
        name = match[2] or ""
        return match[0] if not is_http and name.removesuffix("=") in _NOT_SECRET else f"{match[1]}{name}…"

    return f"{scheme}://{place}{slash}{path}{question}" + re.sub(r"(^|[&;])([^=&;]*=)?[^&;]+", hidden, query)


def one_line(text: str) -> str:
    """Return the text as a reason: printable, on one line, at most 300 characters."""
    line = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(line.split())
    return line if len(line) <= 300 else line[:299] + "…"
