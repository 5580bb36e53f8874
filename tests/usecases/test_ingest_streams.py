"""Streams, which are read once, and inputs that change or cannot be read to their end."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pik.errors import Busy, InputError
from pik.inputs import blocks as blocks_module
from pik.inputs.source import Source, file_source, stream_source
from pik.model.batch import BatchState
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.ingest.batch_ingest import Outcome
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.snapshot import assert_sound, snapshot

from .test_ingest import crash_at, ingest, line, written

pytestmark = pytest.mark.usefixtures("blocks_of_a_few_lines")


def stream(path: Path, lines: Iterable[str]) -> Source:
    """A source that is read once, as standard input is."""
    path.write_text("".join(each + "\n" for each in lines), encoding="utf-8")
    return stream_source("standard input", path)


def test_a_stream_without_a_name_is_another_batch_each_time(store: Store, tmp_path: Path) -> None:
    source = stream(tmp_path / "in", map(line, range(10)))
    with crash_at(store, 5) as crashing:
        ingest(crashing, source)
    assert [ingest(store, source).outcome for _ in range(2)] == [Outcome.NEW, Outcome.NEW]
    assert store.index.totals().events == 10


def test_a_stream_with_a_name_is_resumed_and_is_a_batch_once(store: Store, tmp_path: Path) -> None:
    texts = [*map(line, range(20)), "{", *map(line, range(10, 30))]
    whole = open_store(str(tmp_path / "whole"), create=True)
    ingest(whole, stream(tmp_path / "in", texts), batch_key="nightly")
    source = stream(tmp_path / "in", texts)
    for number in (6, 11):
        with crash_at(store, number) as crashing:
            ingest(crashing, source, batch_key="nightly")
    done = ingest(store, source, batch_key="nightly")
    assert done.outcome == Outcome.RESUMED
    assert (done.resumed_from or 0) > 1
    assert snapshot(store) == snapshot(whole)
    assert ingest(store, source, batch_key="nightly").outcome == Outcome.ALREADY
    assert ingest(store, source, batch_key="other").outcome == Outcome.NEW
    assert_sound(store)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_a_compressed_stream_that_was_cut_is_recorded_up_to_there_and_goes_on_when_it_comes_whole(
    store: Store, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    texts = [*map(line, range(20)), "{", *map(line, range(10, 30))]
    begin, rest = ("".join(each + "\n" for each in part).encode() for part in (texts[:25], texts[25:]))
    data = compress(begin) + compress(rest)
    for cut in (len(compress(begin)) + 12, len(compress(begin)) + len(compress(rest)) * 2 // 3):
        source = stream_source("standard input", tmp_path / "in")
        (tmp_path / "in").write_bytes(data[:cut])
        with pytest.raises(InputError, match="standard input cannot be decompressed to its end: it is cut"):
            ingest(store, source, batch_key=f"cut at {cut}")
        assert max(batch.counts.read for batch in store.index.batches()) >= 25
        (tmp_path / "in").write_bytes(data)
        done = ingest(store, source, batch_key=f"cut at {cut}")
        assert (done.outcome, done.batch.counts.read, done.batch.counts.rejected) == (Outcome.RESUMED, len(texts), 1)
    assert store.index.totals().events == 30
    assert_sound(store)


@pytest.mark.parametrize("steps", [6, 1000], ids=["interrupted", "complete"])
def test_a_stream_that_is_not_what_its_batch_began_with_is_refused(store: Store, tmp_path: Path, steps: int) -> None:
    texts = list(map(line, range(30)))
    try:
        ingest(wrapped(store, FailAt(steps), "raw", "batches"), stream(tmp_path / "in", texts), batch_key="nightly")
    except Crash:
        assert steps == 6
    before = snapshot(store)
    others = [
        [line("new"), *texts[1:]],
        [texts[1], texts[0], *texts[2:]],
        texts[:2],
        [],
        ["", *texts],
        [*texts[:1], texts[1] + " ", *texts[2:]],
        *([[*texts, line("more")]] if steps > 6 else []),
    ]
    for other in others:
        with pytest.raises(InputError, match=r"is not what batch \w+ \(--batch-key nightly\) began with"):
            ingest(store, stream(tmp_path / "in", other), batch_key="nightly")
        assert snapshot(store) == before
    done = ingest(store, stream(tmp_path / "in", texts), batch_key="nightly")
    assert done.outcome == (Outcome.RESUMED if steps == 6 else Outcome.ALREADY)
    assert store.index.totals().events == 30


def test_a_file_that_changes_while_it_is_read_is_an_error(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path, map(line, range(30)))
    assert source.path is not None

    def append(name: str, call: Any) -> Any:
        if name == "batches.open":
            with open(source.path or "", "a") as file:
                file.write(line("late") + "\n")
        return call()

    with pytest.raises(InputError, match="changed while it was being read"):
        ingest(wrapped(store, append, "batches"), source)
    assert ingest(store, source).outcome == Outcome.NEW  # its content is another now
    assert store.index.totals().events == 31


def test_one_input_is_not_ingested_twice_at_the_same_time(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path, [line()])

    def meanwhile(name: str, call: Any) -> Any:
        with pytest.raises(Busy, match=f"another pik process is ingesting {source.name}, or"):
            ingest(store, source)
        return call()

    assert ingest(wrapped(store, meanwhile, "batches"), source).outcome == Outcome.NEW
    assert_sound(store)


def test_an_input_that_cannot_be_read_to_its_end_can_be_replaced_by_a_whole_copy(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK", 100_000)
    path = tmp_path / "events.gz"
    data = gzip.compress("".join(line(n) + "\n" for n in range(3000)).encode())
    path.write_bytes(data[:-20])
    for _ in range(2):
        with pytest.raises(InputError, match="cannot be decompressed to its end"):
            ingest(store, file_source(str(path)))
    assert [batch.state for batch in store.index.batches()] == [BatchState.INTERRUPTED]
    path.write_bytes(data)
    done = ingest(store, file_source(str(path)))
    assert done.outcome == Outcome.NEW
    assert done.batch.counts.read == 3000
    assert store.index.totals().events == 3000
