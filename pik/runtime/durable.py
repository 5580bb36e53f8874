"""Making writes durable: what was written survives a loss of power when these return."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

_WITHOUT = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY}
"""What file systems say that do not have F_FULLFSYNC, such as network ones."""


def sync(handle: int) -> None:
    """Write an open file through to the disk. macOS' fsync leaves it in the disk's cache; F_FULLFSYNC does not.

    Raises OSError.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(handle, full)
            return
        except OSError as error:
            if error.errno not in _WITHOUT:
                raise
    os.fsync(handle)


def sync_directory(directory: Path) -> None:
    """Write the names in a directory through to the disk. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        sync(handle)
    finally:
        os.close(handle)
