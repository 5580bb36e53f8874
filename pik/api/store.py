"""A store, opened from Python."""

from __future__ import annotations

import os
from pathlib import Path

from pik.api.inspect import Inspect
from pik.api.repair import Repair
from pik.errors import UsageError, command


class Store(Inspect, Repair):
    """An open store. `pik.open` makes it; `with pik.open() as store:` closes it at the end.

    It may be used by one thread at a time, and its results as well; each thread opens its own. Several processes may
    use a store at once. Methods raise PikError, whose `message` says what is wrong and `hint` what helps.
    """

    def close(self) -> None:
        """Close the store. Using it afterwards raises UsageError."""
        self._opened = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._opened is None:
            return "<pik.Store: closed>"
        return f"<pik.Store {self.url}{', writable' if self._writable else ''}>"


def open_(
    store: str | os.PathLike[str] | None = None,
    *,
    writable: bool = False,
    create: bool = False,
    actor: str | None = None,
) -> Store:
    """Open a store: a path, `aws://STACK?region=…&profile=…`, or a name from pik.toml. Without one it is that of
    PIK_STORE, of pik.toml, or the nearest `.pik`, as on the command line.

    It is opened to be read only: a notebook that is run again changes nothing. `writable=True` allows `ingest`, and to
    run, promote and roll back replays; `create=True` makes a local store that does not exist yet, and implies it.
    `actor` is who is recorded with what is written, by default PIK_ACTOR, the caller's ARN, or user and host.

    Raises NotFound where there is no store, UsageError for another URL, StoreError where it cannot be used.
    """
    from pik import config
    from pik.stores import open_store

    given = None if store is None else os.fspath(store)
    if isinstance(store, Path) and given is not None:
        given = str(store.expanduser().absolute())  # a path is never a name
    settings = config.settings(store=given, actor=actor)
    if os.path.isfile(settings.store):
        raise UsageError(
            f"{settings.store} is a file, and a store is a directory",
            hint=f"an evidence bundle is read by `{command('events', '--store', settings.store)}` and other commands",
        )
    return Store(open_store(settings.store, create=create), settings, writable=writable or create)
