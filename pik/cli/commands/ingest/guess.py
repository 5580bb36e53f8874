"""`pik ingest --guess`: what it proposes, and what it shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from pik.cli.command import PARTLY
from pik.cli.commands.ingest.guess_input import GuessedInput, chosen_input, files_of_data
from pik.cli.commands.ingest.report import only
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, Column, Field, Rows, Schema
from pik.cli.reading import ReadingOptions
from pik.cli.values import Count, Json
from pik.config import ingest_defaults
from pik.errors import UsageError, command, number_of
from pik.model.jmes import quoted
from pik.model.layout import NONE, READS, InputFormat, Layout
from pik.model.place import partitions

if TYPE_CHECKING:
    from pik.inputs.opened import OpenedInput
    from pik.inputs.source import Input, Source
    from pik.usecases.ingest.guess_result import Guess

_WITH_IT = {"guess", "files", *(one.name for one in fields(ReadingOptions))} - {"mapping"}
"""What a guess can take into account."""

_EXAMPLE = 60
"""Characters of a value that are shown."""

_LISTS = 8
"""Lists of a document that are named."""

_FIELDS = 40
"""Fields of the records that are shown."""

INGEST_GUESS = Schema(
    "pik ingest --guess",
    Field("verdict", str, "what is proposed, in one sentence", get=lambda found: _verdict(found)),
    Field("input", str, "how the records are written", get="layout.format"),
    Field("sampled", Count, "records that were looked at", get="records"),
    Field("accepted", Count | None, "of these, how many become events; null: a field is missing"),
    Rows(
        "proposed",
        "the fields of events",
        Column("field", str),
        Column("from", str, "the expression that finds it", get="expression", wrap=True),
        Column("confidence", str, "`certain`, `likely` or `unsure`"),
        Column("reason", str, wrap=True),
        get=lambda found: found.mapping,
        only="unless a named mapping reads the records, or they are events as they stand",
    ),
    Field(
        "to_decide",
        list[str] | None,
        "what is still to be put into the command",
        get="undecided",
        text=lambda found: _lines(found),
    ),
    Rows(
        "found_fields",
        "the fields of the records, those that most have first",
        Column("path", str),
        Column("records", Count, "how many have it"),
        Column("distinct", Count, "different values"),
        Column("example", Json, text=lambda one: _shortened(one.example)),
        get=lambda found: sorted(found.found, key=lambda one: (-one.records, one.path.count(".")))[:_FIELDS],
        only="where one is missing",
    ),
    NOTE,
    NEXT,
)


def guess_mapping(cli: Context, files: list[str], sources: list[Source], options: ReadingOptions) -> int | None:
    """Propose how the first of the inputs is read, and the command for all of them; store nothing."""
    from pik.inputs.archives import with_members
    from pik.inputs.named_mappings import checked, shipped_mappings
    from pik.usecases.ingest.guess import guess
    from pik.usecases.ingest.reading import without_mapping

    _expect_alone(cli)
    own = cli.settings.mappings
    asked = without_mapping(ingest_defaults(cli.settings), options.given())
    named = [checked(one) for one in {**shipped_mappings(), **own}.values()]

    def look(source: Input) -> tuple[Guess, bool, tuple[str, ...]]:
        with source.open() as once, once.repeatable() as opened:
            found = guess(opened, asked.layout, asked.max_line, asked.mapping, asked.times, named)
            if not found.records:
                why = f": {found.problem}" if found.problem else ""
                hint = READS if found.problem else command("ingest", "--dry-run", *options.words(), *files)
                raise UsageError(f"there is no record in the beginning of {source.name}{why}", hint=hint)
            is_quoted = found.named is None and _has_quotes(opened, found.layout, asked.max_line)
            return found, is_quoted, _of_folders(opened, found, asked.max_line)

    with closing(with_members(sources, cli.note)) as members:
        chosen = chosen_input(members, look)
    found, inputs = chosen.guess, [one.name for one in sources]
    words = _words(found, options, none=any(one.files for one in own.values()))
    left_out = [name for name, rows in (("proposed", found.mapping), ("found_fields", found.found)) if not rows]
    cli.show(
        INGEST_GUESS.without(*left_out),
        found,
        accepted=None if found.missing else found.accepted,
        note="; ".join(_notes(chosen, inputs)),
        next=command("ingest", "--dry-run", *files_of_data(files, inputs, chosen), *words),
    )
    return PARTLY if found.undecided else None


def _has_quotes(opened: OpenedInput, layout: Layout, max_line: int) -> bool:
    """Return whether cells of TSV are in quotes, which programs that write it often mean as a part of the text."""
    if layout.format != InputFormat.TSV or layout.quote is not None:
        return False
    as_text = opened.sample(replace(layout, quote=NONE), max_line)
    return any(b':"\\"' in one.line for one in as_text)


def _notes(chosen: GuessedInput, inputs: list[str]) -> Iterator[str]:
    """Yield what else to know of the guess, which is of one of the inputs, or of a file in one."""
    found = chosen.guess
    yield "nothing was stored; look at what the dry run shows before you ingest"
    yield from only(chosen.name, inputs, which="a" if chosen.passed_over else "the first")
    yield from (f"passed over: {why}" for _, why in chosen.passed_over)
    if chosen.of_folders:
        yield _with_folders(chosen.of_folders)
    if found.named is None and (found.layout.quote or found.layout.escape):
        yield "quotes and backslashes are read as the first rows show them, unless you say it: --quote, --escape"
    elif chosen.is_quoted:
        yield "cells in quotes are read without them; where they are a part of the text: --quote none"
    if found.problem and found.missing:
        yield f"there are records that cannot be read, such as: {found.problem}"
    elif found.problem:
        others = number_of(found.records - found.accepted, "record")
        yield f"{others} of {found.records:,} would be rejected, such as: {found.problem}"
    if found.lists and found.layout.records is None and found.records > 1:
        names = ", ".join(map(str, found.lists[:_LISTS]))
        yield f"the records have lists whose elements have times, too: {names}; --records PATH makes records of these"
    elif len(found.lists) > 1:
        names = ", ".join(map(str, found.lists[:_LISTS])) + (", …" if len(found.lists) > _LISTS else "")
        whole = "" if found.layout.records else ", which is taken for one record"
        yield f"the document has several lists{whole}: {names}; --records PATH takes the records from another one"
    if len(found.found) > _FIELDS:
        yield f"the records have {len(found.found) - _FIELDS:,} more fields"


def _of_folders(opened: OpenedInput, found: Guess, max_line: int) -> tuple[str, ...]:
    """Return what the folders NAME=VALUE around an input say that its records do not, where these are the payload."""
    names = partitions(opened.file) if found.expressions.get("payload") == "@" else {}
    if names:
        records = [json.loads(one.line) for one in opened.sample(found.layout, max_line) if not one.problem]
        names = {one: value for one, value in names.items() if not any(one in record for record in records)}
    return tuple(names)


def _with_folders(names: Sequence[str]) -> str:
    each = ", ".join(f"{quoted(one)}: partition('{one}')" for one in names)
    _, _, added = command("--map", f"payload=merge(@, {{{each}}})").partition(" ")
    says = "only the names of folders say"
    return f"{says} {' and '.join(names)}; to have it in the payload, too: {added}"


def _expect_alone(cli: Context) -> None:
    """Raises UsageError for an option that has no effect on a guess."""
    for name, words in cli.typed.items():
        if (
            name not in _WITH_IT
            and words[0].startswith("--")
            and name not in ("store", "format", "display_timezone", "quiet", "actor")
        ):
            raise UsageError(f"{words[0]} does not go with --guess", hint="it stores nothing; leave one of them out")


def _words(found: Guess, options: ReadingOptions, *, none: bool) -> list[str]:
    """Return the options of the command that is proposed; `none` where a mapping of pik.toml could be taken instead."""
    if found.named is not None:
        path = found.layout.records
        known = (None, options.records, *found.named.given.get("records", ()))
        inside = [] if path in known else ["--records", path or ""]
        return ["--mapping", found.named.name, *inside, *options.words()]
    words: list[str] = []
    layout: Mapping[str, str] = found.layout.given
    for name, text in layout.items():
        if name == "input" and text != InputFormat.TEXT and options.input is None:
            continue  # it is recognized again
        if name == "delimiter" and options.delimiter is None:
            continue
        words += [f"--{name}", text]
    words += ["--mapping", "none"] if none else []
    for one in found.mapping:
        words += ["--map", f"{one.field}={one.expression}"]
    for name, texts in found.times.given.items():
        for text in texts:
            words += [f"--{name}", text]
    words += ["--max-line", str(options.max_line)] if options.max_line != ReadingOptions().max_line else []
    return words + (["--max-window", str(options.max_window)] if options.max_window else [])


def _verdict(found: Guess) -> str:
    if found.named is not None:
        all_of = f"all {found.records:,}" if not found.problem else f"{found.accepted:,} of {found.records:,}"
        return f"the mapping {found.named} reads {all_of} records that were looked at"
    if not found.mapping:
        return f"the records are events as they stand: {found.accepted:,} of {found.records:,} that were looked at"
    if found.found:
        return f"no field of the records looks like {', '.join(found.missing)}"
    more = f", {number_of(len(found.undecided), 'thing')} to decide" if found.undecided else ""
    return f"a mapping by which {found.accepted:,} of {found.records:,} records become events{more}"


def _shortened(example: bytes) -> str:
    """Return the beginning of a value, for people."""
    text = example.decode()
    return text if len(text) <= _EXAMPLE else text[:_EXAMPLE] + "…"


def _lines(found: Guess) -> str | None:
    return "\n".join(found.undecided) or None
