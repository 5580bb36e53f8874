"""`pik mappings`: named mappings, of pik.toml and shipped."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pik.cli import completion
from pik.cli.command import PARTLY, CommandGroup
from pik.cli.commands.ingest.dry_run import SAMPLE, SampleRow
from pik.cli.commands.ingest.ingest import sources_of
from pik.cli.commands.ingest.report import NAMED, named, only
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, Column, Field, Rows, Schema
from pik.cli.options import argument, option
from pik.cli.reading import ReadingOptions
from pik.cli.values import Count
from pik.config import Format
from pik.errors import UsageError, command
from pik.model.visible import visible_lines

if TYPE_CHECKING:
    from pik.model.named_mapping import NamedMapping
    from pik.usecases.ingest.attempts import Attempt

EXAMPLE = 200
"""Characters of a rejected record that are shown."""

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
def show(
    cli: Context, name: Annotated[str, argument("NAME", "The mapping.", autocompletion=completion.mappings)]
) -> None:
    """Show a mapping as it is written in pik.toml, and as options of `pik ingest`."""
    from pik.inputs.named_mappings import find_mapping, shipped_text
    from pik.model.named_mapping import SHIPPED, toml_of

    mapping = find_mapping(name, cli.settings.mappings)
    text = shipped_text(name) if mapping.place == SHIPPED else toml_of(mapping)
    if cli.settings.format == Format.TABLE and sys.stdout is not None:
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


@mappings.add(
    "try",
    examples="""
    # what does the mapping make of the first records?
    pik mappings try stripe-event events.jsonl

    # and with another entity?
    pik mappings try stripe-event events.jsonl --map entity_id=data.object.id
    """,
)
def try_(
    cli: Context,
    name: Annotated[str, argument("NAME", "The mapping.", autocompletion=completion.mappings)],
    file: Annotated[str, argument("FILE", "A file, folder or archive, an s3:// object, or - for standard input.")],
    reading_options: ReadingOptions,
    sample: Annotated[int, option("--sample N", "How many records to show.", min=1)] = 3,
) -> int | None:
    """Show what a mapping makes of the first records of a file: where each field comes from, or why one is rejected.

    Nothing is stored, and no store is needed. Other options take precedence over the mapping, as in `pik ingest`, whose
    --dry-run looks at all records. Exit code 3: some of the records are rejected.
    """
    from pik.inputs.archives import first_member
    from pik.usecases.ingest.attempts import first_attempts

    if reading_options.mapping is not None:
        raise UsageError("NAME is the mapping here", hint="leave --mapping out")
    chosen = replace(reading_options, mapping=name)
    reading = chosen.reading(cli)
    sources = sources_of(cli, [file], max_window=reading_options.max_window)
    with first_member(sources, cli.note) as source:
        reading, found = first_attempts(source, reading, sample)
    rejected = [one for one in found if one.event is None]
    stored = "nothing was stored" if found else f"there is no record in {source.name}"
    cli.show(
        TRIED,
        reading,
        source=source.name,
        read=len(found),
        rejects=rejected,
        sample=[SampleRow(source.name, one.seq, origin) for one in found if one.event for origin in one.event.fields],
        note="; ".join([stored, *only(source.name, [one.name for one in sources])]),
        next=command("ingest", *chosen.words(), file) if len(found) > len(rejected) else None,
    )
    return PARTLY if rejected else None


def _is_shadowing(mapping: NamedMapping) -> bool:
    from pik.inputs.named_mappings import shipped_mappings
    from pik.model.named_mapping import SHIPPED

    return mapping.place != SHIPPED and mapping.name in shipped_mappings()


def _from(mapping: NamedMapping) -> str:
    return mapping.origin + (", in the place of the shipped one" if _is_shadowing(mapping) else "")


def _line(attempt: Attempt) -> str:
    text = attempt.line[: 4 * EXAMPLE].decode(errors="replace")
    return text if len(text) <= EXAMPLE else text[:EXAMPLE] + "…"


MAPPINGS = Schema(
    "pik mappings list",
    Rows(
        "mappings",
        "those of pik.toml first",
        Column("name", str),
        Column("from", str, "`pik.toml` or `shipped`", get="origin", text=_from),
        Column(
            "file_patterns",
            list[str],
            "patterns of the names of files that it reads without `--mapping`",
            get="files",
            drop=1,
        ),
        Column("replaces_shipped", bool, "whether a shipped mapping has the same name", get=_is_shadowing, detail=True),
        Column("description", str | None, wrap=True),
    ),
)

MAPPING = Schema(
    "pik mappings show",
    Field("name", str),
    Field("from", str, "`pik.toml` or `shipped`", get="origin"),
    Field("description", str | None),
    Field("file_patterns", list[str], "patterns of the names of files that it reads without `--mapping`", get="files"),
    Field(
        "options",
        list[str],
        "options of `pik ingest`, as NAME=VALUE",
        get=lambda one: [f"{name}={value}" for name, value in one.options],
    ),
    Field("toml", str, "the mapping as it is written in pik.toml"),
    Field("command", str, "the command line that says the same"),
)

TRIED = Schema(
    "pik mappings try",
    Field("source", str, "the input"),
    Field("mapping", str | None, NAMED, get=lambda reading: named(reading.named)),
    Field("input", str, "how its records are written", get="layout.format"),
    Field("read", Count, "the first records, which are shown"),
    Rows(
        "rejects",
        "those that are not events",
        Column("seq", int, "its position in the input; in JSON lines the line"),
        Column("field", str | None),
        Column("reason", str, wrap=True),
        Column("line", str, "the beginning of its text", get=_line, wrap=True),
        empty="none",
    ),
    Rows("sample", "those that are, one row per field", *SAMPLE, empty="none"),
    NOTE,
    NEXT,
)
