"""Ingests files in a process of its own: `child.py STORE BLOCK WORKERS FILE…`, with blocks of about so many bytes.

Says `ready` when a file begins, and in the end what became of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from msgspec import structs

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

from pik.inputs import blocks as blocks_module
from pik.inputs.source import file_source
from pik.rawlog.reading import Reading
from pik.runtime import Progress
from pik.stores import open_store
from pik.usecases.ingest import batch_ingest as ingest_module


class Ready(Progress):
    """Tells when work begins."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        print("ready", flush=True)


def small_blocks(size: int) -> None:
    blocks_module.BLOCK = size
    blocks_module.FIRST_READ = 100
    vars(ingest_module)["BLOCK"] = size  # above which there are workers


def main(url: str, block: str, workers: str, *files: str) -> None:
    small_blocks(int(block))
    options = ingest_module.IngestOptions(Reading(1 << 20), workers=int(workers))
    store = open_store(url, create=True)
    for name in files:
        done = ingest_module.ingest(store, file_source(name), options, Ready())
        print(json.dumps([done.outcome, *structs.astuple(done.batch.counts)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
