"""Writes docs/openapi.yaml: tools/openapi.yaml, and the schemas of the models that functions and client share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml

from pik.lambdas.replay_request import ReplayRequest
from pik.ports.remote import ApiError, BufferedView, PlannedRun, RunView

PAGE = Path(__file__).parent.parent / "docs" / "openapi.yaml"
_BY_HAND = Path(__file__).parent / "openapi.yaml"
_REF = "#/components/schemas/{%s}"
_PREFACE = "# Generated from tools/openapi.yaml and the models of pik by `make docs`; do not edit.\n"


def page() -> str:
    """Return the whole document."""
    _, answers = msgspec.json.schema_components(
        (ApiError, BufferedView, PlannedRun, RunView), ref_template=_REF % "name"
    )
    request = ReplayRequest.model_json_schema(ref_template=_REF % "model")
    schemas = {"ReplayRequest": request, **answers}
    generated = yaml.safe_dump(
        {name: _plain(schema) for name, schema in schemas.items()}, sort_keys=False, width=120, allow_unicode=True
    )
    indented = "".join(f"    {line}\n" for line in generated.splitlines())
    return _PREFACE + _BY_HAND.read_text(encoding="utf-8") + indented


def _plain(node: Any) -> Any:
    """Return a schema without titles, which repeat names, and without fields beside those that it lists."""
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {name: _plain(one) for name, one in node.items() if name != "title" or not isinstance(one, str)}
    if found.get("default") == "" and found.get("minLength"):
        del found["default"]  # an empty text is left out of the answer
    return {**found, "additionalProperties": False} if "properties" in found else found
