"""Text of strangers for people: nothing in it is obeyed, and everything is seen."""

from __future__ import annotations

import re
from functools import cache

# Controls (an escape sequence starts with one), line and paragraph separators, what reorders or hides, what is not a
# character, lone surrogates.
_HIDDEN = (
    "\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"
)
# White space, but for the ideographic space, which is as wide as a letter; and letters that are blank.
_LIKE_A_SPACE = re.compile("[\xa0\u034f\u115f\u1160\u1680\u2000-\u200a\u202f\u205f\u2800\u3164\uffa0]")
_CONTROLS = "\x00-\x1f"
_CONTROLS_IN_LINES = "\x00-\x08\x0b\x0c\x0e-\x1f"


@cache
def _unseen(controls: str) -> re.Pattern[str]:
    return re.compile(f"[{controls}{_HIDDEN}]")


def _escape(match: re.Match[str]) -> str:
    return _escaped(match[0])


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is not UTF-8
        code -= 0xDC00
    known = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return known or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def visible(text: str) -> str:
    """Return the text on one line, with every character that would move, colour, reorder or hide shown as an escape."""
    return text if text.isascii() and text.isprintable() else _unseen(_CONTROLS).sub(_escape, text)


def visible_value(text: str) -> str:
    """Return a value as `visible` does, with escapes for white space at its ends, which tells `u-4 ` from `u-4`, and
    for spaces that look like the usual one."""
    text = _LIKE_A_SPACE.sub(_escape, visible(text))
    begin, end = len(text) - len(text.lstrip()), len(text.rstrip())
    if begin >= end:
        return "".join(map(_escaped, text))
    return "".join(map(_escaped, text[:begin])) + text[begin:end] + "".join(map(_escaped, text[end:]))


def visible_lines(text: str) -> str:
    """Return the text as `visible` does, but with its line breaks and tabs."""
    return _unseen(_CONTROLS_IN_LINES).sub(_escape, text)


def visible_json(text: str) -> str:
    """Return the same JSON, with those characters as JSON's own escapes."""
    return _unseen("").sub(lambda match: f"\\u{ord(match[0]):04x}", text)


_OPTION = 40
"""Characters of an option's value that people see, at most."""


def visible_option(value: str | None) -> str:
    """Return the value of an option as people see it: one that was not given, and the beginning of a long one, too."""
    if value is None:
        return "not given"
    return visible(value if len(value) <= _OPTION else value[:_OPTION] + "…")
