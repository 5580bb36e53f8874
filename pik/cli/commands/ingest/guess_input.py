"""Which of several inputs a guess is of: most files of a folder may be data, and a small one beside them not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import escape, glob
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from pik.errors import InputError, UsageError

if TYPE_CHECKING:
    from pik.inputs.source import Input
    from pik.usecases.ingest.guess_result import Guess

_LOOKED_AT = 5
"""Inputs that are looked at, at most, until one has records with a time."""


class _RefusedInput(NamedTuple):
    """An input that cannot be read, and why."""

    name: str
    size: int
    error: UsageError | InputError


@dataclass(frozen=True, slots=True)
class GuessedInput:
    """An input with what is guessed of it, whether its cells are in quotes, what only the names of its folders say, and
    why others, by name, were passed over."""

    name: str
    size: int
    guess: Guess
    is_quoted: bool
    of_folders: tuple[str, ...]
    passed_over: tuple[tuple[str, str], ...] = ()

    @property
    def has_time(self) -> bool:
        """Whether the records have a time, for all that is known."""
        return "event_time" not in self.guess.missing

    @property
    def has_several(self) -> bool:
        """Whether it has more than one record."""
        return self.guess.records > 1

    def why_not(self, chosen: GuessedInput) -> str:
        """Return why another input was chosen, if it was not for its place alone."""
        if chosen.has_time and not self.has_time:
            return f"{self.name} has no time"
        return f"{self.name} is one record" if chosen.has_several and not self.has_several else ""


def chosen_input(inputs: Iterator[Input], look: Callable[[Input], tuple[Guess, bool, tuple[str, ...]]]) -> GuessedInput:
    """Return the first of the inputs that has records with a time; where none is certainly so, the largest one that may
    be. Raises the error of that one if it cannot be read."""
    found = list[GuessedInput]()
    refused = list[_RefusedInput]()
    for source in islice(inputs, _LOOKED_AT):
        try:
            found.append(GuessedInput(source.name, source.size or 0, *look(source)))
        except (UsageError, InputError) as error:
            refused.append(_RefusedInput(source.name, source.size or 0, error))
        else:
            if found[-1].has_time and found[-1].has_several:
                return _with_reasons(found[-1], found, refused)
    likely = [one for one in found if one.has_time][:1] + [one for one in found if one.has_several]
    best = max(likely or found, key=lambda one: one.size, default=None)
    largest = max(refused, key=lambda one: one.size, default=None)
    if largest is not None and (best is None or (not likely and largest.size > best.size)):
        raise largest.error
    if best is None:
        raise UsageError("there is no file to look at", hint="name one that is not empty or hidden")
    return _with_reasons(best, found, refused)


def _with_reasons(best: GuessedInput, found: Sequence[GuessedInput], refused: Sequence[_RefusedInput]) -> GuessedInput:
    others = [(one.name, one.error.message) for one in refused]
    others += [(one.name, why) for one in found if one is not best and (why := one.why_not(best))]
    return replace(best, passed_over=tuple(others))


def files_of_data(files: Sequence[str], inputs: Sequence[str], chosen: GuessedInput) -> Sequence[str]:
    """Return how the inputs are named without those that were passed over, where that is possible: by leaving them out,
    or by a glob of a folder that matches all others."""
    without = {name for name, _ in chosen.passed_over}
    if not without:
        return files
    if len(files) > 1:
        return [one for one in files if one not in without]
    folder, _, suffix = files[0].rstrip("/"), *os.path.basename(chosen.name).partition(".")[1:]
    if suffix and os.path.isdir(folder):
        matching = os.path.join(escape(folder), f"*.{suffix}")
        if sorted(glob(matching)) == sorted(one for one in inputs if one not in without):
            return [matching]
    return files
