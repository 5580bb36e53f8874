"""A store says which format it has, and a program of another format refuses it, in the same words everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pik.errors import StoreError
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import FORMAT, open_store
from pik.stores.aws.catalog.index import AwsIndex
from pik.stores.aws.table import Item, Key
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request

EVENT = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-01-31T00:00:00Z", "payload": {}}
POINTER: Key[Item] = Key(("generation", "generation"))


def write(store: Store) -> None:
    record_request(store, json.dumps(EVENT).encode())


def said(store: Store) -> int | None:
    """The format that the store says it has."""
    if isinstance(store.index, AwsIndex):
        return (store.index.table.get(POINTER) or {}).get("format")
    found: int = json.loads((Path(store.url) / "format.json").read_bytes())["format"]
    return found


def say(store: Store, version: int) -> None:
    if isinstance(store.index, AwsIndex):
        store.index.table.update(POINTER, "SET #format = :format", {"format": version})
    else:
        (Path(store.url) / "format.json").write_text(json.dumps({"format": version}))


@pytest.mark.parametrize(
    ("version", "sentence", "hint"),
    [
        (
            FORMAT + 1,
            f"has format {FORMAT + 1}; this pik reads up to format {FORMAT}",
            "use the pik that wrote it, or a newer one",
        ),
        (
            FORMAT - 1,
            f"has format {FORMAT - 1}, which only an older pik reads; this one reads {FORMAT}",
            "ingest its inputs into a new store, or use the pik that wrote it",
        ),
    ],
)
def test_a_store_of_another_format_is_refused(store: Store, version: int, sentence: str, hint: str) -> None:
    write(store)
    assert said(store) == FORMAT
    say(store, version)
    with pytest.raises(StoreError) as refused:
        open_store(store.url)
    assert (refused.value.message, refused.value.hint) == (f"the store at {store.url} {sentence}", hint)
    say(store, FORMAT)
    assert open_store(store.url).index.totals().batches == 1


def test_a_rebuild_keeps_what_the_store_says(store: Store) -> None:
    write(store)
    rebuild_index(store, SILENT)
    assert said(store) == FORMAT
    write(open_store(store.url))
    assert said(store) == FORMAT


@pytest.mark.parametrize("kind", ["aws"])
def test_the_first_write_to_a_stack_says_it_and_no_later_one_changes_it(
    new_store: Callable[[], Store], kind: str
) -> None:
    store: Any = new_store()
    assert said(store) is None
    write(store)
    assert said(store) == FORMAT
    say(store, FORMAT + 1)
    other = open_other(store)
    with pytest.raises(StoreError, match=f"has format {FORMAT + 1}"):
        other.requests.expect_ready()  # what a request asks before it writes its object
    assert said(store) == FORMAT + 1


def open_other(store: Any) -> Store:
    """The same stack's store as a function opens it, which looks when it first reads or writes."""
    from pik.stores.aws.catalog.generation import Generation

    store.batches.generation = Generation(store.index.table, store.url)
    found: Store = store
    return found


@pytest.mark.parametrize("kind", ["aws"])
def test_an_index_that_was_lost_whole_is_made_again_with_it(store: Any) -> None:
    write(store)
    for item in list(store.index.table.scan("pk", "sk")):
        store.index.table.delete((item["pk"], item["sk"]))
    rebuild_index(open_store(store.url), SILENT)
    assert said(store) == FORMAT
