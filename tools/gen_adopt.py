"""Writes packaging/adopt.json: the part of template.yaml with which CloudFormation takes what a deleted stack kept into
a new one (docs/recovering.md). An import allows nothing else in its template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tools.template import PATH, template

PAGE = PATH.parent / "packaging" / "adopt.json"

_TABLE = {"PointInTimeRecoverySpecification", "Tags"}.__contains__
_APPLIED_LATER: dict[str, Callable[[str], bool]] = {
    "RawBucket": lambda name: name != "ObjectLockEnabled",
    "IndexTable": _TABLE,
    "StateTable": _TABLE,
    "IngestQueue": lambda _: True,
    "IngestDeadLetterQueue": lambda _: True,
}
"""What a deleted stack keeps, and which properties are left out, so that the deployment after the import sets them. The
others stay: they cannot be changed, or a second call that sets them is an error, as for a table's time to live."""


def page() -> str:
    """Return the whole template."""
    whole = template()
    resources = {
        name: {
            "Type": whole["Resources"][name]["Type"],
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                each: value
                for each, value in whole["Resources"][name]["Properties"].items()
                if not is_applied_later(each)
            },
        }
        for name, is_applied_later in _APPLIED_LATER.items()
    }
    names = set(_names(resources))
    conditions = {name: one for name, one in whole["Conditions"].items() if name in names}
    names |= set(_names(conditions))
    part = {
        "AWSTemplateFormatVersion": whole["AWSTemplateFormatVersion"],
        "Description": "What holds the data of a pik stack; made from template.yaml by `make docs`",
        "Parameters": {name: one for name, one in whole["Parameters"].items() if name in names},
        "Conditions": conditions,
        "Resources": resources,
    }
    return json.dumps(part, indent=2) + "\n"


def _names(node: Any) -> Iterator[str]:
    """Yield every text in a part of the template; among them are the names of all parameters and conditions in it."""
    if isinstance(node, str):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _names(inner)
