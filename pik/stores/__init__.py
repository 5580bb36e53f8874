"""Stores by URL: `aws://STACK` is a deployed one, a path a local one."""

from __future__ import annotations

from pathlib import Path

from pik.errors import UsageError
from pik.ports.api import Api
from pik.ports.store import Store


def open_store(url: str, *, create: bool = False) -> Store:
    """The store that the URL names; `create` makes a local one that is not there yet. Raises UsageError for a scheme
    that there is not, NotFound, StoreError."""
    if url.startswith("aws://"):
        from pik.stores.aws import open_aws

        return open_aws(url)
    if "://" in url:
        raise UsageError(f"{url}: there are stores in directories and in stacks", hint="--store DIR, or aws://STACK")
    from pik.stores.local import open_local

    return open_local(Path(url).expanduser(), create=create)


def open_api(url: str) -> Api:
    """The HTTP API of the stack that the URL names. Raises UsageError for a store without one, NotFound, StoreError."""
    if not url.startswith("aws://"):
        raise UsageError(f"{url} has no API: --via api is for deployed stacks", hint="--store aws://STACK, or no --via")
    from pik.stores.aws import open_api as open_api_of_stack

    return open_api_of_stack(url)
