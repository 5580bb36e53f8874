"""How a long use case tells how far it is; the command line shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Takes one piece of work at a time."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Work called `label` begins, or is looked at from now on: `total` units where that is known, `done` of them
        before."""

    def advance(self, done: int) -> None:
        """`done` more units are done."""

    def stop(self) -> None:
        """The work has ended, well or not."""


class Silent:
    """Shows nothing."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        pass

    def advance(self, done: int) -> None:
        pass

    def stop(self) -> None:
        pass


SILENT = Silent()
