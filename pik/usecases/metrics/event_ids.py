"""Event ids of a file, which an assumption or a correction names as @FILE."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pik.errors import InputError

_READS = "event_ids of 32 hex digits, one per line, or JSON of `pik duplicates`"


def read_event_ids(path: str) -> tuple[str, ...]:
    """Return the event_ids in a file: one per line, or those of the rows in a result of pik as JSON or JSON lines.
    Raises InputError."""
    from pik.inputs.whole_text import whole_text  # imports what reads inputs

    ids = [each.lower() for each in _ids(whole_text(path, _READS))]
    wrong = next((each for each in ids if not re.fullmatch("[0-9a-f]{32}", each)), None)
    if wrong is not None or not ids:
        what = "has no event_ids" if wrong is None else f"has {wrong[:40]!r}, which is not an event_id"
        raise InputError(f"{path} {what}", hint=_READS)
    return tuple(dict.fromkeys(ids))


def _ids(text: str) -> list[str]:
    try:
        return [found for document in _documents(text) for found in _ids_of(document)]
    except (ValueError, RecursionError):
        first, *others = text.split() or [""]
        return others if first == "event_id" else text.split()  # a column of CSV has a header


def _documents(text: str) -> Iterator[Any]:
    """Yield the JSON values that follow each other, however they are laid out. Raises ValueError."""
    decoder = json.JSONDecoder(parse_float=str, parse_int=str)  # a payload may have numbers that no double holds
    at, end = 0, len(text.rstrip())
    while at < end:
        if text[at].isspace():
            at += 1
        else:
            found, at = decoder.raw_decode(text, at)
            yield found


def _ids_of(document: Any) -> Iterator[str]:
    """Yield the event_ids of a JSON value: a text, a list of texts, or rows."""
    texts = document if isinstance(document, list) else [document]
    return iter(texts) if all(isinstance(one, str) for one in texts) else _ids_in(document)


def _ids_in(document: Any) -> Iterator[str]:
    """Yield each event_id in a JSON document, in whatever rows; a payload may have one that is not pik's."""
    if isinstance(document, dict):
        if isinstance(found := document.get("event_id"), str):
            yield found
        for name, value in document.items():
            yield from _ids_in(value) if name not in ("payload", "extra") else ()
    elif isinstance(document, list):
        for value in document:
            yield from _ids_in(value)
