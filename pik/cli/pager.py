"""Long output in a pager, as git has it: `PIK_PAGER`, else `PAGER`, else less."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from pik.cli.text import cells, hold_notes, note, release_notes, write_out

_DEFAULT = "less"

_SETTINGS = {"LESS": "FRX", "LV": "-c", "LESSCHARSET": "utf-8"}
"""What pagers are told unless the user tells them something else: to end at once where all fits, to show colours, and
to leave what was shown; and that text is UTF-8, which all output is."""

_NOT_FOUND = (126, 127)
"""What a shell ends with if it cannot run a command."""

_PIPE = 1 << 16
"""Bytes that a pipe holds at most without a reader: if more was written, the pager has run."""

_ALL_FOUND = 'for word do command -v "$word" >/dev/null || exit 1; done'

_CONTROLS = re.compile(r"\x1b\[[0-9;]*m")


def pager_command(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the command line of the user's pager; None where that is `cat` or empty, or the terminal is dumb."""
    if environment.get("TERM") == "dumb":
        return None
    command = environment.get("PIK_PAGER", environment.get("PAGER", _DEFAULT)).strip()
    return None if command in ("", "cat") else command


def _is_for_a_shell(command: str) -> bool:
    """Return whether the command line is more than a program and its arguments."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote is open
        return True
    return re.search(r"[|&;<>()$`*?#~=%{}\[\]]", command) is not None or not words


def _programs(pipeline: str) -> list[str]:
    """Return the programs of a shell's pipeline, as far as they are plain words; none where it is more than that."""
    lexer = shlex.shlex(pipeline, posix=False, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:  # a quote is open
        return []
    programs: list[str] = []
    begins = True
    for word in words:
        if word == "|":
            begins = True
        elif re.fullmatch(r"[;&|()]+", word):
            return []
        elif begins and "=" not in word:
            programs += [word] if re.fullmatch(r"[\w./+-]+", word) else []
            begins = False
    return programs


def _fails(arguments: list[str]) -> bool:
    """Return whether the shell ends with an error. Raises OSError if there is none."""
    return subprocess.run(["/bin/sh", *arguments], stderr=subprocess.DEVNULL, check=False).returncode != 0


class PagedOutput:
    """Standard output, a terminal: what is more than it shows at once goes into the pager.

    Until then nothing is written, so short results need no pager. Where it cannot be run, all is written as
    without one. A pager that is left early does not end the command: what else it would have shown is dropped. While
    the pager runs, Ctrl-C ends the command, if that is not done yet, but never before the pager has ended; notes wait,
    too.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        size = shutil.get_terminal_size()
        self._lines, self._columns = size.lines - 1, max(size.columns, 1)  # the last line is the prompt's
        self._waiting: list[str] = []
        self._used = self._sent = 0
        self._process: subprocess.Popen[str] | None = None
        self._send: Callable[[str], object] | None = None

    def write(self, text: str) -> None:
        """Show the text, sooner or later."""
        if self._send is not None:
            self._send(text)
            return
        self._waiting.append(text)
        self._used += sum(max(1, -(-cells(_CONTROLS.sub("", line)) // self._columns)) for line in text.split("\n")[:-1])
        if self._used > self._lines:
            text = "".join(self._waiting)
            self._waiting.clear()
            self._send = self._start()
            self._send(text)

    def close(self) -> None:
        """Show what is still waiting; wait until the pager has ended."""
        if self._process is None:
            if self._send is None:
                _show("".join(self._waiting))
            elif self._command != _DEFAULT:
                self._note_failure()
            return
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the pager now
        try:
            self._end(self._process)
        finally:
            signal.signal(signal.SIGINT, ignored)
            release_notes()

    def _start(self) -> Callable[[str], object]:
        """Start the pager; return what takes text from here on."""
        sys.stdout.flush()
        shell = _is_for_a_shell(self._command)
        words: str | list[str] = self._command if shell else shlex.split(self._command)
        settings = {**_SETTINGS, **os.environ}
        programs = _programs(self._command) if shell else []
        try:
            if shell and _fails(["-n", "-c", self._command]):  # an open quote: it would end before anything is read
                return _show
            # a pipeline ends as its last program does, so a missing one would go unnoticed
            if programs and _fails(["-c", _ALL_FOUND, "sh", *programs]):
                return _show
            self._process = subprocess.Popen(
                words, shell=shell, stdin=subprocess.PIPE, env=settings, encoding="utf-8", errors="backslashreplace"
            )
        except OSError:
            return _show
        hold_notes()
        return self._to_pager

    def _to_pager(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._waiting.append(text)
        try:
            self._process.stdin.write(text)
            self._process.stdin.flush()
        except BrokenPipeError:  # it was left, or never ran
            self._send = _show if self._show_unread(self._process) else _drop
            return
        self._sent += len(text)
        if self._sent > _PIPE:
            self._waiting.clear()

    def _end(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        if self._send == self._to_pager:
            self._show_unread(process)
        process.wait()

    def _show_unread(self, process: subprocess.Popen[str]) -> bool:
        """Return whether the shell could not run the pager; then show what it was sent, which nothing has read."""
        if self._sent > _PIPE or process.wait() not in _NOT_FOUND:
            return False
        _show("".join(self._waiting))
        self._note_failure()
        return True

    def _note_failure(self) -> None:
        note(f"cannot run the pager {self._command}; PIK_PAGER or PAGER names another one, or cat for none")


def _drop(_text: str) -> None:
    """Do nothing."""


def _show(text: str) -> None:
    write_out(text)
    sys.stdout.flush()
