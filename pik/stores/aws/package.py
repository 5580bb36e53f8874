"""What the package of a deployed function says about itself, without downloading all of it."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from typing import IO
from urllib.response import addinfourl
from zipfile import BadZipFile, ZipFile

from pik.errors import StoreError

MARK = "pik/lambdas/ARCHITECTURE"
"""The file of a package that names the architecture it was built for."""

_PIECE = 1 << 18  # bytes; the end of the archive, with its directory, is about as long
_SECONDS = 30


def built_for(url: str) -> str:
    """Return the architecture that the package at this URL was built for. Raises StoreError."""
    try:
        with _opened(url) as file, ZipFile(file) as package:
            return package.read(MARK).decode().strip()
    except KeyError:
        raise StoreError("its package does not name an architecture: it was not built with packaging/") from None
    except (OSError, BadZipFile, urllib.error.URLError) as error:
        raise StoreError(f"its package cannot be read: {error}") from None


def _opened(url: str) -> IO[bytes]:
    with _get(url, 0, 0) as answer:
        if answer.status != 206:  # as an emulator, which has no parts
            return io.BytesIO(answer.read())
        return io.BufferedReader(_Remote(url, int(answer.headers["Content-Range"].rpartition("/")[2])), _PIECE)


def _get(url: str, first: int, last: int) -> addinfourl:
    request = urllib.request.Request(url, headers={"Range": f"bytes={first}-{last}"})
    answer: addinfourl = urllib.request.urlopen(request, timeout=_SECONDS)
    return answer


class _Remote(io.RawIOBase):
    """A file behind a URL, read piece by piece."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader passes
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        with _get(self._url, self._at, self._at + wanted - 1) as answer:
            found = answer.read()
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
