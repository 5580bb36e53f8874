"""Refuses functions of one row whose time or memory grows out of proportion to the event and the definition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LONGEST = 10_000
"""Characters of a definition's value or condition."""

MOST_JOINED = 32
"""Texts that a definition joins by || and concat."""

JOINS = ("||", "concat", "concat_ws")
_GROWING = (*JOINS, "list_value")
_PATTERNS = frozenset("regexp_matches regexp_full_match regexp_extract regexp_replace".split())
_LIKES = frozenset("~~ !~~ ~~* !~~*".split())


def unbounded(name: str, arguments: Sequence[dict[str, Any]], in_lambda: bool) -> str:
    """Why a call may take beyond all bounds; empty if it may not."""
    texts = [_text(argument) for argument in arguments]
    if in_lambda and name in _GROWING:
        return f"{name} inside of a lambda may double its argument again and again"
    if name in _PATTERNS and (len(texts) < 2 or texts[1] is None):
        return f"the pattern of {name} is a constant here"
    if name == "regexp_replace" and texts[2:3] != [""]:
        return "regexp_replace takes only '' here as what to put in, so that no text grows"
    if name == "replace" and (None in texts[1:] or len(texts[2] or "") > len(texts[1] or "")):
        return "replace takes constants here, the second not longer than the first, so that no text grows"
    if name in _LIKES:
        return _like(name, texts[1])
    return ""


def deep_path(node: dict[str, Any]) -> bool:
    """Whether a constant is a JSON path that searches at any depth, and there again."""
    text = _text(node) or ""
    return text.startswith("$") and text.count("..") + text.count("**") > 1


def _like(name: str, pattern: str | None) -> str:
    """DuckDB tries the rest of such a pattern at each place where a % may end, and so on within each try."""
    if pattern is None:
        return "the pattern of LIKE is a constant here"
    recursive = name.endswith("*") or "_" in pattern
    if recursive and len([part for part in pattern.rstrip("%").split("%") if part]) + pattern.startswith("%") > 2:
        return "ILIKE, and LIKE with _, take one % here beside one at the end; regexp_matches has no such bound"
    return ""


def _text(node: dict[str, Any]) -> str | None:
    """The text of a string constant."""
    literal = node.get("literal") or {}
    return str(literal["text"]) if node.get("class") == "CONSTANT" and literal.get("kind") == "STRING" else None
