"""JSON that is not one object per line, recognized by its beginning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain

from pik.errors import number_of
from pik.inputs.advice import Advice, Option, Read, Shape, piped, read_with
from pik.inputs.document_lists import lists_in
from pik.inputs.keyed_records import keyed_records
from pik.inputs.list_records import rows_in
from pik.inputs.prefixed_json import object_of
from pik.model.event import FIELDS, REQUIRED
from pik.model.layout import JSON_VALUES, Layout
from pik.model.record_path import path_text

_raw_decode = json.JSONDecoder().raw_decode
_BULK_ACTIONS = ["index", "create", "update", "delete"]
BULK_DOCUMENTS = piped(
    f"jq -c 'select(keys - {json.dumps(_BULK_ACTIONS)} != [])' {{file}}",
    "its documents without the actions: ",
    guess=True,
)


def is_action(found: dict[str, object]) -> bool:
    """Return whether an object says what to do with the document on the next line, in a bulk request."""
    [of] = found.values() if len(found) == 1 else [None]
    return found.keys() <= set(_BULK_ACTIONS) and isinstance(of, dict) and any(name.startswith("_") for name in of)


def recognize_wrapped(
    first: dict[str, object], others: Iterator[dict[str, object]], filled: list[str], whole: bool
) -> Shape | None:
    """Recognize a single object around the records, or what kcat -J puts around each."""
    if all({"topic", "partition", "offset", "payload"} <= one.keys() for one in chain([first], others)):
        sent = object_of(first["payload"]) if isinstance(first["payload"], str) else None
        return None if sent is None else Shape("the output of kcat -J", _of_kcat(sent))
    return None if not whole or len(filled) > 1 else _around(first, "one object around the records")


def _of_kcat(sent: dict[str, object]) -> Advice:
    """Return the command that maps what kcat -J prints: the fields of an event in its payload, and in the place of
    those that are not there what Kafka knows."""
    known = {"source": "topic", "event_type": "topic", "entity_id": "key", "event_time": "ts"}
    words = []
    for field in FIELDS:
        value = f"parse_json(payload).{field}" if field in sent else known.get(field)
        value = "parse_json(payload)" if field == "payload" and field not in sent else value
        words += ["--map", f"{field}={value}"] if value else []
    words += [] if "event_time" in sent else ["--time-format", "event_time=epoch_ms"]
    return Advice((read_with(*words),))


def _around(found: dict[str, object], what: str) -> Shape | None:
    if any(name in found for name in REQUIRED):
        return None
    if (listed := rows_in(found) or keyed_records(found)) is not None:
        return Shape(*listed)
    lists = list(lists_in(found))
    if len(lists) > 1:
        paths = ", ".join(map(path_text, lists[:_LISTS]))
        known = f"it has {number_of(len(lists), 'list')}, {paths}: `"
        return Shape(what, Advice((known, Read(guess=True), "` proposes one")))
    if not lists:
        return None
    return Shape(what, Advice((Read((Option("records", path_text(lists[0])),)),)))


_LISTS = 5
"""Lists that are named, at most."""


def cut_object(text: str) -> dict[str, object] | None:
    """Return what is whole of an object that a text begins with, and that goes on after the text."""
    opened: list[str] = []
    end, closing = 0, ""
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', text):
        if found[0] in ("{", "["):
            opened.append("}" if found[0] == "{" else "]")
        elif found[0] in ("}", "]"):
            if not opened or opened.pop() != found[0] or not opened:
                return None
            end, closing = found.end(), "".join(reversed(opened))
    return object_of(text[:end] + closing) if end else None


def first_object(text: str) -> dict[str, object] | None:
    """Return the object that a text begins with, or what is whole of one that is cut; None if it begins otherwise."""
    start = text.lstrip("\ufeff \t\r\n\x1e[")
    if not start.startswith("{"):
        return None
    try:
        found, _ = _raw_decode(start)
    except (ValueError, RecursionError):
        return cut_object(start)
    return found if isinstance(found, dict) else None


def recognize_values(text: str, filled: list[str], *, whole: bool, mapped: bool) -> Layout | Shape | None:
    """Recognize objects that are not one per line: several on one, or one over several. `text` may be cut."""
    try:
        found, end = _raw_decode(text)
    except ValueError:
        # A brace, a line break and a key, and then too much to see the end. If another line begins an object, the first
        # is merely broken.
        opened = re.match(r"\{\s*\n\s*(\"|\})", text)
        broken = any(line.startswith("{") and object_of(line) is not None for line in filled[1:])
        if not (whole or mapped or broken) and (found := cut_object(text)) is not None:
            around = _around(found, "one object around the records")
            if around is not None:
                return around
        return JSON_VALUES if opened and not broken else None
    except RecursionError:
        return None
    first, rest = text[:end], text[end:].lstrip(" \t\r")
    if "\n" in first:
        around = None if mapped or rest.strip() else _around(found, "one pretty-printed object around the records")
        return around or JSON_VALUES
    return JSON_VALUES if rest[:1] in ("{", "\x1e") else None
