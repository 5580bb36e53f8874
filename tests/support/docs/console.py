"""Runs the ```console blocks of a Markdown page and holds what they print against what the page says they print.

A line that begins with `$ ` is a command, with the lines that a trailing backslash or a heredoc adds to it; what
follows is its output, standard error included. A command ends with exit code 0 unless `$ echo $?` behind it says
otherwise. A line `…` in the output stands for any number of lines that the page leaves out.

Commands run without a terminal, or on one of a given width, whose tables are folded to it.

What differs from run to run is matched by kind: ids of batches and runs (each stands for the same real one throughout
the page, in later commands too), times of the clock, what is measured, the directory.
"""

from __future__ import annotations

import errno
import os
import pty
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.docs.warm import REPOSITORY, program

__all__ = ["REPOSITORY", "Console", "Step", "play", "steps"]

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?")
_ULID = re.compile(r"\b01[0-9A-HJKMNP-TV-Z]{24}\b")
_REQUEST_ID = re.compile(r'("request_id":")[0-9a-f-]{36}(?=")')
_ULID_START = re.compile(r"\b01[0-9A-HJKMNP-TV-Z]{8,24}\b")
_CLOCK = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:\d{3})?Z")
_CLOCK_IN_TABLES = re.compile(r"\b(?!2026-0[23]-)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")  # no time of the demo's events
_MEASURED = re.compile(r"^(seconds|records per second|(?:raw )?bytes(?: to copy| copied)?) +[\d.,]+", re.MULTILINE)
_AGE = re.compile(r"-?\b\d+d(?: \d+h)?(?=\s|,|$)")
_ECHO = "echo $?"
_REST = "…"


@dataclass(frozen=True)
class Step:
    """A command of a page, and what the page says that it prints and ends with."""

    command: str
    output: str
    code: int

    def __str__(self) -> str:
        return self.command.partition("\n")[0]


def steps(page: Path) -> list[Step]:
    """The commands of a page, in order."""
    found: list[Step] = []
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        for command, output in _commands(block.splitlines()):
            if command == _ECHO:
                found[-1] = Step(found[-1].command, found[-1].output, int(output))
            else:
                found.append(Step(command, output, 0))
    return found


def _commands(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each command of a block and the text behind it."""
    rest = list(lines)
    assert rest, "an empty console block"
    while rest:
        first = rest.pop(0)
        assert first.startswith("$ "), f"output before the first command: {first!r}"
        command = [first[2:]]
        heredoc = _HEREDOC.search(first)
        while (heredoc and command[-1] != heredoc[1]) or (not heredoc and command[-1].endswith("\\")):
            command.append(rest.pop(0))
        output = []
        while rest and not rest[0].startswith("$ "):
            output.append(rest.pop(0))
        yield "\n".join(command), "\n".join(output).strip("\n")


@dataclass
class Console:
    """A shell in a directory of its own. `ids` maps the page's ids to the real ones; `environment` is added to ours;
    `columns` is the width of its terminal (0: it has none)."""

    directory: Path
    ids: dict[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    columns: int = 0

    def __post_init__(self) -> None:
        tools = self.directory / ".bin"
        tools.mkdir()
        pik = tools / "pik"
        pik.write_text(f'#!/bin/sh\nexec {shlex.join(program())} "$@"\n', encoding="utf-8")
        pik.chmod(0o755)
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")}
        path = f"{tools}:{ours['PATH']}"
        settings = {"PATH": path, "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C.UTF-8", "PIK_ACTOR": "ana"}
        if self.columns:
            settings |= {"TERM": "dumb", "COLUMNS": str(self.columns)}
        self._environment = ours | settings | dict(self.environment)

    def run(self, step: Step) -> None:
        """Run the step; asserts that it ends and prints as the page says."""
        code, printed = self.output(self._real(step.command))
        assert code == step.code, f"$ {step}\nended with {code}, not {step.code}:\n{printed}"
        ids = _match(self._plain(step.output), self._plain(printed), self.ids)
        assert ids is not None, f"$ {step}\n--- the page\n{step.output}\n--- in truth\n{printed}"
        self.ids = ids

    def output(self, command: str) -> tuple[int, str]:
        """Run the command; return its exit code and what it prints."""
        near, far = pty.openpty() if self.columns else os.pipe()
        with subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=far,
            stderr=subprocess.STDOUT,
        ) as done:
            os.close(far)
            printed = b"".join(_chunks(near))
        return done.returncode, printed.decode("utf-8").replace("\r\n", "\n")

    def _real(self, text: str) -> str:
        """The page's command with real ids."""

        def real(found: re.Match[str]) -> str:
            known = {mine for page, mine in self.ids.items() if page.startswith(found[0])}
            assert len(known) <= 1, f"{found[0]} is the beginning of several ids of the page"
            return known.pop() if known else found[0]

        return _ULID_START.sub(real, text)

    def _plain(self, text: str) -> list[str]:
        """The lines without what differs from run to run; columns may be wider or narrower."""
        text = _AGE.sub("AGE", text)  # the lag of a line that does not say when it was received depends on the clock
        text = _CLOCK.sub("TIME", text.replace(str(self.directory), "/home/me/incident"))
        text = _CLOCK_IN_TABLES.sub("TIME", text) if self.columns else text  # to the second, if there is no more room
        text = _MEASURED.sub(lambda found: f"{found[1]} NUMBER", text)
        return [" ".join(line.split()) for line in text.strip("\n").splitlines()]


def _chunks(file: int) -> Iterator[bytes]:
    """Yield what is written to the other end of a pipe or a terminal, until it is closed."""
    with os.fdopen(file, "rb", buffering=0) as ours:
        try:
            while chunk := ours.read(65536):
                yield chunk
        except OSError as error:  # so ends a terminal
            if error.errno != errno.EIO:
                raise


def _match(expected: Sequence[str], said: Sequence[str], ids: dict[str, str]) -> dict[str, str] | None:
    """The real ids of the page's, if the lines are the same but for ids that `ids` does not know yet; else None. `…`
    stands for any number of lines."""
    if not expected:
        return None if said else ids
    if expected[0] == _REST:
        tries = (_match(expected[1:], said[skipped:], ids) for skipped in range(len(said) + 1))
        return next((found for found in tries if found is not None), None)
    known = _match_line(expected[0], said[0], ids) if said else None
    return None if known is None else _match(expected[1:], said[1:], known)


def _match_line(expected: str, said: str, ids: dict[str, str]) -> dict[str, str] | None:
    expected, said = (_REQUEST_ID.sub(r"\1", line) for line in (expected, said))
    if _ULID.sub("ID", expected) != _ULID.sub("ID", said):
        return None
    known = dict(ids)
    for theirs, ours in zip(_ULID.findall(expected), _ULID.findall(said), strict=True):
        if known.setdefault(theirs, ours) != ours:
            return None
    return known if len(set(known.values())) == len(known) else None


def play(page: Path, directory: Path, environment: Mapping[str, str] | None = None, columns: int = 0) -> int:
    """Run every command of a page in the directory, in order; how many there were."""
    console = Console(directory, environment=environment or {}, columns=columns)
    of_page = steps(page)
    for step in of_page:
        console.run(step)
    return len(of_page)
