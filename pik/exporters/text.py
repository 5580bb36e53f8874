"""JSON lines and CSV, plain or compressed.

A line of JSON is the raw line with the extracted columns added at its end, and what a correction did where one concerns
it. CSV is that of RFC 4180, with the columns of the Parquet files; null is an empty field, an empty text is `""`.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO, cast

import msgspec
import zstandard

from pik.model.batch import Verdict
from pik.model.delivery import Delivery, extracted_values
from pik.model.instant import full_instant, parse_instant
from pik.ports.exporter import COLUMNS, CORRECTED, DELIVERY, Block, Layout, Piece, Rows, local_date

_SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}


class TextExporter:
    """Writes JSON lines or CSV. Its rows are lists of lines, with their line breaks."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.suffix = f".{layout.format}{_SUFFIXES[layout.compression]}"
        ours = [DELIVERY] * layout.include_duplicates + ([] if layout.as_received else [*CORRECTED])
        added = [*ours, *(column.name for column in layout.columns)]
        self._keys = [(b"," + msgspec.json.encode(name) + b":", name in CORRECTED) for name in added]
        self._names = [name for name in COLUMNS if name not in layout.partition_by]
        self._header = ",".join([*self._names, *added]).encode() + b"\r\n" if layout.format == "csv" else b""

    def cut(self, block: Block) -> Iterator[tuple[tuple[str, ...], Rows]]:
        groups: dict[tuple[str, ...], list[bytes]] = {}
        by = self.layout.partition_by
        for piece, line in block.lines():
            delivery = piece.read(line)
            kind = piece.verdicts.get(delivery.seq, Verdict.ACCEPTED)
            if kind == Verdict.UNRECORDED or (kind != Verdict.ACCEPTED and not self.layout.include_duplicates):
                continue
            if self.layout.selection.matches(delivery):
                key = tuple([self._partition(name, block, delivery) for name in by])
                groups.setdefault(key, []).append(self._line(line, delivery, self._added(delivery, kind, piece)))
        yield from groups.items()

    def _partition(self, name: str, block: Block, delivery: Delivery) -> str:
        if name == "event_date":
            days = self.layout.days
            return block.day if days is None else local_date(days, parse_instant(delivery.event_time))
        return cast(str, getattr(delivery, name))

    def _added(self, delivery: Delivery, kind: Verdict, piece: Piece) -> list[Any]:
        """Return the values that are not in the envelope: `delivery`, what corrections did, and extracted columns."""
        added: list[Any] = [kind] if self.layout.include_duplicates else []
        if not self.layout.as_received:
            added += piece.corrected.get(delivery.seq, (None, None))
        columns = self.layout.columns
        if columns:
            exactly = bool(bytes(delivery.payload_text))
            values = extracted_values(columns, delivery.event_id, delivery.payload, exactly=exactly)
            for column, value in zip(columns, values, strict=True):
                added.append(full_instant(value) if column.type == "timestamp" and value is not None else value)
        return added

    def _line(self, line: bytes, delivery: Delivery, added: list[Any]) -> bytes:
        if self.layout.format == "jsonl":
            # Where no correction did anything, a line has no member that says so.
            members = [
                key + _json(value)
                for (key, is_rare), value in zip(self._keys, added, strict=True)
                if value is not None or not is_rare
            ]
            return line[:-1] + b"".join(members) + b"}\n"
        cells = [_cell(getattr(delivery, name)) for name in self._names]
        return b",".join(cells + [_cell(value) for value in added]) + b"\r\n"

    def sink(self, file: BinaryIO) -> _TextSink:
        sink = _TextSink(file, self.layout.compression)
        sink.write([self._header] if self._header else [])
        return sink


class _TextSink:
    def __init__(self, file: BinaryIO, compression: str) -> None:
        self._compressed: Any = None
        if compression == "gzip":
            self._compressed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        elif compression == "zstd":
            self._compressed = zstandard.ZstdCompressor().stream_writer(file, closefd=False)
        self._file = self._compressed or file

    def write(self, rows: Rows) -> None:
        self._file.write(b"".join(cast("list[bytes]", rows)))

    def close(self) -> None:
        if self._compressed:
            self._compressed.close()


def _json(value: Any) -> bytes:
    """Return the JSON text of a value, decimals as they are written."""
    return format(value, "f").encode() if isinstance(value, Decimal) else msgspec.json.encode(value)


_SPECIAL = re.compile(rb'[",\r\n]')


def _cell(value: Any) -> bytes:
    """Return a field as RFC 4180 has it."""
    if value is None:
        return b""
    if isinstance(value, str):
        if not value:
            return b'""'
        text = value.encode()
    else:
        text = bytes(value) if isinstance(value, msgspec.Raw) else _json(value)
    return b'"%s"' % text.replace(b'"', b'""') if _SPECIAL.search(text) else text
