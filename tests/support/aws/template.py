"""What template.yaml says for given parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tools.template import PATH, template

__all__ = ["PATH", "properties", "resolved", "resources", "template"]

ABSENT = {"Ref": "AWS::NoValue"}


def resources(kind: str) -> dict[str, Any]:
    """The resources of a type, by name."""
    return {name: one for name, one in template()["Resources"].items() if one["Type"] == kind}


def properties(name: str, **parameters: str) -> Any:
    """A resource's properties as the parameters make them."""
    return resolved(template()["Resources"][name]["Properties"], parameters)


def resolved(node: Any, parameters: Mapping[str, str]) -> Any:
    """The node with parameters put in and branches taken. Of a resource stays its name: `RawBucket.Arn`."""
    if isinstance(node, list):
        return [resolved(one, parameters) for one in node if not _is_absent(one, parameters)]
    if not isinstance(node, dict):
        return node
    if len(node) == 1 and (function := next(iter(node))) in _FUNCTIONS:
        return _FUNCTIONS[function](node[function], parameters)
    return {key: resolved(value, parameters) for key, value in node.items() if not _is_absent(value, parameters)}


def _is_absent(node: Any, parameters: Mapping[str, str]) -> bool:
    while isinstance(node, dict) and "Fn::If" in node:
        node = _branch(node["Fn::If"], parameters)
    return bool(node == ABSENT)


def _branch(choice: list[Any], parameters: Mapping[str, str]) -> Any:
    condition, then, otherwise = choice
    return then if resolved(template()["Conditions"][condition], parameters) else otherwise


def _ref(name: str, parameters: Mapping[str, str]) -> Any:
    declared = template()["Parameters"].get(name)
    return name if declared is None else parameters.get(name, declared["Default"])


def _sub(value: Any, parameters: Mapping[str, str]) -> str:
    text, names = (value, {}) if isinstance(value, str) else (value[0], resolved(value[1], parameters))
    return re.sub(r"\$\{(.+?)\}", lambda found: str(names.get(found[1]) or _ref(found[1], parameters)), text)


def _mapped(name: str, key: str, attribute: str) -> Any:
    return template()["Mappings"][name][key][attribute]


_FUNCTIONS: dict[str, Any] = {
    "Ref": _ref,
    "Fn::GetAtt": lambda value, _parameters: ".".join(value),
    "Fn::Sub": _sub,
    "Fn::FindInMap": lambda value, parameters: _mapped(*(str(resolved(one, parameters)) for one in value)),
    "Fn::If": lambda value, parameters: resolved(_branch(value, parameters), parameters),
    "Fn::Equals": lambda value, parameters: len({str(resolved(one, parameters)) for one in value}) == 1,
    "Fn::Or": lambda value, parameters: any(resolved(value, parameters)),
    "Fn::Not": lambda value, parameters: not resolved(value[0], parameters),
}
