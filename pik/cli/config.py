"""Where the settings come from: an option, else the environment, else pik.toml, else a default.

pik.toml is the nearest one, from the current directory upwards; its relative paths start where it lies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import msgspec

from pik.errors import UsageError

Format = Literal["table", "json", "jsonl", "csv", "md"]
FILE = "pik.toml"
DEFAULT_STORE = "./.pik"
STORE_MARKER = "format.json"
"""The file that makes a directory a store (docs/format.md)."""


class Ingest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`[ingest]`: what `pik ingest` takes for granted in files from here."""

    time_format: str | None = None
    timezone: str | None = None
    map: dict[str, str] = {}


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """pik.toml, as written."""

    store: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    format: Format | None = None
    stores: dict[str, Annotated[str, msgspec.Meta(min_length=1)]] = {}
    ingest: Ingest = Ingest()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for this command: the store's URL or path, the output format, and `[ingest]`.

    `default_store` is where a store is created that no option, variable or file names; None where one names it.
    """

    store: str
    default_store: str | None
    format: Format
    quiet: bool
    ingest: Ingest


def settings(
    *,
    store: str | None = None,
    format: str | None = None,  # noqa: A002 - the option's name
    quiet: bool = False,
    environment: Mapping[str, str] = os.environ,
    directory: Path | None = None,
) -> Settings:
    """The settings of one command. Raises UsageError naming the file or variable that is wrong."""
    here = directory or Path.cwd()
    path = find(here)
    config = Config() if path is None else read(path)
    chosen = store or environment.get("PIK_STORE") or None
    default = None
    if chosen is not None and chosen not in config.stores:
        url = chosen  # a path on the command line or in the environment starts where we are
    elif path is not None and (chosen or config.store):
        url = _located(config.stores, chosen or config.store or "", path.parent)
    else:
        url, default = _nearest_store(here) or DEFAULT_STORE, DEFAULT_STORE
    return Settings(
        store=url,
        default_store=default,
        format=_format(format, config, environment),
        quiet=quiet,
        ingest=config.ingest,
    )


def _located(stores: Mapping[str, str], chosen: str, base: Path) -> str:
    """The URL or path that `chosen`, maybe a name, stands for; a relative path starts at `base`."""
    url = stores.get(chosen, chosen)
    return url if "://" in url else str(base / Path(url).expanduser())


def _nearest_store(directory: Path) -> str | None:
    """The default store of the nearest parent directory that has one; None where this directory has it, or none has."""
    for place in (directory, *directory.parents):
        if os.path.exists(place / DEFAULT_STORE / STORE_MARKER):
            return None if place == directory else str(place / DEFAULT_STORE)
    return None


def _format(option: str | None, config: Config, environment: Mapping[str, str]) -> Format:
    from_environment = environment.get("PIK_FORMAT")
    if option is None and from_environment and from_environment not in get_args(Format):
        raise UsageError(f"PIK_FORMAT: invalid choice {from_environment!r} (choose from {', '.join(get_args(Format))})")
    chosen = option or from_environment or config.format or "table"
    return cast(Format, chosen)


def find(directory: Path) -> Path | None:
    """The pik.toml of this directory or of the nearest one above it."""
    for place in (directory, *directory.parents):
        if os.path.isfile(place / FILE):  # false, not an error, where we may not look
            return place / FILE
    return None


def read(path: Path) -> Config:
    """The configuration in a file. Raises UsageError naming the file and the key."""
    import tomllib

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(table, Config)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {_plainly(str(error))}", hint=_KEYS) from None


_KEYS = "it may have: store, format, [stores] NAME = …, [ingest] time_format, timezone, [ingest.map] FIELD = …"


def _plainly(complaint: str) -> str:
    """msgspec's words with the key where a person looks for it."""
    found = re.fullmatch(r"(.*?)(?: - at `(?:key in )?\$\.?(.*?)`)?", complaint)
    what, where = (found[1], found[2] or "") if found else (complaint, "")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown:
        return f"there is no key {where + '.' if where else ''}{unknown[1]}"
    return f"{where}: {what[:1].lower()}{what[1:]}"
