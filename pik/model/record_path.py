"""The path to the records in a JSON document: names of fields, and `[]` for each element of a list."""

from __future__ import annotations

import json
import re

from pik.errors import Invalid

EACH = None
"""The step from a list to each of its elements; every other step is the name of a field."""

Step = str | None
RecordPath = tuple[Step, ...]

MAX_STEPS = 32

HINT = "names and [], such as Records[], resourceLogs[].scopeLogs[].logRecords[], or [] for an array"

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEP = re.compile(r'(?P<each>\[\])|(?P<dot>\.)?(?:(?P<plain>[A-Za-z_][A-Za-z0-9_]*)|(?P<quoted>"(?:[^"\\]|\\.)+"))')


def read_path(text: str) -> RecordPath:
    """Return the steps of a path. Raises Invalid, which begins with the option's name, `records`."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None or (found["each"] is None and bool(steps) != bool(found["dot"])):
            raise _wrong(text, f"expected a name or [] at {text[at : at + 20]!r}")
        steps.append(EACH if found["each"] else found["plain"] or _name(text, found["quoted"]))
        at = found.end()
    if not steps or steps[-1] is not EACH:
        raise _wrong(text, "it does not end with []")
    if len(steps) > MAX_STEPS:
        raise Invalid(f"records: the path has {len(steps):,} steps, more than {MAX_STEPS}", hint=HINT)
    return tuple(steps)


def path_text(path: RecordPath) -> str:
    """Return the path as it is typed."""
    text = ""
    for step in path:
        text += "[]" if step is EACH else ("." if text else "") + _quoted(step)
    return text


def _quoted(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _name(text: str, name: str) -> str:
    try:
        return str(json.loads(name))
    except ValueError:
        raise _wrong(text, f"{name} is not a quoted name") from None


def _wrong(text: str, what: str) -> Invalid:
    shown = text if len(text) <= 60 else text[:59] + "…"
    return Invalid(f"records {shown}: {what}", hint=_meant(text) or HINT)


def _meant(text: str) -> str:
    """Return the path that a text in the style of JSONPath, jq or JMESPath seems to mean; empty where none."""
    text = re.sub(r"^\$", "", text.strip())
    text = re.sub(r"\[(\*|\d+|:)\]", "[]", text).lstrip(".").rstrip(".")
    names = re.sub(r"\[\]", ".[].", text)
    steps = [EACH if name == "[]" else name.strip('"') for name in names.split(".") if name]
    if (
        not steps
        or len(steps) > MAX_STEPS
        or any(step and re.search(r"[\s\[\]|&(){}`'\"\\,*?!<>=:]", step) for step in steps)
    ):
        return ""
    return f"records '{path_text((*steps, *([] if steps[-1] is EACH else [EACH])))}'"
