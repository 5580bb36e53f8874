"""Where the settings come from: an option, else the environment, else pik.toml, else a default.

pik.toml is the nearest one, from the current directory upwards; its relative paths start where it lies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pik.errors import InputError, Invalid, NotFound, StoreError, UsageError
from pik.model.cluster import Cluster
from pik.model.zone import Zone, load_zone

if TYPE_CHECKING:
    from pik.model.named_mapping import IngestDefaults, NamedMapping
    from pik.ports.store import Store

FILE = "pik.toml"
DEFAULT_STORE = "./.pik"
STORE_MARKER = "format.json"
"""The file that makes a directory a store (docs/format.md)."""


class Format(StrEnum):
    """How results are written; FORMATS in output.py has what writes each."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    MD = "md"


@dataclass(frozen=True)
class Ingest:
    """`[ingest]`: what `pik ingest` takes for granted in files from here."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    time_format: str | list[str] | None = None
    timezone: str | list[str] | None = None
    ambiguous: str | None = None
    map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """pik.toml, as written."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    store: str | None = None
    format: Format | None = None
    display_timezone: str | None = None
    stores: Mapping[str, str] = field(default_factory=dict)
    ingest: Ingest = field(default_factory=Ingest)
    mapping: Mapping[str, Any] = field(default_factory=dict)
    cluster: Cluster = field(default_factory=Cluster)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for this command: the store's URL or path, the output format, who gives it, and `[ingest]`, the named
    mappings, the named stores and `[cluster]` of pik.toml.

    `default_store` is where a store is created that no option, variable or file names; None where one names it. `actor`
    is None where neither an option nor a variable gives one, `display_zone` where people read times in UTC.
    """

    store: str
    default_store: str | None
    format: Format
    display_zone: Zone | None
    quiet: bool
    actor: str | None
    ingest: Ingest
    mappings: Mapping[str, NamedMapping]
    stores: Mapping[str, str]
    cluster: Cluster


def _current_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise NotFound("the current directory does not exist any more", hint="cd to another one") from None


def settings(
    *,
    store: str | None = None,
    format: str | None = None,  # noqa: A002 - the option's name
    display_timezone: str | None = None,
    quiet: bool = False,
    actor: str | None = None,
    environment: Mapping[str, str] = os.environ,
    directory: Path | None = None,
) -> Settings:
    """Return the settings of one command. Raises UsageError naming the file or variable that is wrong."""
    here = directory or _current_directory()
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
        display_zone=_display_zone(display_timezone, environment, config, path),
        quiet=quiet,
        actor=_actor(actor, environment),
        ingest=config.ingest,
        mappings={} if path is None else _mappings(path, config.mapping),
        stores=config.stores,
        cluster=config.cluster if path is None else _with_archive(config.cluster, path.parent),
    )


def portable(settings: Settings, store: str, named: str | None) -> str:
    """Return the text of a pik.toml that gives a process on another machine the settings of this one, with that URL for
    the store, also where the command names it `named`."""
    path, zone, parallelism = find(_current_directory()), settings.display_zone, settings.cluster.parallelism
    kept: dict[str, object] = {} if path is None else _table(path)
    table: dict[str, object] = {
        "store": store,
        "format": settings.format.value,
        "display_timezone": "UTC" if zone is None else zone.name,
        "stores": {} if named is None else {named: store},
        "cluster": {} if parallelism is None else {"parallelism": parallelism},
        **{name: kept[name] for name in ("ingest", "mapping") if name in kept},
    }
    return "".join(f"{name} = {_as_toml(value)}\n" for name, value in table.items())


def _as_toml(value: object) -> str:
    """Return a value of a document as TOML on one line, which spells texts and numbers as JSON does."""
    from json import dumps

    if isinstance(value, dict):
        return "{" + ", ".join(f"{_as_toml(key)} = {_as_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _with_archive(cluster: Cluster, base: Path) -> Cluster:
    """Return the cluster; a relative path of its archive starts at `base`."""
    return cluster if cluster.archive is None else replace(cluster, archive=_located({}, cluster.archive, base))


def _mappings(path: Path, tables: Mapping[str, object]) -> Mapping[str, NamedMapping]:
    """Return the named mappings of a file, by name. Raises UsageError naming the file and the key."""
    if not tables:
        return {}
    from pik.model.named_mapping import read_mapping  # late: few files have any

    try:
        return {name: read_mapping(name, table, str(path)) for name, table in tables.items()}
    except Invalid as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from None


def _actor(option: str | None, environment: Mapping[str, str]) -> str | None:
    """Return who is recorded with what this command changes, if that is given."""
    variable = environment.get("PIK_ACTOR")
    given = option if option is not None else variable or None
    if given is None:
        return None
    from pik.model.event import check_name  # late: few give a name

    name = "--actor" if option is not None else "PIK_ACTOR"
    try:
        check_name(name, given)
    except Invalid as error:
        raise UsageError(error.message, hint="a name such as ana@example.com") from None
    except UnicodeEncodeError:
        raise UsageError(f"{name} is not UTF-8", hint="a name such as ana@example.com") from None
    return given


def ingest_defaults(settings: Settings) -> IngestDefaults:
    """Return what `[ingest]` and the named mappings say of how files are read. Raises UsageError."""
    from pik.model.named_mapping import IngestDefaults
    from pik.model.times import OPTIONS, read_times

    ingest = settings.ingest
    given = dict(zip(OPTIONS, (ingest.time_format, ingest.timezone, ingest.ambiguous), strict=True))
    try:
        times = read_times({name: text for name, text in given.items() if text is not None})
    except Invalid as error:
        raise UsageError(f"--{error.message}", hint=error.hint) from None
    return IngestDefaults(ingest.map, times, settings.mappings)


def user_and_host() -> str:
    """Return who gives this command, as the system names the user and the host."""
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # as in a container
        user = f"uid {os.geteuid()}"
    return f"{user}@{os.uname().nodename}"


def actor_of(settings: Settings, store: Store, note: Callable[[str], None]) -> str:
    """Return who is recorded with what is changed in the store: the actor that is given, else the caller as the store
    knows it, else the user and the host; `note` is told where the store cannot say who the caller is."""
    if settings.actor is not None:
        return settings.actor
    try:
        return (store.caller and store.caller()) or user_and_host()
    except StoreError as error:
        note(f"recorded as {user_and_host()}, unless --actor says otherwise: {error.message}")
        return user_and_host()


def near_stores(url: str, stores: Mapping[str, str]) -> list[str]:
    """Return what may have been meant by the path of a store that is not there: names of pik.toml, and directories
    beside it that are stores."""
    from difflib import get_close_matches

    place = Path(url)
    try:
        beside = [one.name for one in islice(place.parent.iterdir(), 1000) if (one / STORE_MARKER).is_file()]
    except OSError:
        beside = []
    paths = [str(place.parent / name) for name in get_close_matches(place.name, beside, n=2)]
    inner = [str(place / DEFAULT_STORE)] if (place / DEFAULT_STORE / STORE_MARKER).is_file() else []
    return [*get_close_matches(place.name, stores, n=2), *inner, *paths]


def _located(stores: Mapping[str, str], chosen: str, base: Path) -> str:
    """Return the URL or path that `chosen`, maybe a name, stands for; a relative path starts at `base`."""
    url = stores.get(chosen, chosen)
    return url if "://" in url else str(base / Path(url).expanduser())


def _nearest_store(directory: Path) -> str | None:
    """Return the default store of the nearest parent directory that has one; None where this directory has it, or none
    has."""
    for place in (directory, *directory.parents):
        if os.path.exists(place / DEFAULT_STORE / STORE_MARKER):
            return None if place == directory else str(place / DEFAULT_STORE)
    return None


def _format(option: str | None, config: Config, environment: Mapping[str, str]) -> Format:
    variable = environment.get("PIK_FORMAT")
    if option is None and variable and variable not in list(Format):
        raise UsageError(f"PIK_FORMAT: {_invalid_choice(variable)}")
    return Format(option or variable or config.format or Format.TABLE)


def _display_zone(option: str | None, environment: Mapping[str, str], config: Config, path: Path | None) -> Zone | None:
    """Return the zone in which people read times; None is UTC."""
    given = {
        "--display-timezone": option,
        "PIK_DISPLAY_TIMEZONE": environment.get("PIK_DISPLAY_TIMEZONE") or None,
        f"{path}: display_timezone": config.display_timezone,
    }
    where, name = next(((where, name) for where, name in given.items() if name is not None), ("", "UTC"))
    if name == "UTC":
        return None
    try:
        return load_zone(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from None


def _invalid_choice(value: object) -> str:
    return f"invalid choice {value!r} (choose from {', '.join(Format)})"


def find(directory: Path) -> Path | None:
    """Return the pik.toml of this directory or of the nearest one above it."""
    for place in (directory, *directory.parents):
        if os.path.isfile(place / FILE):  # false, not an error, where we may not look
            return place / FILE
    return None


def read(path: Path) -> Config:
    """Return the configuration in a file. Raises UsageError naming the file and the key."""
    table = _table(path)
    config = _converted(table)
    if config is None:
        _explain(path, table)
    named = {f"stores.{name}": url for name, url in config.stores.items()}
    for key, text in {"store": config.store, **named, "cluster.archive": config.cluster.archive}.items():
        if text == "":
            raise UsageError(f"{path}: {key} is empty", hint=_KEYS)
    if config.cluster.parallelism is not None and config.cluster.parallelism < 1:
        raise UsageError(f"{path}: cluster.parallelism: expected 1 or more, not {config.cluster.parallelism}")
    for key in config.cluster.spark:
        if not key.startswith("spark."):
            raise UsageError(f"{path}: cluster.spark: {key!r} is not a setting of Spark", hint=_SPARK)
    return config


def _table(path: Path) -> dict[str, Any]:
    """Return the document in a file. Raises UsageError naming the file."""
    from pik.inputs.encoding import shown_encoding
    from pik.inputs.toml_text import read_toml

    try:
        data = path.read_bytes()
        return read_toml(data.decode(shown_encoding(data) or "utf-8").removeprefix("\ufeff"), str(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not TOML: it is not UTF-8") from None
    except InputError as error:
        raise UsageError(error.message, hint=error.hint) from None


_KEYS = (
    "it may have: store, format, display_timezone, [stores] NAME = …, [ingest] time_format, timezone, ambiguous,"
    " [ingest.map] FIELD = …, [mapping.NAME], [cluster] parallelism, archive, [cluster.spark] SETTING = …"
)

_NO_NUMBER = "expected a whole number without quotes"

_SPARK = """a setting is a text, its name stands in quotes: [cluster.spark] "spark.executor.memory" = "4g\""""


