"""Inputs of several that could not be read: the others are read nevertheless."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from pik.cli.document import Column, Rows
from pik.errors import InputError, PikError, UsageError

REFUSED = Rows(
    "refused_inputs",
    "inputs that could not be read, or not to their end; null: none. Then the exit code is 3",
    Column("source", str, cut=40),
    Column("error", str, "why", get="error.message", wrap=True),
    Column("hint", str | None, "what to do about it", get="error.hint", wrap=True),
    absent="",
)


class Refusal(NamedTuple):
    """An input that could not be read, or not to its end, and why."""

    source: str
    error: PikError


class Refusals:
    """Collects the inputs that could not be read; with `stop` the first one is an error at once. `worded` puts a hint
    into the words of the command."""

    def __init__(self, worded: Callable[[str], str], *, stop: bool = False) -> None:
        self._worded, self._stop = worded, stop
        self._all: list[Refusal] = []

    def add(self, name: str, error: PikError) -> None:
        """Add an input of that name."""
        error.hint = self._worded(error.hint)
        if self._stop:
            raise error
        self._all.append(Refusal(name, error))

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add the input of that name if it turns out not to be readable."""
        try:
            yield
        except (InputError, UsageError) as error:
            self.add(name, error)

    def rows(self) -> Sequence[Refusal] | None:
        """Return all, None if there are none. They are rows of REFUSED."""
        return self._all or None

    def expect_some(self, whole: int) -> None:
        """Raise the error of the only input, or one that counts them, where none was read to its end."""
        if whole or not self._all:
            return
        first = self._all[0].error
        if len(self._all) == 1:
            raise first
        message = f"none of the {len(self._all):,} inputs can be read; the first: {first.message}"
        raise InputError(message, hint=first.hint)
