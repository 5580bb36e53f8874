"""Opening the store of a deployed stack."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from pik.errors import UsageError
from pik.ports.store import Store
from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import Stack, find_stack, stack_of

FORMAT = 1
"""The version of the layout of raw, as in a local store."""


def open_aws(url: str) -> Store:
    """The store `aws://STACK?region=…&profile=…`, found by its stack's outputs. Raises UsageError, NotFound,
    StoreError."""
    clients, name = located(url)
    return _assemble(url, clients, find_stack(clients, name))


def located(url: str) -> tuple[Clients, str]:
    """Clients for where the stack is that the URL names, and its name. Raises UsageError."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if not parts.netloc or parts.path.strip("/") or options.keys() - {"region", "profile"}:
        raise UsageError(f"{url} is no store", hint="aws://STACK or aws://STACK?region=eu-central-1&profile=NAME")
    return Clients(options.get("region"), options.get("profile")), parts.netloc


def open_deployed(environment: Mapping[str, str]) -> Store:
    """The store of the stack that a function of it runs in. Raises StoreError."""
    stack = stack_of(environment)
    return _assemble(f"aws://{stack.name}", Clients(), stack)


def _assemble(url: str, clients: Clients, stack: Stack) -> Store:
    raise NotImplementedError
