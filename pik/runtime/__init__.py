"""What runs things: processes and threads, temporary files; and what a long command owes its user: progress, and Ctrl-C
or SIGTERM as an exception, also inside callbacks from C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_Value = TypeVar("_Value")


def exhaust(values: Iterable[object]) -> None:
    """Go through all of them, for what that does."""
    for _ in values:
        pass


class Progress:
    """Shows how far one piece of work at a time is. This one shows nothing."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin showing work called `label`, of `total` units where that is known, `done` of which are done already."""

    def advance(self, done: int) -> None:
        """Add `done` units."""

    def wait(self, text: str) -> None:
        """Show that the work waits, for what and how long, until it goes on with `advance`."""

    def stop(self) -> None:
        """End the work, whether it succeeded or not."""


SILENT = Progress()


@contextmanager
def showing(progress: Progress, label: str, total: int | None, unit: str, done: int = 0) -> Iterator[None]:
    """Show work, as `Progress.start` begins it, for as long as the context lasts."""
    progress.start(label, total, unit, done)
    try:
        yield
    finally:
        progress.stop()


_lost: list[KeyboardInterrupt] = []
"""The interruption that was raised in a function made by `called_from_c`, until it is raised again."""


def handle(_number: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt in the running code; a signal handler.

    In a function of `called_from_c` the exception would be lost, so it is also kept for `raise_lost`.
    """
    interruption = KeyboardInterrupt()
    while frame is not None:
        if frame.f_code is _CALL:
            _lost[:] = [interruption]
            break
        frame = frame.f_back
    raise interruption


_AGAIN = 0.001  # seconds


def raise_soon(lost: UnraisableHookArgs) -> None:
    """Raise an interruption again, a moment later, where Python can only report it: in a destructor or a weak
    reference's callback. For `sys.unraisablehook`, with `handle` for SIGALRM; other errors are shown as usual."""
    if lost.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)  # now, it would be raised in here
    else:
        sys.__unraisablehook__(lost)


def called_from_c(function: Callable[..., _Value]) -> Callable[..., _Value]:
    """Return the function for use as a callback of C code that replaces whatever Python raises by its own error, as
    SQLite does."""

    def call(*arguments: object) -> _Value:
        return function(*arguments)

    return call


_CALL = called_from_c(handle).__code__
"""The code of all such functions. A signal that came while C code ran is handled as the first of it begins."""


def raise_lost() -> None:
    """Raise the interruption that such a function lost, if any. Call it where the C code's own error is caught, before
    that is taken for anything else."""
    if _lost:
        raise _lost.pop()
