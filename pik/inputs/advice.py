"""Hints of what reads an input, in the words of the command that was given.

Readers know what is in an input, and not which command reads it: many do, and each has its own options. So a hint of
theirs has its options and commands as parts, and the command words them, or leaves out what it does not have.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pik.errors import InputError, command, is_pipe

_UNPACKED = {"gz": "gzip -dc", "zst": "zstd -dc", "bz2": "bzip2 -dc", "xz": "xz -dc"}
"""What unpacks a file, by the end of its name."""

OF_FIELDS = "map", "time-format", "timezone"
"""Options that are given once for each field."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of how records are read; without a value, its name."""

    name: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Several options, which are typed together."""

    each: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """The given command once more, with these options. It reads what `convert`, a command with {file} in it, prints, or
    the `file` of that name.

    `guess`: the records are not events, so without a mapping the command is the one that proposes a mapping. `instead`
    is a command like `convert` whose output needs none of the options: for a mapping of records by its name, or a
    command without them.
    """

    options: tuple[Option, ...] = ()
    convert: str = ""
    guess: bool = False
    file: str = ""
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What only a command that records events can say."""

    text: str


Phrase = str | Option | Options | Read | Recorded
Clause = str | tuple[Phrase, ...]


class Reader(Protocol):
    """A command, or a part of one, that reads inputs, and how it words the parts of a hint. None: it cannot."""

    @property
    def between(self) -> str:
        """What stands between two options."""
        ...

    @property
    def records(self) -> bool:
        """Whether it records what it reads."""
        ...

    @property
    def encoding(self) -> str | None:
        """The encoding of the text that is given."""
        ...

    def option(self, option: Option) -> str | None:
        """Return the option as it is typed."""
        ...

    def read(self, read: Read, file: str) -> str | None:
        """Return the command; `file` is the name of the input as it is typed in a shell."""
        ...


class Advice(str):
    """A hint of clauses. As a text it is that of `pik ingest`; `by` words it for another command, without the clauses
    that this one has no words for, or as `otherwise` if it has none for any.

    The input is called `name`. {file} stands for its text, {stored} for the file as it is stored.
    """

    def __new__(cls, *clauses: Clause, name: str = "", otherwise: str = "") -> Advice:
        made = super().__new__(cls, _worded(clauses, name, INGEST) or otherwise)
        made.clauses, made.name, made.otherwise = clauses, name, otherwise
        return made

    clauses: tuple[Clause, ...]
    name: str
    otherwise: str

    def by(self, reader: Reader) -> str:
        """Return the hint in the words of a command."""
        return _worded(self.clauses, self.name, reader) or self.otherwise

    def of(self, name: str, otherwise: str = "") -> Advice:
        """Return the hint for the input of that name."""
        return Advice(*self.clauses, name=name, otherwise=otherwise)

    def __reduce__(self) -> Any:
        return _again, (self.clauses, self.name, self.otherwise)


def _again(clauses: tuple[Clause, ...], name: str, otherwise: str) -> Advice:
    return Advice(*clauses, name=name, otherwise=otherwise)


def read_with(*words: str, guess: bool = False, instead: str = "") -> Read:
    """Return the command with options that are given as words: a name with its dashes, and its value, and so on."""
    pairs = zip(words[::2], words[1::2], strict=True)
    options = tuple(Option(name.removeprefix("--"), value) for name, value in pairs)
    return Read(options, guess=guess, instead=instead)


@dataclass(frozen=True, slots=True)
class Shape:
    """What an input looks like, and what reads it."""

    what: str
    hint: Advice

    def error(self, name: str) -> InputError:
        """Return the error for the input of that name."""
        return InputError(f"{name} cannot be read: it looks like {self.what}", hint=self.hint.of(name))


def piped(convert: str, before: str = "", *, guess: bool = False) -> Advice:
    """Return the hint that the command reads what this one prints; with some words before."""
    return Advice((before, Read(convert=convert, guess=guess)))


def typed_name(name: str) -> str:
    """Return the name of a file as it is typed in a shell; FILE for another input, such as a file in an archive."""
    is_plain = re.fullmatch(r"[\w./ +=:@%,-]+", name) and os.path.isfile(name)
    return shlex.quote(f"./{name}" if name.startswith("-") else name) if is_plain else "FILE"


def _named(name: str) -> str:
    """Return how an input is named in the place of a file, with a pipe for standard input."""
    if name == STANDARD_INPUT or is_pipe(name):
        return "-"
    is_object = re.fullmatch("s3://[^:]+", name)  # what is in an archive has a colon
    return shlex.quote(name) if is_object else typed_name(name)


def _worded(clauses: Sequence[Clause], name: str, reader: Reader) -> str:
    found = []
    for clause in clauses:
        parts = [_part(part, name, reader) for part in ((clause,) if isinstance(clause, str) else clause)]
        if all(part is not None for part in parts):
            found.append("".join(map(str, parts)))
    return "; ".join(found)


