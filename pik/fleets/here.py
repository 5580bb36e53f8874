"""The fleet that is this process, whose engine has as many threads as its memory allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pik.ports.engine import Engine
from pik.ports.fleet import Body, Item, Keyed, Merge, Result
from pik.ports.store import Store
from pik.runtime.storage import scratch


@dataclass(frozen=True, slots=True)
class Here:
    """The Fleet port, item by item. Values wait on the disk until they are merged."""

    store: Store
    engine: Engine
    slots: int = 1

    def map(self, body: Body[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of each item."""
        for item in items:
            yield from body(self.store, self.engine, item)

    def map_reduce(
        self, body: Body[Item, Keyed], items: Iterable[Item], merge: Merge[Result], keys: int
    ) -> Iterator[Result]:
        """Yield what each key's values come to."""
        with scratch() as directory:
            kept: dict[int, list[Path]] = {}
            for item in items:
                for key, value in body(self.store, self.engine, item):
                    paths = kept.setdefault(key, [])
                    paths.append(directory / f"{key}-{len(paths)}")
                    paths[-1].write_bytes(value)
            for key in range(keys):
                if paths := kept.pop(key, []):
                    yield from merge(self.store, self.engine, key, (path.read_bytes() for path in paths))
