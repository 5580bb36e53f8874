"""Just enough of IAM's evaluation to ask what the template's resource policies deny."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any


def denies(document: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]) -> str | None:
    """The Sid of the statement that denies everybody this request, if one does."""
    for statement in document["Statement"]:
        assert statement["Effect"] == "Deny", f"{statement['Sid']} allows something"
        assert statement["Principal"] == "*", f"{statement['Sid']} does not hold for everybody"
        if (
            any(fnmatchcase(action, pattern) for pattern in as_list(statement["Action"]))
            and any(fnmatchcase(resource, pattern) for pattern in as_list(statement["Resource"]))
            and all(_holds(operator, tests, context) for operator, tests in statement.get("Condition", {}).items())
        ):
            return str(statement["Sid"])
    return None


def _holds(operator: str, tests: Mapping[str, str], context: Mapping[str, str]) -> bool:
    return all(_OPERATORS[operator](context.get(key), value) for key, value in tests.items())


_OPERATORS = {
    "Null": lambda actual, expected: (actual is None) == (expected == "true"),
    "Bool": lambda actual, expected: actual == expected,
    "ArnNotEquals": lambda actual, expected: actual != expected,
    "ForAllValues:StringNotEquals": lambda actual, expected: actual != expected,  # true without a value, too
}


def as_list(value: Any) -> list[Any]:
    """IAM writes a list of one without its brackets."""
    return value if isinstance(value, list) else [value]
