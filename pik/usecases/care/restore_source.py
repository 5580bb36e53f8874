"""Where objects of raw are restored from: a file, a directory, or a prefix in S3.

A directory may be another store, a backup of one, or only some of its objects. An object is looked for under its key,
then under its name anywhere, then among all objects of its size: the digest decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from pik.errors import InputError
from pik.ports.remote import Foreign, ForeignFile

ZSTD = bytes.fromhex("28b52ffd")
"""Every object of raw begins so."""

Sizes = Collection[int] | None
"""The sizes that an object may have; None if that is not known."""


class Candidate(NamedTuple):
    """Bytes that may be an object, and where they are from. `is_named`: the source has them under the object's key."""

    name: str
    data: bytes
    is_named: bool


class _Place(Protocol):
    """What the source has, by name; a name's end after a slash may be a key."""

    def exact(self, key: str) -> Iterator[tuple[str, int]]:
        """Yield name and size of what lies directly under this key."""

    def listed(self) -> Iterator[tuple[str, int]]:
        """Yield name and size of everything there is."""

    def read(self, name: str, length: int | None = None) -> bytes:
        """Return the bytes of what has this name, the first `length` of them."""


@dataclass(slots=True)
class RestoreSource:
    """A place, and which of its names may be which object. `name` is as the user typed it."""

    name: str
    place: _Place
    _sizes: dict[str, Sizes] = field(default_factory=dict)
    _elsewhere: dict[str, list[tuple[str, int]]] | None = None

    def expect(self, wanted: Mapping[str, Sizes]) -> None:
        """Say which objects will be asked for."""
        self._sizes, self._elsewhere = dict(wanted), None

    def candidates(self, key: str) -> Iterator[Candidate]:
        """Yield what may be this object: first what has its key, then its name, then its size."""
        seen, sizes = set[str](), self._sizes.get(key)
        for find in (self.place.exact, self._others):
            for name, size in find(key):
                is_named = name.endswith("/" + key.removeprefix("raw/"))
                if name in seen or not (is_named or sizes is None or size in sizes):
                    continue
                seen.add(name)
                if is_named or self.place.read(name, len(ZSTD)) == ZSTD:
                    yield Candidate(name, self.place.read(name), is_named)

    def _others(self, key: str) -> Iterable[tuple[str, int]]:
        """Return what lies elsewhere and has the object's name or, which comes after it, only its size."""
        if self._elsewhere is None:
            self._elsewhere = self._find(self.place.listed())
        return self._elsewhere.get(key, ())

    def _find(self, listed: Iterable[tuple[str, int]]) -> dict[str, list[tuple[str, int]]]:
        by_name: dict[str, list[str]] = {}
        by_size: dict[int, list[str]] = {}
        for key, sizes in self._sizes.items():
            by_name.setdefault(key.rpartition("/")[2], []).append(key)
            for size in sizes or ():
                by_size.setdefault(size, []).append(key)
        named: dict[str, list[tuple[str, int]]] = {}
        sized: dict[str, list[tuple[str, int]]] = {}
        for name, size in listed:
            of_name = by_name.get(name.rpartition("/")[2], [])
            for key in of_name:
                named.setdefault(key, []).append((name, size))
            for key in by_size.get(size, ()):
                if key not in of_name:
                    sized.setdefault(key, []).append((name, size))
        return {key: named.get(key, []) + sized.get(key, []) for key in {*named, *sized}}


@dataclass(frozen=True, slots=True)
class _Directory:
    root: Path

    def exact(self, key: str) -> Iterator[tuple[str, int]]:
        for path in (self.root / key, self.root / key.removeprefix("raw/")):
            if path.is_file():
                yield str(path), path.stat().st_size

    def listed(self) -> Iterator[tuple[str, int]]:
        def fail(error: OSError) -> None:
            raise InputError(f"cannot read {str(error.filename)!r}: {error.strerror}")

        for directory, _, names in os.walk(self.root, onerror=fail):
            for name in sorted(names):
                path = Path(directory, name)
                if path.is_file():
                    yield str(path), path.stat().st_size

    def read(self, name: str, length: int | None = None) -> bytes:
        return _read_file(Path(name), length)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path

    def exact(self, key: str) -> Iterator[tuple[str, int]]:  # noqa: ARG002 - there is one
        return self.listed()

    def listed(self) -> Iterator[tuple[str, int]]:
        yield str(self.path), self.path.stat().st_size

    def read(self, name: str, length: int | None = None) -> bytes:
        return _read_file(Path(name), length)


def _read_file(path: Path, length: int | None) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read() if length is None else file.read(length)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from None


@dataclass(slots=True)
class _Prefix:
    foreign: Foreign
    url: str
    _files: dict[str, ForeignFile] = field(default_factory=dict)

    def exact(self, key: str) -> Iterator[tuple[str, int]]:
        for place in (key, key.removeprefix("raw/")):
            with suppress(InputError):
                yield from self._noted(self.foreign.find(f"{self.url}/{place}"))

    def listed(self) -> Iterator[tuple[str, int]]:
        return self._noted(self.foreign.find(f"{self.url}/**"))

    def read(self, name: str, length: int | None = None) -> bytes:
        file = self._files[name]
        size = file.size if length is None else min(length, file.size)
        return self.foreign.read(file, 0, size) if size else b""

    def _noted(self, files: Iterable[ForeignFile]) -> Iterator[tuple[str, int]]:
        for file in files:
            self._files[file.name] = file
            yield file.name, file.size


def open_source(text: str, open_foreign: Callable[[], Foreign]) -> RestoreSource:
    """Return the source that a user names: FILE, DIR or s3://BUCKET/PREFIX. Raises InputError where there is nothing,
    UsageError for another URL."""
    if "://" in text:
        url, foreign = text.rstrip("/"), open_foreign()
        with suppress(InputError, ValueError):  # unless it is an object, it is a prefix
            if url.count("/") > 2:
                [file] = foreign.find(url)
                return RestoreSource(text, _OneObject(foreign, file))
        return RestoreSource(text, _Prefix(foreign, url))
    path = Path(text).expanduser()
    if not path.exists():
        raise InputError(f"--restore: there is no {text!r}", hint="a file, a directory, or s3://BUCKET/PREFIX")
    return RestoreSource(text, _Directory(path) if path.is_dir() else _File(path))


@dataclass(frozen=True, slots=True)
class _OneObject:
    foreign: Foreign
    file: ForeignFile

    def exact(self, key: str) -> Iterator[tuple[str, int]]:  # noqa: ARG002 - there is one
        return self.listed()

    def listed(self) -> Iterator[tuple[str, int]]:
        yield self.file.name, self.file.size

    def read(self, name: str, length: int | None = None) -> bytes:  # noqa: ARG002 - there is one
        size = self.file.size if length is None else min(length, self.file.size)
        return self.foreign.read(self.file, 0, size) if size else b""
