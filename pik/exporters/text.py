"""JSON lines and CSV, plain or compressed.

A line of JSON is the raw line as it is, own columns added at its end. CSV is that of RFC 4180, with the columns of the
Parquet files; nothing is an empty field, an empty text is `""`.
"""

from __future__ import annotations

import gzip
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO, cast

import msgspec
import zstandard

from pik.exporters.own import own_values
from pik.model.batch import Verdict
from pik.model.delivery import Delivery, to_json
from pik.model.instant import full_instant
from pik.ports.engine import COLUMNS, DELIVERY, Block, Layout, Rows

_ENDINGS = {"none": "", "gzip": ".gz", "zstd": ".zst"}


class _TextExporter(ABC):
    """What both have in common. Rows are lists of lines, with their line breaks."""

    header = b""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.suffix = f".{layout.format}{_ENDINGS[layout.compression]}"
        self._added_names = [*((DELIVERY,) if layout.include_duplicates else ()), *(own.name for own in layout.columns)]

    def cut(self, block: Block) -> Iterator[tuple[tuple[str, ...], Rows]]:
        groups: dict[tuple[str, ...], list[bytes]] = {}
        by = self.layout.partition_by
        accepted, unrecorded = Verdict.ACCEPTED, Verdict.UNRECORDED  # members are slow to look up
        for piece, line in block.lines():
            delivery = piece.read(line)
            kind = piece.verdicts.get(delivery.seq, accepted)
            if kind == unrecorded or (kind != accepted and not self.layout.include_duplicates):
                continue
            if self.layout.selection.matches(delivery):
                key = tuple([block.day if name == "event_date" else getattr(delivery, name) for name in by])
                groups.setdefault(key, []).append(self._line(line, delivery, self._added(delivery, kind)))
        yield from groups.items()

    def _added(self, delivery: Delivery, kind: str) -> list[bytes]:
        """JSON texts of what is not in the envelope: `delivery`, and own columns."""
        added = [_json(kind)] if self.layout.include_duplicates else []
        if self.layout.columns:
            exactly = bool(bytes(delivery.payload_text))
            found = own_values(self.layout.columns, delivery.event_id, delivery.payload, exactly=exactly)
            for column, value in zip(self.layout.columns, found, strict=True):
                is_time = column.type == "timestamp" and value is not None
                added.append(_json(full_instant(value) if is_time else value))
        return added

    @abstractmethod
    def _line(self, line: bytes, delivery: Delivery, added: list[bytes]) -> bytes:
        """The delivery, whose raw line this is, as a line of the file."""

    def sink(self, file: BinaryIO) -> _TextSink:
        sink = _TextSink(file, self.layout.compression)
        sink.write([self.header] if self.header else [])
        return sink


class JsonlExporter(_TextExporter):
    """Writes raw lines."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._keys = [b"," + to_json(name) + b":" for name in self._added_names]

    def _line(self, line: bytes, delivery: Delivery, added: list[bytes]) -> bytes:  # noqa: ARG002 - CSV's need
        members = b"".join([part for member in zip(self._keys, added, strict=True) for part in member])
        return line[:-1] + members + b"}\n"


class CsvExporter(_TextExporter):
    """Writes CSV."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._names = [name for name in COLUMNS if name not in layout.partition_by]
        self.header = ",".join([*self._names, *self._added_names]).encode() + b"\r\n"

    def _line(self, line: bytes, delivery: Delivery, added: list[bytes]) -> bytes:  # noqa: ARG002 - JSON's need
        cells = [_cell(getattr(delivery, name)) for name in self._names]
        cells += [_cell(msgspec.json.decode(text) if text[:1] == b'"' else _known(text)) for text in added]
        return b",".join(cells) + b"\r\n"


class _TextSink:
    def __init__(self, file: BinaryIO, compression: str) -> None:
        self._packed: Any = None
        if compression == "gzip":
            self._packed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        elif compression == "zstd":
            self._packed = zstandard.ZstdCompressor().stream_writer(file, closefd=False)
        self._file = self._packed or file

    def write(self, rows: Rows) -> None:
        self._file.write(b"".join(cast("list[bytes]", rows)))

    def close(self) -> None:
        if self._packed:
            self._packed.close()


def _json(value: Any) -> bytes:
    """JSON text of an own column's value, decimals as they are written."""
    return format(value, "f").encode() if isinstance(value, Decimal) else to_json(value)


def _known(text: bytes) -> msgspec.Raw:
    """JSON text that is no string; null is nothing."""
    return msgspec.Raw(b"" if text == b"null" else text)


_SPECIAL = re.compile(rb'[",\r\n]')


def _cell(value: str | int | msgspec.Raw | None) -> bytes:
    """A field as RFC 4180 has it."""
    if value is None:
        return b""
    if isinstance(value, str):
        text = value.encode() or b'""'
        if not value:
            return text
    else:
        text = bytes(value) if isinstance(value, msgspec.Raw) else b"%d" % value
    return b'"%s"' % text.replace(b'"', b'""') if _SPECIAL.search(text) else text
