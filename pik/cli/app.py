"""The root command. Its table knows every command by name, so that `pik --help` imports none of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from itertools import groupby
from typing import Any, NamedTuple

import typer

from pik.cli.command import PLAIN, nothing, with_globals
from pik.cli.context import Context
from pik.cli.help import Group
from pik.errors import PikError


class Entry(NamedTuple):
    """A command: the module that declares it under its name, one line of help, and the heading it stands under."""

    module: str
    help: str
    heading: str


def _chapter(heading: str, **commands: tuple[str, str]) -> dict[str, Entry]:
    return {name: Entry(f"pik.cli.commands.{module}", text, heading) for name, (module, text) in commands.items()}


COMMANDS: Mapping[str, Entry] = {
    **_chapter(
        "Bring events in",
        init=("ingest.init", "Create an empty store."),
        ingest=("ingest.ingest", "Record every event of files or of standard input."),
        mappings=("ingest.mappings", "Named mappings of foreign records: list, show, try."),
        batches=("ingest.batches", "List what was ingested, and the lines that were rejected."),
        status=("ingest.status", "Show what the store holds."),
    ),
    **_chapter(
        "See what arrived",
        events=("inspect.events", "List or count events, by what may explain a number."),
        show=("inspect.show", "Show one event: every delivery, its raw bytes, what counted it."),
        duplicates=("inspect.duplicates", "List duplicate deliveries: exact copies and conflicts."),
        lag=("inspect.lag", "Show how long events took to arrive, and which were slow."),
        gaps=("inspect.gaps", "Find silences, drops and spikes, and missing numbers."),
        sql=("inspect.sql", "Run a SELECT over events, batches, values and differences."),
        pull=("inspect.pull", "Copy a window of a store into a directory, to work there."),
    ),
    **_chapter(
        "Know the numbers",
        metrics=("numbers.metrics", "Define metrics: apply, list, show, retire."),
        aggregates=("numbers.aggregates_import", "List current values, or every version; import others from a file."),
        diff=("numbers.diff_events", "Compare numbers with raw, and a log with what arrived."),
        triage=("numbers.triage", "Run every check over a window; the first command of a runbook."),
        explain=("numbers.explain", "Split a difference by cause: late, lost, another definition, …"),
        history=("numbers.history", "List what changed numbers or could: when, who, what, why."),
    ),
    **_chapter(
        "Repair them",
        correct=("repair.correct", "Record that what arrived is wrong, and what is right."),
        corrections=("repair.corrections", "Corrections: list, show, revoke."),
        replay=("repair.replay", "Recompute aggregates, next to the current ones."),
        runs=("repair.runs", "Follow replays: list, show, resume, cancel, wait."),
        dlq=("repair.dlq", "Tasks that failed too often: list, show, redrive, purge."),
        promote=("repair.promote", "Make what a run wrote current."),
        rollback=("repair.promote", "Undo a promotion."),
        republish=("repair.republish", "Send events to your consumers again."),
    ),
    **_chapter(
        "Keep and check",
        export=("care.export", "Write events to Parquet, JSONL or CSV, with a manifest."),
        report=("care.report", "Write the report of an incident: HTML, Markdown or JSON."),
        verify=("care.verify", "Check raw, index and aggregates; rebuild the index."),
        bundle=("care.bundle", "Write the evidence of an incident to one file, which can be checked anywhere."),
        backup=("care.backup", "Write the state, which raw does not hold, to a file."),
        restore=("care.backup", "Restore a backup into a store without state."),
        compact=("care.compact", "Make a large stack cheaper to read."),
        stack=("care.stack", "Inspect a stack itself: status, doctor."),
        cluster=("care.cluster", "Prepare a Spark cluster: pack what its executors run from."),
        demo=("care.demo", "Play one small incident from the first question to the repair."),
        help=("care.help", "Explain a command, as its --help does."),
    ),
}

_HELP = """Pipeline Investigation Kit: find out what really arrived, what the numbers should have been, which events
explain the difference, and repair it."""

_FIRST_STEPS = """First steps:
  pik demo                              play one incident end to end
  pik ingest --guess orders.csv         propose how to read a file of your own
  pik ingest events.jsonl               record one of events in ./.pik
  pik events --entity ID --since 2h     see what really arrived
  pik triage                            see what is wrong, and what it moves

`pik COMMAND --help` explains a command, with examples."""


class Root(Group):
    """`pik` itself."""

    entries: Mapping[str, Entry] = COMMANDS

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's signature
        """Every command's name, in the order of the help."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Typer's signature
        """Return the command, imported now; None if there is none of that name."""
        entry = self.entries.get(cmd_name)
        return None if entry is None else _imported(entry, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer's signature
        """The commands under their headings."""
        width = max(map(len, self.entries))
        for heading, entries in groupby(self.entries.items(), key=lambda item: item[1].heading):
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), entry.help) for name, entry in entries])


@cache  # `report` and `bundle` run many commands in this process
def _imported(entry: Entry, name: str) -> Any:
    command = typer.main.get_command(getattr(import_module(entry.module), name))
    command.name, command.short_help = name, entry.help
    return command


@cache
def root_command() -> Any:
    """Return the click command of the whole program."""
    app = typer.Typer(cls=Root, **PLAIN | {"add_completion": True})
    settings = {"max_content_width": 100, "help_option_names": ["--help", "-h"]}
    app.callback(help=_HELP, epilog=_FIRST_STEPS, context_settings=settings)(with_globals(nothing))
    command: Any = typer.main.get_command(app)
    for param in command.params:
        if param.name in ("install_completion", "show_completion"):
            param.rich_help_panel = "Shell completion"
    return command


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Raises PikError for everything a user may get wrong."""
    root = root_command()
    if "_PIK_COMPLETE" in os.environ:
        with suppress(Exception):  # a message would land in the middle of the line that is being typed
            root.main(prog_name="pik")
        return 0
    cli = Context()
    try:
        return run_in(cli, arguments, root)
    except PikError as error:
        cli.look_for_other_kinds(error)
        error.hint = cli.advice(error.hint)
        raise
    finally:
        cli.end()


def run_in(cli: Context, arguments: list[str], root: Any = None) -> int:
    """Run one command line with this context. Raises as `run`."""
    root = root or root_command()
    cli.line = arguments
    try:
        with root.make_context("pik", list(arguments), obj=cli) as ctx:
            return int(root.invoke(ctx) or 0)
    except typer.Exit as done:
        return done.exit_code
