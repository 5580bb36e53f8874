"""Ctrl-C and SIGTERM as an exception, also where C code calls Python and loses what that raises."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_Value = TypeVar("_Value")

_lost: list[KeyboardInterrupt] = []
"""The one that was raised in a function made by `called_from_c`, until it is raised again."""


def handle(_number: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt in what is running, as a handler of signals. Where that is a function of `called_from_c`,
    it will not get any further, and is kept for `raise_lost`."""
    interruption = KeyboardInterrupt()
    while frame is not None:
        if frame.f_code is _CALL:
            _lost[:] = [interruption]
            break
        frame = frame.f_back
    raise interruption


_AGAIN = 0.001  # seconds


def raise_soon(lost: UnraisableHookArgs) -> None:
    """Raise again, a moment later, an interruption of which Python can only tell: in a destructor, or a callback of a
    weak reference. To be the `sys.unraisablehook`, with `handle` for SIGALRM; other errors are shown as ever."""
    if lost.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)  # now, it would be raised in here
    else:
        sys.__unraisablehook__(lost)


def called_from_c(function: Callable[..., _Value]) -> Callable[..., _Value]:
    """The function, to be handed to C code that makes an error of its own of whatever Python raises, as SQLite does."""

    def call(*arguments: object) -> _Value:
        return function(*arguments)

    return call


_CALL = called_from_c(handle).__code__
"""The code of all such functions. A signal that came while C code ran is handled as the first of it begins."""


def raise_lost() -> None:
    """Raise the interruption that such a function lost, if one did. To be called where the C code's own error is
    caught, before it is taken for anything else."""
    if _lost:
        raise _lost.pop()
