"""Inputs unlike any that a store was made for: all events of one entity, one event again and again, and so on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any


def _event(number: int, **fields: Any) -> dict[str, Any]:
    plain = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-01-01T00:00:00Z"}
    return {**plain, "payload": {"n": number}, **fields}


def one_entity(number: int) -> dict[str, Any]:
    return _event(number, event_time=f"2026-01-01T{number % 24:02}:{number // 24 % 60:02}:00Z")


def one_key(number: int) -> dict[str, Any]:
    return _event(number, idempotency_key="k")


def one_event(_number: int) -> dict[str, Any]:
    return _event(0)


def one_instant(number: int) -> dict[str, Any]:
    return _event(number, entity_id=f"e{number % 1000}")


def many_entities(number: int) -> dict[str, Any]:
    return one_entity(number) | {"entity_id": f"e{number}"}


def many_types(number: int) -> dict[str, Any]:
    return one_entity(number) | {"event_type": f"t{number}"}


def many_sources(number: int) -> dict[str, Any]:
    return one_entity(number) | {"source": f"s{number}"}


STRANGE: dict[str, Callable[[int], dict[str, Any]]] = {
    made.__name__: made
    for made in (one_entity, one_key, one_event, one_instant, many_entities, many_types, many_sources)
}
"""Events by number, by the name of what is strange about all of them together."""


def lines(name: str, count: int) -> Iterator[str]:
    """So many lines of such an input."""
    return (json.dumps(STRANGE[name](number)) + "\n" for number in range(count))
