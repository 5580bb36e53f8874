"""The named mappings that pik is installed with, and what is checked of one before it is used."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from pik.errors import UsageError
from pik.inputs.time_formats import TimeFormat
from pik.model.jmes import Expression
from pik.model.named_mapping import SHIPPED, NamedMapping, read_mapping
from pik.model.times import FIELDS

_PLACE = files("pik") / "mappings"


@cache
def shipped_mappings() -> Mapping[str, NamedMapping]:
    """Return the mappings that pik is installed with, by name."""
    names = sorted(file.name.removesuffix(".toml") for file in _PLACE.iterdir() if file.name.endswith(".toml"))
    return {name: _shipped(name) for name in names}


def _shipped(name: str) -> NamedMapping:
    return read_mapping(name, tomllib.loads(shipped_text(name))["mapping"][name], SHIPPED)


def shipped_text(name: str) -> str:
    """Return the file of a shipped mapping, which can be pasted into pik.toml."""
    return (_PLACE / f"{name}.toml").read_text(encoding="utf-8")


def find_mapping(name: str, own: Mapping[str, NamedMapping]) -> NamedMapping:
    """Return the mapping of that name: one's own, of pik.toml, before a shipped one. Raises UsageError."""
    known = {**shipped_mappings(), **own}
    if name not in known:
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
            hint=f"--mapping {found[0].name} names one",
        )
    return checked(found[0]) if found else None


def checked(mapping: NamedMapping) -> NamedMapping:
    """Return the mapping, whose expressions and times can be read. Raises UsageError that names what cannot."""
    at = f"mapping.{mapping.name}"
    try:
        for name, text in mapping.fields.items():
            Expression(text, f"{at}.map.{name}", of_record=True)
        for name in FIELDS:
            TimeFormat(mapping.times.format_of(name), mapping.times.zone(name))
    except UsageError as error:
        key = "" if error.message.startswith(at) else f"{at}.time_format: "
        raise UsageError(f"{mapping.place}: {key}{error.message}", hint=error.hint) from None
    return mapping
