"""An open store, as the parts of `Store` use it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pik.api.results import Result, columns_of
from pik.errors import UsageError

if TYPE_CHECKING:
    from pik.config import Settings
    from pik.ports import store as ports
    from pik.ports.engine import Engine
    from pik.ports.frame import Frames

Names = str | Iterable[str] | None
"""One name, several, or None: all."""


class PikWarning(UserWarning):
    """Something to know that is not an error."""


class Opened:
    """A store, and what computes."""

    def __init__(self, store: ports.Store, settings: Settings, *, writable: bool) -> None:
        self._opened: ports.Store | None = store
        self._settings, self._writable = settings, writable

    @property
    def _store(self) -> ports.Store:
        if self._opened is None:
            raise UsageError("the store is closed", hint="pik.open() opens it again")
        return self._opened

    @property
    def url(self) -> str:
        """Where the store is: the path of its directory, or `aws://STACK`."""
        return self._store.url

    @cached_property
    def _engine(self) -> Engine:
        from pik.engine import DuckEngine

        return DuckEngine()

    def _expect_writable(self, what: str) -> None:
        """Raise UsageError where the store was opened to be read only."""
        if not self._writable:
            raise UsageError(
                f"{what} writes, and the store was opened to be read only", hint="pik.open(…, writable=True)"
            )

    @cached_property
    def _actor(self) -> str:
        """Who is recorded with what is written."""
        from pik.config import actor_of

        return actor_of(self._settings, self._store, warn)

    def _result(
        self, row: type[Any], ask: Callable[[int | None], Iterable[Any]], limit: int | None, title: str, **more: Any
    ) -> Result[Any]:
        return Result(ask, columns_of(row), frames, limit=checked_limit(limit), title=title, **more)

    def _left_out(self, names: Sequence[str]) -> list[str]:
        """Return the note on metrics over all entities that `entity=` leaves out."""
        if not names:
            return []
        are = "is" if len(names) == 1 else "are"
        return [f"{', '.join(names)} {are} over all entities, and left out because of entity="]

    def _bucket_texts(self) -> Callable[[str, int], str | None]:
        """Return what a bucket's start is called in its metric's timezone."""
        buckets = {metric.name: metric.buckets for metric in self._store.metrics.latest()}
        return lambda metric, start: buckets[metric].local_text(start)


def warn(text: str) -> None:
    """Tell the caller something that is not an error."""
    warnings.warn(text, PikWarning, stacklevel=4)


def frames() -> Frames:
    """Return what makes frames."""
    from pik.exporters.frames import ArrowFrames

    return ArrowFrames()


def names_of(names: Names) -> tuple[str, ...]:
    """Return the names: one text is one name."""
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def checked_limit(limit: int | None) -> int | None:
    """Return the limit. Raises UsageError unless it is a positive number or None."""
    if limit is not None and limit < 1:
        raise UsageError(f"limit: expected a positive whole number, not {limit!r}", hint="None is no limit")
    return limit
