"""template.yaml as plain data, and what it says for given parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).resolve().parents[3] / "template.yaml"
ABSENT = {"Ref": "AWS::NoValue"}


class _Loader(yaml.SafeLoader):
    """Knows CloudFormation's short forms: `!GetAtt A.B` is {"Fn::GetAtt": ["A", "B"]}."""


def _short_form(loader: _Loader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if tag == "GetAtt":
        value = value.split(".", 1)
    return {tag if tag == "Ref" else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _short_form)


@cache
def template() -> dict[str, Any]:
    """The file, with its short forms written out."""
    loaded: dict[str, Any] = yaml.load(PATH.read_text(), _Loader)
    return loaded


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


_FUNCTIONS: dict[str, Any] = {
    "Ref": _ref,
    "Fn::GetAtt": lambda value, _parameters: ".".join(value),
    "Fn::Sub": _sub,
    "Fn::If": lambda value, parameters: resolved(_branch(value, parameters), parameters),
    "Fn::Equals": lambda value, parameters: len({str(resolved(one, parameters)) for one in value}) == 1,
    "Fn::Or": lambda value, parameters: any(resolved(value, parameters)),
    "Fn::Not": lambda value, parameters: not resolved(value[0], parameters),
}
