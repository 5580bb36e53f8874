"""Ctrl-C and SIGTERM as an exception, also where C code calls Python and loses what that raises."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TypeVar

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
