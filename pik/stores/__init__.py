"""Opening stores by URL: `aws://STACK` is a deployed one, a path a local one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pik.errors import UsageError
from pik.ports.store import Store

if TYPE_CHECKING:
    from pik.ports.remote import Api, Foreign, StackHealth


def open_store(url: str, *, create: bool = False) -> Store:
    """Open the store of the URL; `create` makes a local one that does not exist yet. Raises UsageError for an unknown
    scheme, NotFound, StoreError."""
    if url.startswith("aws://"):
        from pik.stores.aws import open_aws

        return open_aws(url)
    if "://" in url:
        raise UsageError(f"unsupported store URL {url!r}", hint="--store DIR, or aws://STACK")
    from pik.stores.local.open import open_local

    return open_local(Path(url).expanduser(), create=create)


def open_api(url: str) -> Api:
    """Open the HTTP API of the stack of the URL. Raises UsageError for a store without one, NotFound, StoreError."""
    if not url.startswith("aws://"):
        raise UsageError(f"{url} has no API: --via api is for deployed stacks", hint="--store aws://STACK, or no --via")
    from pik.stores.aws import open_api as open_api_of_stack

    return open_api_of_stack(url)


def open_foreign(url: str) -> Foreign:
    """Return a reader of files in S3, with the region and the profile of a deployed store's URL."""
    from pik.stores.aws.clients import Clients
    from pik.stores.aws.open import located
    from pik.stores.aws.s3_inputs import S3Files

    return S3Files(located(url)[0] if url.startswith("aws://") else Clients())


def open_health(url: str) -> StackHealth:
    """Open what checks the stack of the URL. Raises UsageError for a local store, NotFound, StoreError."""
    if not url.startswith("aws://"):
        raise UsageError(
            f"{url} is a local store, and has no stack",
            hint="--store aws://STACK; `pik status` and `pik verify` look at a local store",
        )
    from pik.stores.aws.deployment.health import health_of
    from pik.stores.aws.open import located

    clients, name = located(url)
    return health_of(clients, name)


def open_copy(path: str, source: Store, *, create: bool = True) -> Store:
    """Open the copy of a store in a directory; `create` makes one that does not exist yet. Raises UsageError if `path`
    is not a path, or that of the store itself, NotFound, StoreError."""
    from pik.stores.local.open import open_copy as open_local_copy

    if "://" in path:
        raise UsageError(f"{path}: copies are made in directories", hint="--into DIR, a new one")
    target = Path(path).expanduser().absolute()
    if str(target) == source.url:
        raise UsageError(f"{path} is the store itself", hint="--into DIR, a new one")
    return open_local_copy(target, source.url, create=create)