def _part(part: Phrase, name: str, reader: Reader) -> str | None:
    match part:
        case str():
            return converted(part, typed_name(name), reader.encoding)
        case Option():
            return reader.option(part)
        case Options():
            texts = [reader.option(one) for one in part.each]
            return None if None in texts else reader.between.join(map(str, texts))
        case Recorded():
            return part.text if reader.records else None
        case Read():
            return reader.read(part, part.file or (typed_name(name) if part.convert else _named(name)))


def converted(convert: str, file: str, encoding: str | None) -> str:
    """Return the command that converts a file, as it is typed; for {file} other programs first make UTF-8 of it."""
    unpack = _UNPACKED.get(shlex.split(file)[0].rpartition(".")[2].lower())
    before = [f"{unpack} {file}"] if unpack else []
    if encoding:
        before.append(f"iconv -f {_of_iconv(encoding)} -t UTF-8" + ("" if before else f" {file}"))
    return convert.replace("{file}", f"<({' | '.join(before)})" if before else file).replace("{stored}", file)


_RECOGNIZED = "input", "delimiter"
"""Options of what a command without them recognizes."""


def _of_iconv(encoding: str) -> str:
    """Return what iconv calls an encoding of Python."""
    name = codecs.lookup(encoding).name.replace("_", "-").replace("mac-roman", "macintosh")
    return re.sub("-([lb]e)$", r"\1", name)


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command of pik that reads an input: its words before the input, which `flag` names, and what else was given.

    `reading` are the options of how records are read that were given, `has` the names of all that it has. `named`: it
    needs no mapping, or has one by its name.
    """

    words: tuple[str, ...] = ("ingest",)
    flag: tuple[str, ...] = ()
    reading: tuple[tuple[str, str], ...] = ()
    has: Collection[str] | None = None
    named: bool = False
    records: bool = True
    between: str = " "

    @property
    def encoding(self) -> str | None:
        """The encoding of the text that is given."""
        return dict(self.reading).get("encoding")

    @property
    def is_mapped(self) -> bool:
        """Whether there is a mapping, or none is needed."""
        return self.named or any(name in ("map", "mapping") for name, _ in self.reading)

    def option(self, option: Option) -> str | None:
        """Return the option as it is typed; None if the command does not have it."""
        if self.has is not None and option.name not in self.has:
            return None
        if option.value is None:
            return f"--{option.name}"
        start, equals, text = option.value.partition("=") if option.name == "map" else ("", "", option.value)
        return f"--{option.name} {start}{equals}" + command(text).removeprefix("pik ")

    def read(self, read: Read, file: str) -> str | None:
        """Return the command with the options that it has, and those that it needs; None if it does not have these."""
        known = [one for one in read.options if self.option(one) is not None]
        if read.instead and (self.named or len(known) < len(read.options)):
            return self.read(Read(convert=read.instead), file)
        if any(one not in known and not (read.convert and one.name in _RECOGNIZED) for one in read.options):
            return None
        given, added = self._together(known)
        before = ""
        if read.convert:
            before = converted(read.convert, file, self.encoding) + " | "
            given = [one for one in given if one[0] != "encoding"]
            file = "-"
        if read.guess and not self.is_mapped:
            line = ["ingest", "--guess", *_words(given), shlex.split(file)[0], *_words(added)]
        else:
            line = [*self.words, *_words(given), *self.flag, shlex.split(file)[0], *_words(added)]
        return before + command(*line)

    def _together(self, added: Sequence[Option]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return the options that were given and those that are added. What is given of a field holds; another option
        is in the place of the one that is given."""
        fields = {_of_field(*one) for one in self.reading}
        more = [
            (one.name, one.value or "")
            for one in added
            if one.name not in OF_FIELDS or _of_field(one.name, one.value or "") not in fields
            if not ((self.named or "--guess" in self.words) and (one.value or "").endswith("=COLUMN"))
        ]
        replaced = {name for name, _ in more if name not in OF_FIELDS}
        return [one for one in self.reading if one[0] not in replaced], more


def _of_field(name: str, value: str) -> tuple[str, str]:
    """Return an option and the field that it is about, '' for all."""
    return name, value.partition("=")[0] if name == "map" or "=" in value else ""


def _words(given: Sequence[tuple[str, str]]) -> list[str]:
    return [word for name, value in given for word in (f"--{name}", value)]


INGEST = CommandLine()
"""`pik ingest` without an option."""

STANDARD_INPUT = "standard input"
"""What an input is called that comes through a pipe."""

MIXED: Clause = ("if valid records follow, add ", Option("on-invalid", "reject"))
"""What to type where the first records of an input are of another kind on purpose."""

OTHER_FORMAT: Clause = "the records are of another format: `pik ingest --guess {stored}` proposes how to read them"
"""What to type where none of the first records has what a mapping for a certain format takes."""

WHOLE: Sequence[Clause] = (
    (Recorded("an ingest records what is before that"),),
    "get a whole copy of the file, and run this again",
)
"""What to do about an input that is cut."""
