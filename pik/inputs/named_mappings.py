"""The named mappings that pik is installed with, and what is checked of one before it is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pik.errors import Invalid, UsageError
from pik.inputs.advice import Advice, Option
from pik.inputs.json_shapes import first_object
from pik.inputs.time_formats import TimeFormat
from pik.model.jmes import Expression
from pik.model.named_mapping import SHIPPED, NamedMapping, read_mapping
from pik.model.record_path import EACH, read_path
from pik.model.times import FIELDS

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


@cache
def shipped_mappings() -> Mapping[str, NamedMapping]:
    """Return the mappings that pik is installed with, by name."""
    found = sorted(file.name for file in _place().iterdir())
    names = [name.removesuffix(".toml") for name in found if name.endswith(".toml")]
    return {name: _shipped(name) for name in names}


def _place() -> Traversable:
    from importlib.resources import files  # late, as the next one: few commands need a mapping

    return files("pik") / "mappings"


def _shipped(name: str) -> NamedMapping:
    import tomllib

    return read_mapping(name, tomllib.loads(shipped_text(name))["mapping"][name], SHIPPED)


def shipped_text(name: str) -> str:
    """Return the file of a shipped mapping, which can be pasted into pik.toml."""
    return (_place() / f"{name}.toml").read_text(encoding="utf-8")


def find_mapping(name: str, own: Mapping[str, NamedMapping]) -> NamedMapping:
    """Return the mapping of that name: one's own, of pik.toml, before a shipped one. Raises UsageError."""
    known = {**shipped_mappings(), **own}
    if name not in known:
        from difflib import get_close_matches

        begun = [one for one in known if one.startswith(name.lower())]
        close = ", ".join(begun[:3] or get_close_matches(name, known, n=3))
        hint = f"did you mean {close}? `pik mappings list` lists them" if close else "`pik mappings list` lists them"
        raise UsageError(f"there is no mapping {name!r}", hint=hint)
    return checked(known[name])


def mapping_for(file: str, own: Iterable[NamedMapping]) -> NamedMapping | None:
    """Return the one of these that is for the file with that path, if any is. Raises UsageError if several are."""
    found = [mapping for mapping in own if mapping.is_for(file)]
    if len(found) > 1:
        names = " and ".join(mapping.name for mapping in found)
        raise UsageError(
            f"the mappings {names} ({found[0].origin}) are both for {PurePosixPath(file).name}: their `files` match it",
            hint=Advice((Option("mapping", found[0].name), " names one")),
        )
    return checked(found[0]) if found else None


def recognized(text: str, pattern: str | None = None) -> str | None:
    """Return the name of the shipped mapping that is certainly for an input: one for lines of that pattern, or the only
    one that recognizes the first record of JSON that the input begins with."""
    shipped = shipped_mappings().values()
    if pattern is not None:
        return next((one.name for one in shipped if pattern in one.given.get("pattern", ())), None)
    found = [one.name for one in shipped if one.recognized_by and _recognizes_first(one, text)]
    return found[0] if len(found) == 1 else None


def _recognizes_first(mapping: NamedMapping, text: str) -> bool:
    """Return whether the first record of a text is certainly one of those that the mapping is for."""
    record: object = first_object(text)
    for pattern in mapping.given.get("pattern", ()):
        line = re.fullmatch(pattern, text.partition("\n")[0])
        record = line and line.groupdict()
    for path in mapping.given.get("records", ()):
        for step in read_path(path):
            if step is EACH:
                record = record[0] if isinstance(record, list) and record else None
            else:
                record = record.get(step) if isinstance(record, dict) else None
    return isinstance(record, dict) and recognizes(mapping, record)


def recognizes(mapping: NamedMapping, record: dict[str, object]) -> bool:
    """Return whether a record is certainly one of those that the mapping is for."""
    try:
        return bool(Expression(mapping.recognized_by, "recognized_by").search_slowly(record))
    except Invalid:
        return False


def is_as_shipped(named: str, field: str, expression: str) -> bool:
    """Return whether the shipped mapping of that name, after which may stand where it comes from, reads a field so."""
    mapping = shipped_mappings().get(named.partition(" ")[0])
    return mapping is not None and mapping.fields.get(field, field) == expression


def checked(mapping: NamedMapping) -> NamedMapping:
    """Return the mapping, whose expressions and times can be read. Raises UsageError that names what cannot."""
    at = f"mapping.{mapping.name}"
    try:
        for name, text in mapping.fields.items():
            Expression(text, f"{at}.map.{name}", of_record=True)
        if mapping.recognized_by:
            Expression(mapping.recognized_by, f"{at}.recognized_by")
        for name in FIELDS:
            TimeFormat(mapping.times.format_of(name), mapping.times.zone(name))
    except UsageError as error:
        key = "" if error.message.startswith(at) else f"{at}.time_format: "
        raise UsageError(f"{mapping.place}: {key}{error.message}", hint=error.hint) from None
    return mapping
