"""Opening stores by URL: `aws://STACK` is a deployed one, a path a local one; and what all of them have in common: the
format of their layout, and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pik.errors import ConflictFound, Damaged, StoreError, UsageError
from pik.ports.index import unheard
from pik.ports.store import Store

if TYPE_CHECKING:
    from pik.ports.remote import Api, Foreign, StackHealth


def open_store(url: str, *, create: bool = False, waiting: Callable[[str], None] = unheard) -> Store:
    """Open the store of the URL; `create` makes a local one that does not exist yet. `waiting` is told of other
    processes that a local one waits for. Raises UsageError for an unknown scheme, NotFound, StoreError."""
    if url.startswith("aws://"):
        from pik.stores.aws import open_aws

        return open_aws(url)
    if "://" in url:
        raise UsageError(f"unsupported store URL {url!r}", hint="--store DIR, or aws://STACK")
    from pik.stores.local import open_local

    return open_local(Path(url).expanduser(), create=create, waiting=waiting)


def open_api(url: str) -> Api:
    """Open the HTTP API of the stack of the URL. Raises UsageError for a store without one, NotFound, StoreError."""
    if not url.startswith("aws://"):
        raise UsageError(f"{url} has no API: --via api is for deployed stacks", hint="--store aws://STACK, or no --via")
    from pik.stores.aws import open_api as open_api_of_stack

    return open_api_of_stack(url)


def open_foreign(url: str) -> Foreign:
    """Return a reader of files in S3, with the region and the profile of a deployed store's URL."""
    from pik.stores.aws.clients import Clients
    from pik.stores.aws.s3 import S3Files
    from pik.stores.aws.stack import located

    return S3Files(located(url).clients if url.startswith("aws://") else Clients())


def open_health(url: str) -> StackHealth:
    """Open what checks the stack of the URL. Raises UsageError for a local store, NotFound, StoreError."""
    if not url.startswith("aws://"):
        raise UsageError(
            f"{url} is a local store, and has no stack",
            hint="--store aws://STACK; `pik status` and `pik verify` look at a local store",
        )
    from pik.stores.aws.deployed_stack import describe_stack
    from pik.stores.aws.stack import located

    where = located(url)
    return describe_stack(where.clients, where.name)


def open_copy(path: str, source: Store, *, create: bool = True) -> Store:
    """Open the copy of a store in a directory; `create` makes one that does not exist yet. Raises UsageError if `path`
    is not a path, or that of the store itself, NotFound, StoreError."""
    from pik.stores.local import open_copy as open_local_copy

    if "://" in path:
        raise UsageError(f"{path}: copies are made in directories", hint="--into DIR, a new one")
    target = Path(path).expanduser().absolute()
    if str(target) == source.url:
        raise UsageError(f"{path} is the store itself", hint="--into DIR, a new one")
    return open_local_copy(target, source.url, create=create)


FORMAT = 6
"""The version of the layout of a store and of everything in it; docs/format.md lists what changed with each."""


def expect_format(store: str, found: int) -> None:
    """Raise StoreError if the store has another format than this program."""
    if found > FORMAT:
        raise StoreError(
            f"the store at {store} has format {found}; this pik reads up to format {FORMAT}",
            hint="use the pik that wrote it, or a newer one",
        )
    if found < FORMAT:
        raise StoreError(
            f"the store at {store} has format {found}, which only an older pik reads; this one reads {FORMAT}",
            hint="ingest its inputs into a new store, or use the pik that wrote it",
        )


def missing(key: str) -> Damaged:
    """Return the error for an object that the index names and that is missing."""
    return Damaged(f"raw object {key} is missing", hint="pik verify --full")


def conflicting(first_seq: int, last_seq: int, conflicts: int) -> ConflictFound:
    """Return the error for records among which there are conflicts, where they are refused."""
    return ConflictFound(
        f"records {first_seq} to {last_seq} hold idempotency keys that came before with other content"
        f" (conflicts: {conflicts})",
        hint="none of them was recorded; --on-conflict record keeps them as duplicates",
    )