def _converted(table: Mapping[str, object]) -> Config | None:
    """Return the configuration; None if anything in the table is invalid. pydantic, which says what, takes as long to
    load as a short command takes."""
    import msgspec

    unknown = table.keys() - {one.name for one in fields(Config)}
    for name, kind in (("ingest", Ingest), ("cluster", Cluster)):
        inner = table.get(name)
        unknown |= inner.keys() - {one.name for one in fields(kind)} if isinstance(inner, dict) else set()
    try:
        return None if unknown else msgspec.convert(table, Config)
    except msgspec.ValidationError:
        return None


def _explain(path: Path, table: Mapping[str, object]) -> NoReturn:
    """Raise UsageError for what is invalid in the table."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(Config).validate_python(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, given = ".".join(str(one) for one in first["loc"] if one not in ("str", "list[str]")), first["input"]
        complaint = {
            "unexpected_keyword_argument": f"there is no key {key}",
            "enum": f"{key}: {_invalid_choice(given)}",
            "string_type": f"{key}: expected a text, not {given!r}",
            "int_parsing": f"{key}: {_NO_NUMBER}",
            "int_type": f"{key}: {_NO_NUMBER}",
        }.get(first["type"], f"{key}: expected a table, not {given!r}")
        raise UsageError(f"{path}: {complaint}", hint=_SPARK if key.startswith("cluster.spark") else _KEYS) from None
    # What is invalid and yet accepted: true or a text in the place of a number.
    raise UsageError(f"{path}: cluster.parallelism: {_NO_NUMBER}", hint=_KEYS)
