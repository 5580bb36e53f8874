"""Redacted values that the same delivery holds in another place as well, where they stay in clear: in a value beside,
as a part of a longer text, or as the name of a field."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from pik.model.jmes import quoted

_PART = 4
"""Characters from which on a text is also looked for within longer ones; a shorter one is in many by chance."""

_DIGITS = 5
"""Characters from which on a number is looked for: a shorter one is there by chance."""

_decode = msgspec.json.Decoder(float_hook=str).decode


def texts_in(value: bytes) -> Iterator[str]:
    """Yield the texts and numbers in a value, given as JSON, that would tell what it was."""
    yield from _leaves(_decode(value))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif value is not None and not isinstance(value, bool):
        text = value if isinstance(value, str) else str(value)
        if text and (isinstance(value, str) or len(text) >= _DIGITS):
            yield text


def places_of(texts: Collection[str], payload: bytes, mark: str, **fields: str) -> set[str]:
    """Return where in a redacted payload, given as JSON, or in other fields these texts stand, in words. Texts that
    begin with the mark are hashes."""
    found = {name for name, text in fields.items() if _holds(text, texts)}
    whole = payload.decode()
    if any(text in whole or _escaped(text) in whole for text in texts):
        found.update(_places(_decode(payload), texts, mark, ("payload",)))
    return found


def _places(value: Any, texts: Collection[str], mark: str, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            if _holds(name, texts):
                yield f"a name of a field of {quoted(*path)}"
            else:  # below such a name the path would repeat it
                yield from _places(each, texts, mark, (*path, name))
    elif isinstance(value, list):
        for each in value:
            yield from _places(each, texts, mark, path)
    elif value is not None and not isinstance(value, bool):
        text = value if isinstance(value, str) else str(value)
        if not text.startswith(mark) and _holds(text, texts):
            yield quoted(*path)


def _holds(text: str, texts: Collection[str]) -> bool:
    return text in texts or any(len(one) >= _PART and one in text for one in texts)


def _escaped(text: str) -> str:
    return msgspec.json.encode(text)[1:-1].decode()
