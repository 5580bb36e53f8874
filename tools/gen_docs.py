"""Writes what is generated in docs/: commands.md, json.md and its schemas, openapi.yaml, the policies of iam.md.

`python -m tools.gen_docs [--check]`
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pik.cli.app import root_command
from pik.cli.help import GLOBAL, argument_name
from tools import gen_iam, gen_json, gen_openapi

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"

_PREFACE = """# Commands

Generated from `pik COMMAND --help` by `make docs`; do not edit. Output, formats and exit codes:
[json.md](json.md), [exit-codes.md](exit-codes.md).
"""


def page() -> str:
    """The whole page."""
    root = root_command()
    ctx = root.make_context("pik", [], resilient_parsing=True)
    lines = [_PREFACE]
    for heading in dict.fromkeys(entry.heading for entry in root.entries.values()):
        names = [name for name, entry in root.entries.items() if entry.heading == heading]
        lines.append(f"**{heading}**: " + ", ".join(f"[{name}](#pik-{name})" for name in names) + "\n")
    lines += ["## Global options\n", "Before or after the command; of several, the rightmost counts.\n"]
    lines += _options(param for param in root.get_params(ctx) if getattr(param, "rich_help_panel", None) == GLOBAL)
    for name in root.list_commands(ctx):
        lines += _sections(root.get_command(ctx, name), ctx, name)
    return "\n".join(lines).rstrip() + "\n"


def _sections(command: Any, parent: Any, name: str) -> Iterator[str]:
    """A command, and if it is a group each of its commands."""
    ctx = command.make_context(name, [], parent=parent, resilient_parsing=True)
    yield f"## {ctx.command_path}\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    commands = getattr(command, "commands", {})
    if not commands or command.invoke_without_command:
        yield f"```text\n{' '.join([ctx.command_path, *command.collect_usage_pieces(ctx)])}\n```\n"
    own = (param for param in command.params if getattr(param, "rich_help_panel", None) != GLOBAL)
    yield from _options(own)
    if command.epilog:
        examples = inspect.cleandoc(command.epilog.removeprefix("Examples:\n"))
        yield f"```sh\n{examples}\n```\n"
    for inner in commands.values():
        yield from _sections(inner, ctx, inner.name)


def _options(params: Any) -> list[str]:
    rows = [f"| {_cell(left, code=True)} | {_cell(right)} |" for left, right in map(_record, params)]
    return ["| option | meaning |\n| --- | --- |", *rows, ""] if rows else []


def _record(param: Any) -> tuple[str, str]:
    if param.param_type_name == "argument":
        return argument_name(param), param.help or ""
    names = ", ".join([*param.opts, *param.secondary_opts])
    value = "" if param.is_flag else f" {param.metavar}"
    default = param.default
    shown = f" Default: {default}." if default not in (None, False, [], "") and param.show_default else ""
    repeatable = " Repeatable." if param.multiple and "repeatable" not in (param.help or "") else ""
    return names + value, (param.help or "") + repeatable + shown


def _cell(text: str, *, code: bool = False) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`{text}`" if code else text


def pages() -> dict[Path, str]:
    """Return everything that is generated: path → text."""
    return {
        PAGE: page(),
        **gen_json.pages(),
        gen_openapi.PAGE: gen_openapi.page(),
        gen_iam.PAGE: gen_iam.page(),
    }


def main() -> int:
    """Write the pages, or with --check report those that are out of date (exit code 1 if any is)."""
    current = pages()
    stale = [path for path, text in current.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    left_over = sorted(set(gen_json.SCHEMAS.glob("*")) - current.keys())
    if sys.argv[1:] == ["--check"]:
        for path in [*stale, *left_over]:
            print(f"docs/{path.relative_to(PAGE.parent)} is out of date; `make docs` writes it again", file=sys.stderr)
        return 1 if stale or left_over else 0
    gen_json.SCHEMAS.mkdir(exist_ok=True)
    for path in stale:
        path.write_text(current[path], encoding="utf-8")
    for path in left_over:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
