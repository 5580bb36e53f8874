"""The manifest of an export: what was asked for, and the files that have it."""

from __future__ import annotations

from collections.abc import Sequence
from time import time_ns

import msgspec

from pik import __version__
from pik.inputs.source import shown_name
from pik.model.instant import format_instant
from pik.ports.exporter import Layout
from pik.ports.store import Store
from pik.usecases.export.place import ExportedFile
from pik.usecases.inspect.effects import Effects


def manifest(
    store: Store,
    layout: Layout,
    files: Sequence[ExportedFile],
    known_until: int | None,
    effects: Effects | None,
) -> bytes:
    """Return the manifest, as docs/json.md describes it."""
    wanted = layout.selection
    content = {
        "pik": __version__,
        "store": shown_name(store.url),
        "store_format": store.format_version,
        "created_at": format_instant(time_ns()),
        "format": layout.format,
        "compression": layout.compression,
        "query": {
            "window": {"from": wanted.window.from_text, "to": wanted.window.to_text},
            "entities": wanted.entities,
            "source": wanted.source,
            "event_type": wanted.event_type,
            "include_duplicates": layout.include_duplicates,
            "as_received": layout.as_received,
            "columns": [
                {"name": column.name, "expression": column.expression, "type": column.type} for column in layout.columns
            ],
            "partition_by": layout.partition_by,
            "timezone": None if layout.days is None else layout.days.zone,
        },
        "known_until": format_instant(known_until) if known_until else None,
        "corrected": effects,
        "rows": sum(file.rows for file in files),
        "files": [msgspec.structs.replace(file, path=shown_name(file.path)) for file in files],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
