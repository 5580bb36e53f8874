"""Writes what is generated in docs/: commands.md, the man pages, json.md and its schemas, openapi.yaml, the policies of
iam.md, python-reference.md; and packaging/adopt.json.

`python -m tools.gen_docs [--check]`
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools import gen_adopt, gen_iam, gen_json, gen_man, gen_openapi, gen_python
from tools.reference import Chapter, Command, Parameter, chapters, global_options

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"

_PREFACE = """# Commands

<!-- Generated from `pik COMMAND --help` by `make docs`; do not edit. -->

What `pik COMMAND --help` says. [JSON output](json.md) has the fields of results, [Exit codes](exit-codes.md) what
commands end with.
"""


def page() -> str:
    """The whole page."""
    book = chapters()
    lines = [_PREFACE, *map(_contents, book)]
    lines += ["## Global options\n", "Before or after the command; of several, the rightmost counts.\n"]
    lines += _options(global_options())
    for chapter in book:
        for command in chapter.commands.values():
            lines += _sections(command)
    return "\n".join(lines).rstrip() + "\n"


def _contents(chapter: Chapter) -> str:
    return f"**{chapter.heading}**: " + ", ".join(f"[{name}](#pik-{name})" for name in chapter.commands) + "\n"


def _sections(command: Command) -> Iterator[str]:
    """A command, and if it is a group each of its commands."""
    yield f"## {command.path}\n"
    yield command.help + "\n"
    if command.usage:
        yield f"```text\n{command.usage}\n```\n"
    yield from _options(command.parameters)
    if command.examples:
        yield f"```sh\n{command.examples}\n```\n"
    for inner in command.commands:
        yield from _sections(inner)


def _options(parameters: Sequence[Parameter]) -> list[str]:
    rows = [f"| {_cell(one.usage, code=True)} | {_cell(one.meaning)} |" for one in parameters]
    return ["| option | meaning |\n| --- | --- |", *rows, ""] if rows else []


def _cell(text: str, *, code: bool = False) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`{text}`" if code else text


def pages() -> dict[Path, str]:
    """Return everything that is generated: path → text."""
    return {
        PAGE: page(),
        **gen_man.pages(),
        **gen_json.pages(),
        gen_openapi.PAGE: gen_openapi.page(),
        gen_iam.PAGE: gen_iam.page(),
        gen_adopt.PAGE: gen_adopt.page(),
        gen_python.PAGE: gen_python.page(),
    }


def main() -> int:
    """Write the pages, or with --check report those that are out of date (exit code 1 if any is)."""
    current = pages()
    stale = [path for path, text in current.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    folders = (gen_json.SCHEMAS, gen_man.FOLDER)
    left_over = sorted({path for folder in folders for path in folder.glob("*")} - current.keys())
    if sys.argv[1:] == ["--check"]:
        for path in [*stale, *left_over]:
            print(f"docs/{path.relative_to(PAGE.parent)} is out of date; `make docs` writes it again", file=sys.stderr)
        return 1 if stale or left_over else 0
    for folder in folders:
        folder.mkdir(exist_ok=True)
    for path in stale:
        path.write_text(current[path], encoding="utf-8")
    for path in left_over:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
