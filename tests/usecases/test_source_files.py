"""What a path, or standard input, must be to be an input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pik.errors import InputError
from pik.inputs.source import file_source
from tests.support.stores import digest


def test_paths_that_are_no_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory") as error:
        file_source(str(tmp_path))
    assert error.value.hint == "give a file in it"
    with pytest.raises(InputError, match="there is no file"):
        file_source(str(tmp_path / "none"))
    (tmp_path / "gone").touch()
    gone = file_source(str(tmp_path / "gone"))
    (tmp_path / "gone").unlink()
    with pytest.raises(InputError, match=r"cannot read .*gone: No such file"), gone.open():
        pass


def test_a_name_that_is_not_utf8_is_shown_escaped(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")
    Path(path).write_bytes(b"{}\n")
    source = file_source(path)
    assert source.name == f"{tmp_path}/caf\\xe9.jsonl"
    assert digest(source) == digest(file_source(path))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "the name of a file is empty"),
        ("/tmp", "/tmp is a directory"),
        ("/tmp/" + "x" * 300, "cannot read '/tmp/xxx"),
        ("no\0name", "cannot read 'no"),
        ("/nowhere/at/all", "there is no file /nowhere/at/all"),
    ],
)
def test_what_is_not_a_readable_file_is_an_input_error(path: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        file_source(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no /proc")
def test_a_file_that_cannot_be_read_to_its_end_is_an_input_error_that_names_it() -> None:
    with pytest.raises(InputError, match="cannot read /proc/self/mem: "):
        digest(file_source("/proc/self/mem"))


def test_standard_input_that_is_closed_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        file_source("-")
