"""Pairs as they are typed on the command line: `KEY=VALUE[,KEY=VALUE…]`, a value with a comma quoted as in CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pik.errors import Invalid
from pik.model.times import OPTIONS as TIMES

_REPEATABLE = ("map", "same", *TIMES)
"""Keys that may come more than once."""

_MAY_BE_BLANK = ("null", "delimiter")
_PAIR = re.compile(r'(?P<key>[a-z-]+)=(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^,]*))(?:,|$)')
_COMMA = 'a value with a comma: "a,b"'


def read_pairs(text: str, keys: Sequence[str], what: str, hint: str) -> list[tuple[str, str]]:
    """Return the pairs of a text, in order; `where` takes all that follows it. Raises Invalid, which calls the text not
    `what`."""
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if "where" in keys and text.startswith("where=", at):
            pairs.append(("where", text[at + len("where=") :]))
            break
        found = _PAIR.match(text, at)
        if found is None or found["key"] not in keys:
            raise Invalid(f"{text[at:]!r} is not {what}", hint=f"{hint}; {_COMMA}")
        quoted, plain = found["quoted"], found["plain"]
        pairs.append((found["key"], plain if quoted is None else quoted.replace('""', '"')))
        at = found.end()
    given = [key for key, _ in pairs if key not in _REPEATABLE]
    if twice := next((key for key in given if given.count(key) > 1), None):
        raise Invalid(f"{twice}= is given twice")
    if empty := next((key for key, value in pairs if not value.strip() and key not in _MAY_BE_BLANK), None):
        raise Invalid(f"{empty}= is empty")
    return pairs


def typed_pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return pairs as they are typed."""
    return [f"{key}={_quoted(value)}" for key, value in pairs]


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if re.search('[,"]', value) else value
