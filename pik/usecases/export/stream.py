"""An export to a stream that is open already: rows are written as they come, and nothing can be taken back."""

from __future__ import annotations

from types import TracebackType
from typing import BinaryIO

from pik.ports.exporter import Exporter, Rows, Sink
from pik.usecases.export.files import ExportedFile


class StreamOutput:
    """Takes what Output takes. The stream's errors pass through."""

    def __init__(self, stream: BinaryIO, exporter: Exporter) -> None:
        self._stream = stream
        self._exporter = exporter
        self._sink: Sink | None = None

    def __enter__(self) -> StreamOutput:
        self._sink = self._exporter.sink(self._stream)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Nothing is left to be removed."""

    def write(self, key: tuple[str, ...], rows: Rows) -> None:  # noqa: ARG002 - there are no partitions
        """Append rows."""
        assert self._sink is not None
        self._sink.write(rows)

    def finish(self) -> tuple[ExportedFile, ...]:
        """Write what the format needs at its end."""
        assert self._sink is not None
        self._sink.close()
        self._stream.flush()
        return ()

    def publish(self, manifest: bytes) -> None:
        """There is no place for a manifest."""
