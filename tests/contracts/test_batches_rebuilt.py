"""The contract of pik.ports.index.Batches.rebuild."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from pik.errors import BeingRebuilt, Busy
from pik.model.batch import BatchState, Counts, Location, Verdict
from pik.ports.store import Store
from pik.stores import open_store
from tests.support.contracts.chunks import BATCH, OTHER, THIRD, Sent, arrivals, chunk, counts, origin

from .test_batches import everything, kinds, opened


class Gone(Exception):
    """An error in the middle."""


def fail() -> Counts:
    raise Gone


def test_a_rebuilt_index_replaces_the_old_one_only_when_whole(store: Store) -> None:
    opened(store)
    store.batches.record(chunk([Sent("a"), Sent("b", 1)]))
    before = everything(store)
    store.batches.open(origin("new"), OTHER, 1)
    with pytest.raises(Gone), store.batches.rebuild() as rebuild:
        rebuild.add_batch(replace(next(store.index.batches()), counts=fail()))
    with store.batches.rebuild() as rebuild:
        assert everything(store) != before  # OTHER was opened meanwhile
        batch = next(batch for batch in store.index.batches(BATCH))
        rebuild.add_batch(batch)
        rebuild.add_segments(arrivals(BATCH, 1, {1: Sent("a"), 2: Sent("b", 1)}), {})
        assert list(rebuild.settle()) == []
    assert [batch.batch_id for batch in store.index.batches()] == [BATCH]
    assert kinds(store, Sent("a"), Sent("b", 1)) == {
        Sent("a"): [(Verdict.ACCEPTED, BATCH, 1)],
        Sent("b", 1): [(Verdict.ACCEPTED, BATCH, 2)],
    }


def test_a_rebuild_and_writers_keep_apart(store: Store) -> None:
    with store.batches.writing("c"), pytest.raises(Busy), store.batches.rebuild():
        pass
    with store.batches.rebuild(), pytest.raises(BeingRebuilt), store.batches.writing("c"):
        pass
    with store.batches.rebuild(), pytest.raises(BeingRebuilt), store.batches.rebuild():
        pass
    with store.batches.rebuild():
        assert open_store(store.url).overview.rebuilding() is not None
    assert open_store(store.url).overview.rebuilding() is None
    with store.batches.writing("c"):
        pass


REBUILDER = """
import sys
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws import lease
generation.NOTICED = 0.01
with open_store(sys.argv[1]).batches.rebuild():
    pass
"""


def test_a_writer_that_was_there_before_a_rebuild_writes_to_the_new_index(store: Store) -> None:
    another = open_store(store.url)
    with another.batches.writing("c"):
        opened(another)
    subprocess.run([sys.executable, "-c", REBUILDER, store.url], check=True)
    with another.batches.writing("d"):
        opened(another, OTHER, "d")
    assert [batch.batch_id for batch in open_store(store.url).index.batches()] == [OTHER]


def test_a_rebuild_restores_verdicts_and_finds_a_winner_where_there_is_none(store: Store) -> None:
    """An accepted delivery whose raw is lost leaves duplicates; the first of them by time, batch and seq counts."""
    a, k = Sent("a"), Sent("k", 1, "x")
    conflict = Sent("k", 2, "y")
    for batch_id, content in ((BATCH, "c"), (OTHER, "d"), (THIRD, "e")):
        opened(store, batch_id, content)
    known = {batch.batch_id: batch for batch in store.index.batches()}
    lost: list[Location] = []
    with store.batches.rebuild() as rebuild:
        for batch_id, read in ((OTHER, 3), (THIRD, 2)):
            rebuild.add_batch(replace(known[batch_id], state=BatchState.COMPLETE, counts=counts(read, 0, exact=read)))
        # what BATCH had accepted is gone
        rebuild.add_segments(
            arrivals(THIRD, 1, {1: a, 2: conflict}, ingest_time=9), {1: Verdict.EXACT, 2: Verdict.CONFLICT}
        )
        rebuild.add_segments(
            arrivals(OTHER, 1, {1: a, 2: k, 3: a}, ingest_time=8),
            {1: Verdict.EXACT, 2: Verdict.EXACT, 3: Verdict.EXACT},
        )
        lost += rebuild.settle()
    assert {(place.event_id, place.batch_id, place.seq, place.kind) for place in lost} == {
        (a.event_id.hex(), OTHER, 1, Verdict.EXACT),
        (k.event_id.hex(), OTHER, 2, Verdict.EXACT),
    }
    assert kinds(store, a, k) == {
        a: [(Verdict.ACCEPTED, OTHER, 1), (Verdict.EXACT, OTHER, 3), (Verdict.EXACT, THIRD, 1)],
        k: [(Verdict.ACCEPTED, OTHER, 2), (Verdict.CONFLICT, THIRD, 2)],
    }
    assert {batch.batch_id: batch.counts for batch in store.index.batches()} == {
        OTHER: counts(3, 2, exact=1),
        THIRD: counts(2, 0, exact=1, conflict=1),
    }


def test_a_rebuild_without_verdicts_accepts_the_first_that_comes(store: Store) -> None:
    opened(store)
    batch = next(store.index.batches())
    with store.batches.rebuild() as rebuild:
        rebuild.add_batch(batch)
        rebuild.add_segments(arrivals(BATCH, 1, {4: Sent("k", 1, "x"), 2: Sent("k", 5, "y"), 3: Sent("a")}), None)
        rebuild.add_segments(arrivals(BATCH, 2, {7: Sent("a"), 8: Sent("b")}), None)
        assert list(rebuild.settle()) == []
    assert kinds(store, Sent("k", 1, "x"), Sent("a"), Sent("b")) == {
        Sent("k", 1, "x"): [(Verdict.ACCEPTED, BATCH, 2), (Verdict.CONFLICT, BATCH, 4)],
        Sent("a"): [(Verdict.ACCEPTED, BATCH, 3), (Verdict.EXACT, BATCH, 7)],
        Sent("b"): [(Verdict.ACCEPTED, BATCH, 8)],
    }
