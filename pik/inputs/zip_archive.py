"""The files of a zip archive, which must be seekable: its directory is at its end."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple, cast

from pik.errors import InputError
from pik.inputs.advice import WHOLE, Advice, Read
from pik.inputs.copies import Readable
from pik.inputs.lake_tables import refuse_lake_archive

_DIRECTORY = 64 << 20
"""Most bytes of the directory of an archive, which is held in memory: about half a million files."""

_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x06"
_ENCRYPTED = 1
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, struct.error)


class ZipEntry(NamedTuple):
    """A file of the archive; `what` it is, if not a plain one; `open` opens it at its beginning."""

    name: str
    what: str
    size: int
    open: Callable[[], Readable]


def is_zip(head: bytes) -> bool:
    """Return whether an archive begins so, also an empty one."""
    return head.startswith((b"PK\x03\x04", _END))


def zip_entries(file: BinaryIO, name: str, hint: str) -> Iterator[ZipEntry]:
    """Yield the files of an archive. Each can be opened as long as it is referred to.

    Raises InputError where the archive is cut, damaged or too large to be listed; an office document; a lake's table.
    """
    try:
        _expect_directory(file, name)
        archive = zipfile.ZipFile(cast(Any, file))
    except _DAMAGED:
        raise InputError(f"{name} cannot be read as a zip archive: it is cut or damaged", hint=hint) from None
    entries = archive.infolist()
    if any(entry.filename == "[Content_Types].xml" for entry in entries):
        raise InputError(f"{name} is a spreadsheet or another office document", hint="save its table as CSV")
    refuse_lake_archive(name, (entry.filename for entry in entries))
    for entry in entries:
        if not entry.is_dir():
            is_link = entry.external_attr >> 28 == 0o12 and entry.create_system == 3
            yield ZipEntry(
                entry.filename, "link" if is_link else "", entry.file_size, partial(_File, archive, entry, name)
            )


def _expect_directory(file: BinaryIO, name: str) -> None:
    """Raise InputError where the directory of the archive takes more memory than it may."""
    size = file.seek(0, 2)
    file.seek(max(0, size - (1 << 16) - 22))
    tail = file.read()
    at = tail.rfind(_END)
    length = struct.unpack_from("<I", tail, at + 12)[0] if at >= 0 and len(tail) >= at + 22 else 0
    if length == 0xFFFFFFFF and (wide := tail.rfind(_END_64, 0, at)) >= 0:
        length = struct.unpack_from("<Q", tail, wide + 40)[0]
    if length > _DIRECTORY:
        raise InputError(
            f"{name} has too many files: its directory takes {length:,} bytes",
            hint=Advice(("unzip -d FOLDER {stored}, then ", Read(file="FOLDER")), name=name),
        )


class _File:
    """A file of an archive, whose every failure to be read is an InputError that names it."""

    def __init__(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> None:
        self._name = f"{name}:{entry.filename}"
        if entry.flag_bits & _ENCRYPTED:
            hint = Advice(("unzip -d FOLDER {stored} asks for its password, then ", Read(file="FOLDER")), name=name)
            raise InputError(f"{self._name} is encrypted", hint=hint)
        try:
            self._file = archive.open(entry)
        except (*_DAMAGED, RuntimeError) as error:  # NotImplementedError: compressed in a way that Python cannot read
            raise InputError(f"{self._name} cannot be read: {error}", hint=Advice("7z x {stored}", name=name)) from None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except _DAMAGED as error:
            raise InputError(
                f"{self._name} cannot be decompressed to its end: {error}",
                hint=Advice(*WHOLE),
            ) from None
