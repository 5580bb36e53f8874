"""Where the rows of an export on this machine go: files of one place, or a stream."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pik.ports.exporter import Exporter, Rows
from pik.usecases.export.parts import PartWriter, writing_to
from pik.usecases.export.place import ExportedFile, ExportPlace


class FileOutput:
    """Writes the files of an export; a context manager that removes at its end what was not published."""

    def __init__(self, target: Path, exporter: Exporter, *, directory: bool, dry_run: bool) -> None:
        self._exporter, self._is_directory = exporter, directory
        self._place = ExportPlace(target, exporter.layout.partition_by, directory=directory, dry_run=dry_run)
        self._writer: PartWriter | None = None
        self._dry_run = dry_run
        self._leaving = ExitStack()

    def __enter__(self) -> FileOutput:
        self._leaving.enter_context(self._place)
        if not self._dry_run:
            self._writer = self._leaving.enter_context(PartWriter(self._place.parts, self._exporter))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._leaving.close()

    def write(self, key: tuple[str, ...], rows: Rows) -> None:
        """Append rows to the file of a partition. Raises StoreError, and UsageError if its name is too long."""
        if self._is_directory:
            self._place.partition(key)
        if self._writer is not None:
            with writing_to(self._place.target):
                self._writer.write(key, rows)

    def finish(self) -> tuple[ExportedFile, ...]:
        """Complete the files, and return them ordered by path. Without partitions there is always one."""
        if self._writer is None:
            return ()
        with writing_to(self._place.target):
            parts = self._writer.finish(even_empty=not self._exporter.layout.partition_by)
        files = [self._place.take(part, f"part-{part.number}{self._exporter.suffix}") for part in parts]
        return tuple(sorted(files, key=lambda file: file.path))

    def publish(self, manifest: bytes) -> Path | None:
        """Give the finished files their names, with the manifest; return its path."""
        return None if self._dry_run else self._place.publish(manifest)


class StreamOutput:
    """Writes rows to an open stream as they come, instead of files; nothing can be taken back. The stream's errors pass
    through."""

    def __init__(self, stream: BinaryIO, exporter: Exporter) -> None:
        self._stream, self._sink = stream, exporter.sink(stream)

    def write(self, _key: tuple[str, ...], rows: Rows) -> None:
        """Append rows; there are no partitions."""
        self._sink.write(rows)

    def finish(self) -> tuple[ExportedFile, ...]:
        """Write what the format needs at its end."""
        self._sink.close()
        self._stream.flush()
        return ()

    def publish(self, _manifest: bytes) -> None:
        """Do nothing: a stream has no manifest."""
