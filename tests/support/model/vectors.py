"""Makes vectors.json again from the oracle: `python -m tests.support.model.vectors`. The events stand here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.model import oracle

FILE = Path(__file__).with_name("vectors.json")

DAY = "2026-01-01T00:00:00Z"
FULL = "2026-01-01T00:00:00.000000000Z"
NAMES = '"source":"web","event_type":"paid","entity_id":"u1"'


def event(payload: str = "{}", *, time: str = DAY, names: str = NAMES, more: str = "") -> str:
    """An event as it is sent."""
    return f'{{{names},"event_time":"{time}","payload":{payload}{more}}}'


LATER = "2026-02-02T02:02:02.000000000Z"
EVENTS: list[tuple[str, str, str]] = [
    ("the plainest event", event(), FULL),
    ("the same instant with another offset", event(time="2026-01-01T03:00:00+03:00"), FULL),
    ("the same instant in the basic form", event(time="20260101T010000,000+01"), FULL),
    ("one nanosecond later", event(time="2026-01-01T00:00:00.000000001Z"), "2026-01-01T00:00:00.000000001Z"),
    ("before 1970", event(time="1969-12-31T23:59:59.5Z"), "1969-12-31T23:59:59.500000000Z"),
    ("sorted keys, no white space", event(' { "b" : [ 1 , true , null ] , "a" : "x" } '), FULL),
    ("keys sort by code point", event('{"\U0001f600":1,"\ue000":2,"é":3,"e":4}'), FULL),
    ("one escape a character", event(r'["\u0041\/\u00e9\ud83d\ude00","\u0022\u005c\u000a\u001f\u007f"]'), FULL),
    ("whole numbers", event("[10,10.0,1e1,100E-1,-0,0.0]"), FULL),
    ("two numbers that are one double", event("[9007199254740993,9007199254740992.0]"), FULL),
    ("more digits than any type holds", event("[123456789012345678.123456,0.1000000000000000055]"), FULL),
    ("large numbers", event("[1e20,1e21,123e20,1.5E+300,1e400,18446744073709551616]"), FULL),
    ("small numbers", event("[0.000001,1e-7,0.00000012,-5e-324,1e-400]"), FULL),
    ("of a repeated key the last counts", event('{"a":1,"b":{"c":1,"c":2},"a":3}'), FULL),
    ("an array", event('[[],{},""]'), FULL),
    (
        "no field imitates another's end",
        event('["a|b","c"]', names=r'"source":"web\",\"paid","event_type":"u1|x","entity_id":"|"'),
        FULL,
    ),
    (
        "unknown fields and received_time are no part of it",
        event(more=',"trace":7,"received_time":"2026-01-02T00:00:00Z"'),
        FULL,
    ),
    ("an idempotency key", event('{"n":1}', more=',"idempotency_key":"k-1"'), FULL),
    (
        "the same key with another time and payload",
        event('{"n":2}', time="2026-02-02T02:02:02Z", more=',"idempotency_key":"k-1"'),
        LATER,
    ),
    ("a key that is no key", event(more=',"idempotency_key":null'), FULL),
    ("names beyond ASCII", event(names='"source":"Straße","event_type":"paid","entity_id":"日本😀"'), FULL),
]


def vectors() -> list[dict[str, Any]]:
    """What each event's texts and hashes are, by the oracle."""
    made = []
    for what, text, event_time in EVENTS:
        fields = oracle.parse(text)
        names = [fields["source"], fields["event_type"], fields["entity_id"]]
        content = ["pik.content.1", *names, event_time, fields["payload"]]
        key = fields.get("idempotency_key")
        identity = content if key is None else ["pik.key.1", *names, key]
        vector = {"what": what, "event": text, "canonical": oracle.canonical(content)}
        if key is not None:
            vector["canonical_key"] = oracle.canonical(identity)
        made.append({**vector, "content_hash": oracle.hash_of(*content), "event_id": oracle.hash_of(*identity)})
    return made


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
