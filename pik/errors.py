"""The exception tree. Each error names the thing it is about and, where there is one, the next command to type.

The exit codes are the command line's contract (docs/exit-codes.md); it prints `error: MESSAGE` and `hint: HINT`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from typing import Any


def number_of(count: int, noun: str) -> str:
    """Return `1 delivery`, `2 deliveries`, `2,000 days`: a number in a message."""
    if count == 1:
        return f"1 {noun}"
    if noun[-1] == "y" and noun[-2] not in "aeo":  # not of a day or a key
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}s"


class PikError(Exception):
    """Base of every error a user may see: one sentence, and a hint."""

    exit_code = 4

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.sought: tuple[str, str] | None = None
        """The kind of an id that was not found, and the id: it may be that of something else, as
        `pik.usecases.other_ids` finds out."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in the place of a traceback: a notebook has the hint, too."""
        return [f"{type(self).__name__}: {self.message}", *([f"hint: {self.hint}"] if self.hint else [])]

    def __reduce__(self) -> tuple[Callable[..., PikError], tuple[object, ...], dict[str, Any]]:
        # Keyword arguments do not survive pickling otherwise.
        return type(self).__new__, (type(self), self.message), self.__dict__


class UsageError(PikError):
    """The command line, or a value on it, is wrong."""

    exit_code = 2


class InputError(PikError):
    """An input file cannot be read as what it claims to be."""

    exit_code = 2


class Invalid(PikError):
    """A record, a definition or a value breaks a rule of the event model. `field` names the part that does; `option` is
    the one of `pik ingest` that would help, where the message suggests one."""

    exit_code = 2

    def __init__(self, message: str, *, field: str = "", hint: str = "", option: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field, self.option = field, option


class StoreError(PikError):
    """The store cannot be used: absent, no access, full, of a newer format."""


class NoAccess(StoreError):
    """A service cannot be used from this machine: no network, no credentials, no permission."""


class NotFound(StoreError):
    """No such batch, event, run, metric or object exists."""


class Ambiguous(NotFound):
    """Several ids start with the given prefix; the message lists some of them, `unlisted` is it without any."""

    def __init__(self, message: str, *, hint: str = "", unlisted: str) -> None:
        super().__init__(message, hint=hint)
        self.unlisted = unlisted


class NothingSelected(NotFound):
    """The request selects nothing that could be compared or computed: a typing error, mostly."""

    exit_code = 2


def command(*words: str) -> str:
    """Return a command to type, `pik WORDS…`, each word quoted for a shell where it needs that.

    It looks in the store that the settings name. One that the user named on the command line is added where the command
    is shown (`pik.cli.context`): a hint may be kept with a dead letter and be read much later, by another person.
    A pipe that a shell opened for this command is standard input of the next one. A name that a producer chose and that
    looks like an option is joined to the option before it.
    """
    joined: list[str] = ["pik"]
    for word in words:
        if word.startswith("--") and joined[-1] in _OPTIONS_OF_NAMES:
            joined[-1] += f"={word}"
        else:
            joined.append("-" if is_pipe(word) else word)
    return " ".join(map(_quoted, joined))


_OPTIONS_OF_NAMES = ("--entity", "--source", "--type")
"""Options whose values are names that producers choose: one may begin with two dashes."""


def is_pipe(name: str) -> bool:
    """Return whether a file is one that only this process has open, such as what `<(…)` of a shell stands for."""
    return re.fullmatch(r"/dev/(stdin|fd/\d+)|/proc/self/fd/\d+", name) is not None


def _quoted(word: str) -> str:
    """Return the word quoted for a shell, in double quotes where that is enough for one with single ones."""
    return f'"{word}"' if "'" in word and not re.search(r'["$`\\!]', word) else shlex.quote(word)


CANDIDATES = 6
"""Ids that the error about an ambiguous one lists, at most."""


COMPARED = 200
"""Ids, the newest ones, that one which is not there is compared with, at most."""


def ambiguous_id(
    kind: str, prefix: str, ids: Sequence[str], *, hint: str, others: Callable[[], Iterable[str]] = tuple
) -> NotFound:
    """Return the error for an id or prefix that matches nothing, or all of `ids`; at most CANDIDATES are listed. Of
    `others`, the ids of the kind, the newest are searched for one that was mistyped."""
    if not prefix:
        return NotFound(f"the {kind} id is empty", hint=hint)
    if not ids:
        near = _near(prefix.upper(), islice(others(), COMPARED))
        meant = f"did you mean {' or '.join(near)}? all of them: " if near else ""
        error = NotFound(f"{kind} {prefix} is not in this store", hint=f"{meant}{hint}")
        error.sought = (kind, prefix)
        return error
    listed = ", ".join(ids[:CANDIDATES]) + (", …" if len(ids) > CANDIDATES else "")
    several = f"several {kind} ids start with {prefix}"
    return Ambiguous(f"{several}: {listed}", hint="use a longer prefix", unlisted=several)


_MISTYPED = 8
"""Characters that a mistyped id has at least: those before them are the same for all ids of some hours."""


def _near(typed: str, ids: Iterable[str]) -> list[str]:
    """Return ids that begin as it was typed but for one slip, at most two."""
    if len(typed) < _MISTYPED:
        return []
    return list(islice((one for one in ids if _is_slip(typed, one)), 2))


def _is_slip(typed: str, one: str) -> bool:
    """Return whether an id begins as it was typed, but for one character that is another one, too many or missing, or
    for two that are exchanged."""
    at = next((number for number, (left, right) in enumerate(zip(typed, one, strict=False)) if left != right), len(one))
    slips = ((1, 1), (1, 0), (0, 1))  # characters of what was typed, and of the id
    exchanged = typed[at : at + 2] == one[at : at + 2][::-1] and one[at + 2 :].startswith(typed[at + 2 :])
    return exchanged or any(one[at + right :].startswith(typed[at + left :]) for left, right in slips)


class AlreadyExists(StoreError):
    """A create-only object is there already."""


class Busy(StoreError):
    """Another living process holds what this one needs."""


class BeingRebuilt(Busy):
    """Another process rebuilds the index."""


@contextmanager
def busy_as(context: AbstractContextManager[Any], busy: str) -> Iterator[Any]:
    """Enter the context; where another process holds it, raise Busy with the message `busy`, but where it rebuilds the
    index, that error as it is."""
    with ExitStack() as stack:
        try:
            value = stack.enter_context(context)
        except BeingRebuilt:
            raise
        except Busy as error:
            raise Busy(busy, hint=error.hint) from None
        yield value


class ConflictFound(StoreError):
    """An idempotency key came again with other content, where that is refused."""


class Damaged(StoreError):
    """Raw does not hold what was written. Nothing is computed from it."""


class Unreadable(Damaged):
    """Something of raw is there, and cannot be read at present: no permission, a disk that fails. Whether it is what
    was written is not known, so nothing may be given up because of it."""

    def __init__(self, what: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"{what} cannot be read: {reason}", hint=hint)
        self.reason = reason


class NotHeld(NotFound):
    """The store is not meant to hold that: it has expired, or was not pulled into this copy."""


class EngineError(PikError):
    """A metric could not be computed."""


class TargetUnavailable(PikError):
    """What events are sent to takes none at present: it cannot be reached, or access is denied."""
