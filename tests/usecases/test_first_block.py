"""An input of which not even the first block can be read leaves nothing: no batch that stays interrupted for ever."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pik.errors import InputError
from pik.inputs.source import file_source
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest
from pik.usecases.ingest.many_inputs import ingest_all
from pik.usecases.inspect.batches import status
from tests.support.stores import event

OPTIONS = IngestOptions(Reading(1 << 20), workers=0)
LINES = "".join(json.dumps(event(number, "a", "01T00:00")) + "\n" for number in range(2000)).encode()


COMPRESSED = {
    "cut.gz": gzip.compress(LINES),
    "larger-than-what-is-examined.gz": gzip.compress(LINES * 9, compresslevel=1),
}


@pytest.mark.parametrize("name", ["cut.json", *COMPRESSED])
def test_a_file_that_is_cut_below_one_block_leaves_no_interrupted_batch(tmp_path: Path, name: str) -> None:
    """Of an array nothing is recorded; of compressed data what stands before the cut, until it comes whole."""
    store = open_store(str(tmp_path / "store"), create=True)
    (tmp_path / "one.jsonl").write_bytes(LINES[:200].partition(b"\n")[0] + b"\n")
    one, path = file_source(str(tmp_path / "one.jsonl")), tmp_path / name
    path.write_bytes(COMPRESSED[name][:-20] if name in COMPRESSED else b'[{"source": "web"')
    with pytest.raises(InputError):
        ingest(store, file_source(str(path)), OPTIONS, SILENT)
    with pytest.raises(InputError):
        list(ingest_all(store, [one, file_source(str(path))], OPTIONS, SILENT))
    if name in COMPRESSED:
        assert status(store).interrupted == 1
        path.write_bytes(COMPRESSED[name])
        ingest(store, file_source(str(path)), OPTIONS, SILENT)
    else:
        assert [batch.origin.name for batch in store.index.batches()] == [one.name]
    assert status(store).interrupted == 0
