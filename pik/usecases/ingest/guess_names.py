"""What the names of fields speak for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_RECEIVED = (
    "received|ingested|ingestion|ingest|indexed|arrived|arrival|collected|collector|loaded|stored|inserted|processed|"
    "enqueued|exported|extracted|fetched|generated|synced"
)
_LATER = (
    "updated|update|modified|expires|expiry|expiration|due|birth|born|deleted|until|end|ended|close|closed|closing|"
    "merged|pushed|scheduled|expected|planned|estimated|last|stop|stopped|finish|finished|completed"
)
_MESSAGE = "event|message|msg|delivery|insert|dedup|deduplication"
_WHO = "user|customer"
_WHOM = (
    "member|subscriber|sensor|tenant|player|account|device|client|contact|company|organization|merchant|requester|"
    "station|vehicle"
)

_DONE = (
    "created|create|creation|added|add|booked|booking|opened|submitted|posted|ordered|paid|placed|sent|logged|published|"
    "requested|started|begin|start|first"
)
_UNIT = "(unix|epoch|seconds|ms|millis|us|micros|ns|nano|nanos)"

_AROUND = {
    "event",
    "event data",
    "data",
    "body",
    "message",
    "detail",
    "payload",
    "record",
    "attributes",
    "value",
    "after",
}
_AROUND |= {
    "properties",
    "metadata",
    "meta",
    "header",
    "headers",
    "log",
    "source",
    "fields",
    "params",
    "context",
    "action",
    "item",
    "document",
}
"""Names of objects whose field `type` or `id` is the event's, not that of a device or a user."""

_BARE: Mapping[str, set[str]] = {"event_type": {"type", "kind", "name"}, "idempotency_key": {"id", "uuid", "guid"}}
"""Names that say of the object that has the field what it is, or which."""

_NAMES: Mapping[str, Sequence[tuple[int, str]]] = {
    "event_time": (
        (1, rf"(.* )?({_RECEIVED})( .*)?"),
        (20, rf"(.* )?({_LATER})( .*)?"),
        (120, r"event (time|timestamp|date|at|ts)|occurred (at|on)|happened at"),
        (90, rf"(timestamp|time|ts|at|datetime|(date|client|event) time)( {_UNIT})*|time (stamp|local|iso)"),
        (80, rf"(date )?({_DONE})( at| on| time| date)?( {_UNIT})*"),
        (70, r".* (at|on|time|timestamp|ts|datetime|date)|date|day|when|t"),
    ),
    "received_time": (
        (75, r"(received|ingested|ingestion|ingest)( at| on| time| timestamp| date| ts)?"),
        (60, rf"({_RECEIVED})( at| on| time| timestamp| date| ts)?"),
    ),
    "event_type": (
        (100, r"event (type|name|kind)"),
        (85, r"type|event"),
        (80, r"action|kind|operation|op|verb|(message|detail|activity|transaction|notification) type|method"),
        (60, r"category|status|state|name|level|.* (type|kind|action)"),
        (55, r"topic|subject|routing key"),
    ),
    "entity_id": (
        (0, rf"({_MESSAGE}|record|request|req|trace|span|correlation) (id|uuid|key)|uuid|guid"),
        (100, rf"entity( id)?|({_WHO})( id)?|({_WHOM}) id|userid"),
        (80, rf"({_WHO}|{_WHOM}|actor|principal) (name|email|arn|key|uuid|uid|login)"),
        (80, r"computer|machine name|repository full name"),
        (70, r"((from|sender|recipient) )?email( address)?|login|username|.* user name|repository|order id"),
        (65, rf"{_WHOM}|.* email( address)?|host( name)?|hostname|full name|session id"),
        (60, r"key|subject|(client|remote|source|cli) (ip|addr|address)( address)?|ip|c ip"),
        (60, r".* arn|arn"),
        (50, r".* (id|ids|uuid|key)|id"),
    ),
    "idempotency_key": (
        (100, rf"idempotency key|({_MESSAGE}) (id|uuid|key)"),
        (90, r"uuid|guid|(record|request|req|transaction|tx|log|notification) id|id"),
    ),
    "source": (
        (90, r"event source|source system|producer"),
        (75, r"(service|application|app) name"),
        (65, r"source|app|application|service"),
        (60, r"origin|channel|system|logger"),
    ),
    "payload": ((90, r"payload|data|body|message|detail|properties|value|log|text"),),
}
"""How much the words of a field's name speak for it, by the first pattern that matches all of them."""

GENERAL = {"type", "kind", "event", "method"}
"""Names of what happened, and of much else: a card's type, a concert, a way to pay."""

_OF_ANOTHER = 40
"""How much less a bare name counts in an object that is not the event."""


def words(name: str) -> str:
    """Return the words of a name, in lower case."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.findall(r"[a-z]+|[0-9]+", apart.lower()))


def score_of(event_field: str, names: Sequence[str]) -> int:
    """Return how much the words of a name, and those of it with the name of the object around it, speak for a field of
    events."""
    own, *outer = names
    if own in _BARE.get(event_field, ()) and outer and outer[0].removesuffix(f" {own}") not in _AROUND:
        with_outer = max(_score(event_field, name) for name in outer)
        return max(with_outer, _score(event_field, own) - _OF_ANOTHER if event_field == "idempotency_key" else 0)
    return max(_score(event_field, name) for name in names)


def _score(event_field: str, name: str) -> int:
    known = re.sub(" (utc|gmt)$", "", name)
    return next((score for score, pattern in _NAMES[event_field] if re.fullmatch(pattern, known)), 0)
