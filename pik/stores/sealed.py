"""A store that takes nothing: it is read from an evidence bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from pik.ports.store import Store, bundle_error

_WRITES = {
    "raw": {"create", "create_all"},
    "batches": {"writing", "open", "record", "finish", "together", "rebuild"},
    "requests": {"expect_ready", "record_request"},
    "corrections": {"follow"},
    "metrics": {"append"},
    "runs": {"create", "set_state", "mark", "driving"},
    "queue": {"send", "receive", "acknowledge", "release", "drop"},
    "dead_letters": {"bury", "delete", "purge"},
    "aggregates": {"write"},
    "promotions": {"promote", "rollback"},
    "republishes": {"create", "record", "sending"},
    "backup": {"restore"},
    "copy": {"pulling", "take_metrics", "take_aggregates"},
}
"""The methods that write, by port."""


def sealed(store: Store, url: str) -> Store:
    """Return the store under this URL, each method that writes raising StoreError."""
    ports: dict[str, Any] = {name: _Sealed(getattr(store, name), url, frozenset(_WRITES[name])) for name in _WRITES}
    return replace(store, url=url, sealed=True, **ports)


@dataclass(frozen=True)
class _Sealed:
    """A port without its methods that write."""

    port: Any
    url: str
    writes: frozenset[str]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # such as what pickle asks for, before there is a port
            raise AttributeError(name)
        return _refusing(self.url) if name in self.writes else getattr(self.port, name)


def _refusing(url: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise bundle_error(url)

    return refuse
