"""`pik mappings`: named mappings, of pik.toml and shipped."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from pik.cli.command import CommandGroup
from pik.cli.config import Format
from pik.cli.context import Context
from pik.cli.document import Column, Field, Rows, Schema
from pik.cli.options import argument
from pik.cli.text import visible_lines
from pik.errors import command

if TYPE_CHECKING:
    from pik.model.named_mapping import NamedMapping

mappings = CommandGroup("Named mappings of foreign records: list, show, try.")


@mappings.add("list", examples="pik mappings list")
def list_(cli: Context) -> None:
    """List the mappings of pik.toml, and those that pik is installed with.

    A mapping of pik.toml is taken for files whose names its patterns match; `--mapping NAME` takes any. Of two with the
    same name, that of pik.toml is taken.
    """
    from pik.inputs.named_mappings import shipped_mappings

    own = cli.settings.mappings
    cli.show(MAPPINGS, mappings=[*own.values(), *(one for one in shipped_mappings().values() if one.name not in own)])


@mappings.add(
    "show",
    examples="""
    # what it does, and why
    pik mappings show cloudtrail

    # begin a mapping of your own with a shipped one
    pik mappings show stripe-event >> pik.toml
    """,
)
def show(cli: Context, name: Annotated[str, argument("NAME", "The mapping.")]) -> None:
    """Show a mapping as it is written in pik.toml, and as options of `pik ingest`."""
    from pik.inputs.named_mappings import find_mapping, shipped_text
    from pik.model.named_mapping import SHIPPED, toml_of

    mapping = find_mapping(name, cli.settings.mappings)
    text = shipped_text(name) if mapping.place == SHIPPED else toml_of(mapping)
    if cli.settings.format == Format.TABLE:
        print(visible_lines(f"# {mapping}; as options:\n{_as_options(mapping)}\n\n{text}"), end="")
        return
    words = [word for option, value in mapping.options for word in (f"--{option}", value)]
    cli.show(MAPPING, mapping, toml=text, command=command("ingest", "FILE", *words))


def _as_options(mapping: NamedMapping) -> str:
    """Return the command line that says the same as comments of TOML, an option on each line."""
    options = [f"--{name} {_quoted(value)}" for name, value in mapping.options]
    return " \\\n".join(["#   pik ingest FILE", *(f"#     {option}" for option in options)])


def _quoted(value: str) -> str:
    """Return a value as it is typed in a shell: in double quotes where it has single ones."""
    return f'"{value}"' if "'" in value and not set(value) & set('"$`\\!\n') else shlex.quote(value)


def _is_shadowing(mapping: NamedMapping) -> bool:
    from pik.inputs.named_mappings import shipped_mappings
    from pik.model.named_mapping import SHIPPED

    return mapping.place != SHIPPED and mapping.name in shipped_mappings()


def _from(mapping: NamedMapping) -> str:
    return mapping.origin + (", in the place of the shipped one" if _is_shadowing(mapping) else "")


MAPPINGS = Schema(
    "pik mappings list",
    Rows(
        "mappings",
        "those of pik.toml first",
        Column("name", str),
        Column("from", str, "`pik.toml` or `shipped`", get="origin", text=_from),
        Column("file_patterns", list[str], "of names of files for which it is taken by itself", get="files", drop=1),
        Column("replaces_shipped", bool, "whether a shipped mapping has the same name", get=_is_shadowing, detail=True),
        Column("description", str | None, wrap=True),
    ),
)

MAPPING = Schema(
    "pik mappings show",
    Field("name", str),
    Field("from", str, "`pik.toml` or `shipped`", get="origin"),
    Field("description", str | None),
    Field("file_patterns", list[str], "of names of files for which it is taken by itself", get="files"),
    Field(
        "options",
        list[str],
        "options of `pik ingest`, as NAME=VALUE",
        get=lambda one: [f"{name}={value}" for name, value in one.options],
    ),
    Field("toml", str, "the mapping as it is written in pik.toml"),
    Field("command", str, "the command line that says the same"),
)
