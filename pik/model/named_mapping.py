"""Named mappings: how the records of one producer are read, under a name.

A named mapping is a table of TOML, in pik.toml or in one of the files that pik is installed with: the options of
`pik ingest` that describe records (`time-format` is `time_format`), the expressions of fields under `map`, the `files`
for which it is taken by itself, a `description`, and a condition on a record by which it is recognized.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pik.errors import Invalid
from pik.model.event import FIELDS
from pik.model.layout import OPTIONS as LAYOUT
from pik.model.layout import Layout, read_layout
from pik.model.times import AS_EVENTS, Times, read_times
from pik.model.times import OPTIONS as TIMES

OPTIONS = (*LAYOUT, *TIMES)
"""The options of `pik ingest` that a named mapping may have."""

KEYS = ("description", "files", "recognized_by", *(name.replace("-", "_") for name in OPTIONS), "map")
"""What a table of a named mapping may have."""

NONE = "none"
"""The name that stands for no mapping."""

SHIPPED = "shipped"
"""Where mappings come from that pik is installed with."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class NamedMapping:
    """How records are read, by a name. `place` is where it is written: the path of a pik.toml, or `shipped`.

    `given` has the values of options by their names, `fields` the expressions of fields. It is taken for files whose
    paths one of the patterns `files` matches. `recognized_by` is an expression that is true of its records; it serves
    for hints only.
    """

    name: str
    place: str
    given: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    description: str = ""
    recognized_by: str = ""

    def __str__(self) -> str:
        """Return the name, and where the mapping comes from."""
        return f"{self.name} ({self.origin})"

    @property
    def origin(self) -> str:
        """Where it comes from, in a word: `pik.toml` or `shipped`."""
        return PurePosixPath(self.place).name

    @property
    def times(self) -> Times:
        """How its times are written."""
        return read_times(self.given)

    def layout_under(self, options: Layout) -> Layout:
        """Return the layout, with what options say in the place of what it says. Raises Invalid."""
        return read_layout({**_layout(self.given), **options.given})

    def is_for(self, file: str) -> bool:
        """Return whether it is taken for the file with that path."""
        return any(PurePosixPath(file).match(pattern) for pattern in self.files)

    @property
    def options(self) -> list[tuple[str, str]]:
        """The options of `pik ingest` that say the same, with their values."""
        given = [(name, text) for name in OPTIONS for text in self.given.get(name, ())]
        return [*given, *(("map", f"{name}={text}") for name, text in self.fields.items())]


@dataclass(frozen=True, slots=True)
class IngestDefaults:
    """What pik.toml says of how files are read: `[ingest]`, expressions of fields and how times are written, and its
    named mappings, some of which are for files of certain names."""

    fields: Mapping[str, str] = field(default_factory=dict)
    times: Times = AS_EVENTS
    mappings: Mapping[str, NamedMapping] = field(default_factory=dict)


def read_mapping(name: str, table: object, place: str) -> NamedMapping:
    """Return the mapping that a table of TOML describes. Expressions and formats of times are not looked at. Raises
    Invalid, which begins with the key in the file."""
    at = f"mapping.{name}"
    if not _NAME.fullmatch(name) or name == NONE:
        hint = f"letters, digits and . _ -; {NONE} is taken: it stands for no mapping"
        raise Invalid(f"{at}: {name!r} cannot be the name of a mapping", hint=hint)
    rows = _table(table, at)
    if unknown := [key for key in rows if key not in KEYS]:
        raise Invalid(f"there is no key {at}.{unknown[0]}", hint=f"a mapping may have: {', '.join(KEYS)}")
    fields = {key: _text(value, f"{at}.map.{key}") for key, value in _table(rows.get("map", {}), f"{at}.map").items()}
    if unknown := [key for key in fields if key not in FIELDS]:
        raise Invalid(f"{at}.map.{unknown[0]}: an event has no such field", hint=f"fields: {', '.join(FIELDS)}")
    given = {option: key for option in OPTIONS if (key := option.replace("-", "_")) in rows}
    found = NamedMapping(
        name,
        place,
        {option: _texts(rows[key], f"{at}.{key}") for option, key in given.items()},
        fields,
        tuple(_texts(rows.get("files", []), f"{at}.files")),
        _text(rows.get("description", ""), f"{at}.description"),
        _text(rows.get("recognized_by", ""), f"{at}.recognized_by"),
    )
    if not all(found.files):
        raise Invalid(f"{at}.files: a pattern is empty", hint="a pattern of file names: 'orders-*.csv'")
    _expect_readable(found, at)
    return found


def _expect_readable(mapping: NamedMapping, at: str) -> None:
    """Raise Invalid where its options describe no layout and no times."""
    try:
        read_layout(_layout(mapping.given))
        read_times(mapping.given)
    except Invalid as error:
        key, _, what = error.message.partition(" ")
        raise Invalid(f"{at}.{key.replace('-', '_')} {what}", hint=error.hint) from None


def _layout(given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {name: ",".join(given[name]) for name in LAYOUT if name in given}


def toml_of(mapping: NamedMapping) -> str:
    """Return the mapping as it is written in pik.toml."""
    lines = [f"[mapping.{_key(mapping.name)}]"]
    texts = {"description": mapping.description, "recognized_by": mapping.recognized_by}
    lines += [f"{key} = {_value(text)}" for key, text in texts.items() if text]
    if mapping.files:
        lines.append(f"files = {_list(mapping.files)}")
    for name, values in mapping.given.items():
        lines.append(f"{name.replace('-', '_')} = {_value(values[0]) if len(values) == 1 else _list(values)}")
    if mapping.fields:
        lines += ["", f"[mapping.{_key(mapping.name)}.map]"]
        lines += [f"{name} = {_value(text)}" for name, text in mapping.fields.items()]
    return "".join(f"{line}\n" for line in lines)


def _key(name: str) -> str:
    return name if "." not in name else f'"{name}"'


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_value, texts))}]"


def _value(text: str) -> str:
    if "'" not in text and text.isprintable() and ("\\" in text or '"' in text):
        return f"'{text}'"
    return f'"{"".join(_escaped(one) for one in text)}"'


def _escaped(one: str) -> str:
    if one in '"\\':
        return f"\\{one}"
    return one if one.isprintable() else f"\\U{ord(one):08X}"


def _table(value: object, at: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Invalid(f"{at}: expected a table, not {value!r}")
    return value


def _text(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{at}: expected a text, not {value!r}")
    return value


def _texts(value: object, at: str) -> Sequence[str]:
    """Return the texts of a list, or the only one."""
    return [_text(one, at) for one in value] if isinstance(value, list) else [_text(value, at)]
