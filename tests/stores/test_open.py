"""Opening a local store: what its format says, and what is left alone."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from pik.errors import NotFound, StoreError
from pik.stores import FORMAT, open_store


def content(store):
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path):
    """A store that a killed writer has left something in."""
    open_store(str(tmp_path / "store"), create=True)
    leftover = tmp_path / "store" / "tmp" / "leftover"
    leftover.write_text("half")
    os.utime(leftover, (0, 0))
    return tmp_path / "store"


def test_a_store_names_its_format_from_the_first_day(store):
    assert json.loads((store / "format.json").read_text()) == {"format": FORMAT}
    assert open_store(str(store)).format_version == FORMAT


@pytest.mark.parametrize("create", [False, True])
def test_a_newer_format_is_refused_and_nothing_is_touched(store, create):
    (store / "format.json").write_text(json.dumps({"format": FORMAT + 1}))
    before = content(store)
    with pytest.raises(StoreError, match=f"has format {FORMAT + 1}; this pik reads up to format {FORMAT}") as refused:
        open_store(str(store), create=create)
    assert (refused.value.exit_code, refused.value.hint) == (4, "pip install --upgrade pik")
    assert content(store) == before


def test_an_older_format_is_refused_and_nothing_is_touched(store):
    (store / "format.json").write_text(json.dumps({"format": FORMAT - 1}))
    before = content(store)
    with pytest.raises(StoreError, match=f"has format {FORMAT - 1}, which only an older pik reads") as refused:
        open_store(str(store))
    assert refused.value.exit_code == 4
    assert content(store) == before


@pytest.mark.parametrize("text", ["", "x", "{}", '{"format":"1"}', "[1]", "\xe9"])
def test_a_format_that_cannot_be_read_is_refused(store, text):
    (store / "format.json").write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match="does not name the format") as error:
        open_store(str(store), create=True)
    (store / "format.json").write_text(error.value.hint.removeprefix("it should say "))
    assert open_store(str(store)).format_version == FORMAT


def test_a_writer_removes_what_a_killed_one_left_long_ago(store):
    open_store(str(store))
    assert (store / "tmp" / "leftover").exists()
    open_store(str(store), create=True)
    assert not (store / "tmp" / "leftover").exists()


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StoreError, match="is a directory with other things in it"):
        open_store(str(tmp_path), create=True)
    with pytest.raises(NotFound):
        open_store(str(tmp_path))
    assert content(tmp_path) == {tmp_path / "mine": b"mine"}


def test_a_store_may_be_moved(store, tmp_path):
    shutil.move(store, tmp_path / "moved")
    assert open_store(str(tmp_path / "moved")).index.totals().deliveries == 0
