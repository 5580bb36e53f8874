"""Opening a local store: what its format says, and what is left alone."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from stat import S_IMODE

import pytest

from pik.errors import NotFound, StoreError, UsageError
from pik.stores import FORMAT, open_store
from pik.stores.local.catalog.rebuild import rebuilding
from pik.stores.local.catalog.tables import index_database
from pik.stores.local.lock import holding


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
    assert (refused.value.exit_code, refused.value.hint) == (4, "use the pik that wrote it, or a newer one")
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


def test_an_unknown_parameter_of_a_url_is_named_with_the_one_that_was_meant():
    with pytest.raises(UsageError, match=r"'aws://pik\?bucket=b' is not a store: unknown parameter 'bucket'") as error:
        open_store("aws://pik?bucket=b")
    assert error.value.hint.startswith("did you mean raw_bucket? ")


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


@pytest.mark.parametrize(
    ("directory", "file", "sealed"), [(0o2775, 0o664, 0o444), (0o2750, 0o640, 0o440), (0o700, 0o600, 0o400)]
)
@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_what_a_store_creates_is_for_those_whom_its_directory_is_for(tmp_path, directory, file, sealed, umask):
    """Else the first colleague to write on a day, or SQLite, would keep the others of a group out."""
    shared = tmp_path / "store"
    shared.mkdir()
    shared.chmod(directory)
    before = os.umask(umask)
    try:
        store = open_store(str(shared), create=True)
        store.raw.create("raw/event_date=2026-03-02/one.ndjson.zst", b"x")
        with holding(shared / "locks", "input"), index_database(shared).write() as connection:
            connection.execute("CREATE TABLE anything (x)")
            modes = Counter((path.is_dir(), S_IMODE(path.stat().st_mode)) for path in shared.rglob("*"))
        with rebuilding(shared / "index.db"):
            pass
    finally:
        os.umask(before)
    assert modes == {
        (True, directory): 3,  # tmp, raw and the day
        (False, sealed): 1,
        (False, file): 6,  # format.json, locks, two databases, and the log of one of them (two files)
    }
    assert S_IMODE((shared / "index.db").stat().st_mode) == file


def test_a_writer_without_write_permission_leaves_no_log_that_keeps_the_owner_out(store, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith(".db"))
    colleague = index_database(store)
    before = content(store)
    with pytest.raises(StoreError, match="is read-only"), colleague.write():
        pass
    assert colleague.read().execute("SELECT count(*) FROM batch").fetchone() == (0,)
    assert content(store) == before
