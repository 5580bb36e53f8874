"""Corrections that are not recorded: they hold for one reader, and their lists are temporary files beside raw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pik.model.correction import Correction, CorrectionKind, active
from pik.ports.raw import Object, Raw, RawObject
from pik.ports.store import Store
from pik.rawlog.corrected import Corrected
from pik.rawlog.correction_lists import PackedList, write_lists
from pik.rawlog.selection import Overrides
from pik.runtime.storage import scratch


@dataclass(frozen=True, slots=True)
class _Beside:
    """Raw, and beside it objects with these prefixes in a directory."""

    raw: Raw
    directory: Path
    prefixes: tuple[str, ...]

    def create(self, key: str, data: bytes) -> None:
        self._path(key).write_bytes(data)

    def create_all(self, objects: Sequence[Object]) -> None:
        for key, data in objects:
            self.create(key, data)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if not key.startswith(self.prefixes):
            return self.raw.read(key, offset, length)
        return self._path(key).read_bytes()[offset:][:length]

    def size(self, key: str) -> int | None:
        return self._path(key).stat().st_size if key.startswith(self.prefixes) else self.raw.size(key)

    def stored_digest(self, key: str) -> str | None:
        return None if key.startswith(self.prefixes) else self.raw.stored_digest(key)

    def objects(self, prefix: str) -> Iterator[RawObject]:
        return self.raw.objects(prefix)

    @contextmanager
    def files(self, keys: Sequence[str]) -> Iterator[list[Path]]:
        with self.raw.files([key for key in keys if not key.startswith(self.prefixes)]) as found:
            others = iter(found)
            yield [self._path(key) if key.startswith(self.prefixes) else next(others) for key in keys]

    def _path(self, key: str) -> Path:
        return self.directory / key.removeprefix("corrections/").replace("/", "-")


@contextmanager
def drafted(
    store: Store, new: Sequence[tuple[str, CorrectionKind, Iterable[PackedList]]]
) -> Iterator[tuple[Store, Overrides]]:
    """Provide what would count if corrections with these ids, kinds and lists were recorded, in this order, and the
    store to read it with."""
    with scratch() as directory:
        beside = _Beside(store.raw, directory, tuple(f"corrections/{correction_id}/" for correction_id, _, _ in new))
        drafts = [
            Correction(
                format=store.format_version,
                correction_id=correction_id,
                kind=kind,
                recorded_at=0,
                reason="",
                events=0,
                lists=write_lists(beside, lists),
            )
            for correction_id, kind, lists in new
        ]
        inner = replace(store, raw=beside)
        holding = Corrected(inner, [*active(store.corrections.recorded()), *drafts])
        yield inner, Overrides(corrected=holding)
