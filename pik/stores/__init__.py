"""Stores by URL: `aws://STACK` is a deployed one, a path a local one."""

from __future__ import annotations

from pathlib import Path

from pik.errors import UsageError
from pik.ports.remote import Api, Foreign, StackHealth
from pik.ports.store import Store


def open_store(url: str, *, create: bool = False) -> Store:
    """The store that the URL names; `create` makes a local one that is not there yet. Raises UsageError for a scheme
    that there is not, NotFound, StoreError."""
    if url.startswith("aws://"):
        from pik.stores.aws import open_aws

        return open_aws(url)
    if "://" in url:
        raise UsageError(f"unsupported store URL {url!r}", hint="--store DIR, or aws://STACK")
    from pik.stores.local.open import open_local

    return open_local(Path(url).expanduser(), create=create)


def open_api(url: str) -> Api:
    """The HTTP API of the stack that the URL names. Raises UsageError for a store without one, NotFound, StoreError."""
    if not url.startswith("aws://"):
        raise UsageError(f"{url} has no API: --via api is for deployed stacks", hint="--store aws://STACK, or no --via")
    from pik.stores.aws import open_api as open_api_of_stack

    return open_api_of_stack(url)


def open_foreign(url: str) -> Foreign:
    """Files in S3, read with the region and the profile of the store that the URL names, if it names any."""
    from pik.stores.aws.clients import Clients
    from pik.stores.aws.open import located
    from pik.stores.aws.s3_inputs import S3Files

    return S3Files(located(url)[0] if url.startswith("aws://") else Clients())


def open_health(url: str) -> StackHealth:
    """What can be told about the stack of a URL. Raises UsageError for a local store, NotFound, StoreError."""
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
    """The copy of a store in this directory; `create` makes one that is not there yet. Raises UsageError if `path` is
    no path, or the store itself, NotFound, StoreError."""
    from pik.stores.local.open import open_copy as open_local_copy

    if "://" in path:
        raise UsageError(f"{path}: copies are made in directories", hint="--into DIR, a new one")
    target = Path(path).expanduser().absolute()
    if str(target) == source.url:
        raise UsageError(f"{path} is the store itself", hint="--into DIR, a new one")
    return open_local_copy(target, source.url, create=create)
