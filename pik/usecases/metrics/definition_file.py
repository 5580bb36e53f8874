"""Metric definitions read from a TOML file and validated. Imported only to apply them: stored ones need no pydantic."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pik.errors import Invalid, UsageError
from pik.inputs.toml_text import read_toml
from pik.inputs.whole_text import whole_text
from pik.model.calendar import buckets_of
from pik.model.metric import Definition, Per

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_READS = "what can be read: TOML, such as docs/metrics.md has"
_FIELDS = "a metric has name, value, and optionally where, bucket, timezone, per, description"
_PROBLEMS = {
    "missing": "required field {field} is missing",
    "extra_forbidden": "unknown field {field}",
    "string_type": "{field} must be a string, not {value!r}",
    "enum": '{field} must be "entity" or "all", not {value!r}',
}
"""Sentences by the type of pydantic's error."""


def _valid_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Invalid(f"invalid name {name!r}: use lower-case letters, digits and _ (at most 63)")
    return name


class _Table(BaseModel):
    """One definition, as it is written. Its SQL is checked by the engine, not here."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_valid_name)]
    value: str
    bucket: str = "1d"
    timezone: str | None = None
    where: str | None = None
    description: str = ""
    per: Annotated[Per, Field(strict=False)] = Per.ENTITY


def read_definitions(path: Path) -> list[Definition]:
    """Return the definitions in a TOML file: one, or several as [[metric]] tables. Raises InputError and Invalid."""
    document = read_toml(whole_text(str(path), _READS), str(path))
    if "metric" not in document:
        return [read_definition(document, str(path))]
    tables = document["metric"]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        hint = "several definitions are [[metric]] tables, each with its name; a single one needs no table"
        raise Invalid(f"{path}: 'metric' is not a list of tables", hint=hint)
    if len(document) > 1:
        other = next(name for name in document if name != "metric")
        raise Invalid(f"{path}: a file with [[metric]] tables has nothing else, but this has {other!r}")
    definitions = [read_definition(table, f"{path}, metric {number}") for number, table in enumerate(tables, start=1)]
    names = [definition.name for definition in definitions]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise Invalid(f"{path} defines {repeated} twice", hint="a file has one definition of a metric")
    return definitions


def read_definition(table: dict[str, Any], origin: str) -> Definition:
    """Return the definition in one parsed TOML table; `origin` names it in errors. Raises Invalid."""
    try:
        definition = Definition(**_Table.model_validate(table).model_dump())
        buckets_of(definition.bucket, definition.timezone)
        return definition
    except (Invalid, UsageError) as error:  # pydantic lets it pass
        raise Invalid(f"{origin}: {error.message}", hint=error.hint) from None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        sentence = _PROBLEMS.get(problem["type"], "{field} is invalid: {value!r}")
        raise Invalid(f"{origin}: {sentence.format(field=field, value=problem['input'])}", hint=_FIELDS) from None
