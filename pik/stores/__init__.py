"""Stores by URL: a path is a local one."""

from __future__ import annotations

from pathlib import Path

from pik.errors import UsageError
from pik.ports.store import Store


def open_store(url: str, *, create: bool = False) -> Store:
    """The store that the URL names. Raises UsageError for a scheme that there is not, NotFound, StoreError."""
    if "://" in url:
        raise UsageError(f"{url}: this pik knows stores in directories only", hint="--store DIR")
    from pik.stores.local import open_local

    return open_local(Path(url).expanduser(), create=create)
