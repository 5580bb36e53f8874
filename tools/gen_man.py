"""Writes docs/man: pik(1), and a page for each of its commands, from the source of docs/commands.md.

Exit codes and variables come from the pages of docs/ that say them. The pages have no date: it would change with every
build, and the version says what they are of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import wrap

from pik import __version__
from tools.reference import Chapter, Command, Parameter, chapters, global_options, summary_of

_DOCS = Path(__file__).parent.parent / "docs"
FOLDER = _DOCS / "man"

_ABOUT = """\
A metric is wrong, or has changed, and you are on call. pik shows what really arrived: it keeps every delivery of every
event unchanged, separates duplicates from conflicts and late events from lost ones, computes what the numbers should
have been, shows which events explain the difference, and repairs the numbers by adding new values, never by
overwriting old ones.

Everything lives in one directory, the store, or in a stack in an AWS account; the commands are the same."""

_FIRST_STEPS = """\
# play one incident end to end
pik demo

# record a file of your own in ./.pik, and see what is wrong
pik ingest events.jsonl
pik triage"""

_FILES = (
    Parameter("./.pik", "The store, unless --store or PIK_STORE names another one; looked up in parent directories."),
    Parameter(
        "pik.toml", "Defaults, names of stores, and mappings of foreign records; looked up in parent directories."
    ),
)

_SPECIAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}


def pages() -> dict[Path, str]:
    """Return the man pages: path → text."""
    book = chapters()
    found = {FOLDER / "pik.1": _written("pik", _root(book))}
    for chapter in book:
        for name, command in chapter.commands.items():
            found[FOLDER / f"pik-{name}.1"] = _written(f"pik-{name}", _of(name, command, chapter))
    return found


def _written(title: str, lines: Iterable[str]) -> str:
    preface = '.\\" Generated from the help of the commands by "make docs"; do not edit.'
    heading = f'.TH {_typed(title.upper())} 1 "" "pik {__version__}" "Pipeline Investigation Kit"'
    return "\n".join([preface, heading, *lines]) + "\n"


def _root(book: list[Chapter]) -> Iterator[str]:
    yield from (".SH NAME", "pik \\- find out what really arrived, what the numbers should have been, and repair them")
    yield from (".SH SYNOPSIS", *_usage("pik [OPTIONS] COMMAND [ARGS]..."))
    yield from (".SH DESCRIPTION", *_prose(_ABOUT))
    yield ".SH COMMANDS"
    yield from _prose("Each command has its own page, such as pik-ingest(1), and --help.")
    for chapter in book:
        yield f".SS {_typed(chapter.heading)}"
        for name in chapter.commands:
            yield from (".TP", f".BR {_typed(f'pik-{name}')} (1)", _text(summary_of(name)))
    yield ".SH OPTIONS"
    yield from _prose("Before or after the command; of several, the rightmost counts.")
    yield from _parameters(global_options())
    yield ".SH EXIT STATUS"
    for code, meaning in _rows("exit-codes.md", "\n| exit |", "\n## "):
        yield from (".TP", f".B {code}", _text(meaning))
    yield ".SH ENVIRONMENT"
    for names, meaning in _rows("configuration.md", "\n## Environment variables\n", "\n## "):
        yield from (".TP", f".B {_typed(_plain(names))}", _text(_plain(meaning)))
    yield from (".SH FILES", *_parameters(_FILES))
    yield from (".SH EXAMPLES", *_examples(_FIRST_STEPS))
    yield from (".SH SEE ALSO", *_see_also(name for chapter in book for name in chapter.commands))


def _of(name: str, command: Command, chapter: Chapter) -> Iterator[str]:
    yield from (".SH NAME", f"{_typed(f'pik-{name}')} \\- {_text(_small(summary_of(name)))}")
    called = [one for one in (command, *command.commands) if one.usage]
    yield from (".SH SYNOPSIS", *_lines(_usage(one.usage) for one in called))
    yield from (".SH DESCRIPTION", *_prose(command.help))
    if command.parameters:
        yield from (".SH OPTIONS", *_parameters(command.parameters))
    if command.examples:
        yield from (".SH EXAMPLES", *_examples(command.examples))
    if command.commands:
        yield ".SH COMMANDS"
    for inner in command.commands:
        yield from (f".SS {_typed(inner.path)}", *_prose(inner.help), *_parameters(inner.parameters))
        if inner.examples:
            yield from (".PP", *_examples(inner.examples))
    yield ".SH SEE ALSO"
    yield from (".BR pik (1),", "for the options that every command takes, exit status and environment;")
    yield from _see_also(other for other in chapter.commands if other != name)


def _lines(parts: Iterable[Iterable[str]]) -> Iterator[str]:
    for number, part in enumerate(parts):
        if number:
            yield ".br"
        yield from part


def _usage(usage: str) -> Iterator[str]:
    """A command line whose words are bold where they are typed as they are, and italic where they stand for others."""
    typed = re.match(r"(?:[a-z]+ ?)+", usage)
    end = typed.end() if typed else 0
    yield f".B {_typed(usage[:end].strip())}"
    yield f".I {_typed(usage[end:])}"


def _prose(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _text(paragraph)


def _parameters(parameters: Iterable[Parameter]) -> Iterator[str]:
    for one in parameters:
        yield from (".TP", f".B {_typed(one.usage)}", _text(one.meaning))


def _examples(text: str) -> Iterator[str]:
    yield from (".EX", *map(_line, text.splitlines()), ".EE")


def _see_also(names: Iterable[str]) -> Iterator[str]:
    listed = list(names)
    for name in listed:
        yield f".BR {_typed(f'pik-{name}')} (1){'' if name == listed[-1] else ','}"


def _rows(page: str, begin: str, end: str) -> list[tuple[str, str]]:
    """Return the first two cells of the rows of the tables in a part of a page."""
    part = (_DOCS / page).read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    return re.findall(r"^\| (\d+|`[^|]+) \| ([^|]+?) \|", part, re.MULTILINE)


def _plain(text: str) -> str:
    """Return a cell without the marks of Markdown, and without links, which lead nowhere from here."""
    return re.sub(r" \(\[[^]]+\]\([^)]+\)\)|\[([^]]+)\]\([^)]+\)", r"\1", text).replace("`", "")


def _small(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:].rstrip(".")


def _typed(text: str) -> str:
    """Return text that can be copied from the page: hyphens and quotes stay what they are."""
    return "".join(_SPECIAL.get(char, char) if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)


def _text(text: str) -> str:
    return "\n".join(map(_line, wrap(text, 100, break_long_words=False, break_on_hyphens=False))) or "\\&"


def _line(text: str) -> str:
    """Return a line of text that is not taken for a request of roff."""
    escaped = _typed(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'", "\\(aq")) else escaped
