"""Where an export is made: what killed ones have left is removed, and nothing of anybody else's."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pik.errors import UsageError
from pik.exporters import exporter
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.exporter import Layout
from pik.ports.store import Store
from pik.runtime import SILENT, Progress
from pik.usecases.export.export import export
from pik.usecases.export.place import hidden_directory

LAYOUT = Layout(Filter(ALL_TIME), "csv", "none")
FILES = ["e.csv", "e.csv.manifest.json"]

DIES = """
import os, signal, sys
from pathlib import Path
from pik.usecases.export import place as export_place
target = Path(sys.argv[1])
with export_place.hidden_directory(target) as hidden:
    for name in (target.name, f"{target.name}.manifest.json"):
        (hidden / name).write_text("of the dead")
    for name in sys.argv[2:]:
        export_place.publish(hidden / name, target.with_name(name))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(store: Store, target: Path) -> None:
    export(store, exporter(LAYOUT), target, SILENT, directory=False)


def killed(target: Path, *shown: str) -> Path:
    """What an export leaves that is killed before it, or after it has shown some files."""
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", DIES, target, *shown], env=settings, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = target.parent.glob(".e.csv.pik-*")
    return left


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "e.csv"


@pytest.mark.parametrize("shown", [(), ("e.csv.manifest.json",)])
def test_the_next_export_removes_what_a_killed_one_left(filled: Store, target: Path, shown: tuple[str, ...]) -> None:
    killed(target, *shown)
    run(filled, target)
    assert sorted(os.listdir(target.parent)) == FILES
    assert "of the dead" not in target.read_text() + target.with_name(FILES[1]).read_text()


def test_an_export_that_was_killed_when_all_was_shown_stands(filled: Store, target: Path) -> None:
    killed(target, "e.csv.manifest.json", "e.csv")
    with pytest.raises(UsageError, match=r"e\.csv exists already"):
        run(filled, target)
    assert sorted(os.listdir(target.parent)) == FILES
    assert target.read_text() == "of the dead"


def test_what_is_alive_or_of_others_stays(filled: Store, target: Path) -> None:
    others = [".f.csv.pik-abcdefgh", ".e.csv.pik-abc", ".e.csv.old", "e.csv.pik-abcdefgh"]
    for name in others:
        (target.parent / name).mkdir()
    (target.parent / ".e.csv.pik-aaaaaaaa").write_text("a file")
    with hidden_directory(target) as alive:
        (alive / "e.csv").write_text("being written")
        run(filled, target)
        assert (alive / "e.csv").read_text() == "being written"
    assert sorted(os.listdir(target.parent)) == sorted([*others, ".e.csv.pik-aaaaaaaa", *FILES])


def test_the_manifest_of_another_export_is_not_touched(filled: Store, target: Path) -> None:
    killed(target)
    manifest = target.with_name(FILES[1])
    manifest.write_text("mine")
    with pytest.raises(UsageError, match=r"e\.csv\.manifest\.json exists already"):
        run(filled, target)
    assert manifest.read_text() == "mine"


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_appears_meanwhile_is_not_overwritten(
    filled: Store, target: Path, name: str, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)

    class Meanwhile(Progress):
        def stop(self) -> None:
            target.with_name(name).write_text("mine")

    with pytest.raises(UsageError, match="exists already"):
        export(filled, exporter(LAYOUT), target, Meanwhile(), directory=False)
    assert target.with_name(name).read_text() == "mine"
    assert os.listdir(target.parent) == [name]


def test_a_directory_that_fills_meanwhile_is_not_replaced(filled: Store, tmp_path: Path) -> None:
    class Meanwhile(Progress):
        def stop(self) -> None:
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine").write_text("mine")

    with pytest.raises(UsageError, match="exists already"):
        export(filled, exporter(LAYOUT), tmp_path / "out", Meanwhile(), directory=True)
    assert os.listdir(tmp_path / "out") == ["mine"]


def test_a_file_system_without_links(filled: Store, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    run(filled, target)
    assert sorted(os.listdir(target.parent)) == FILES
    assert target.read_text().startswith("event_id")


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_directory_that_was_swept_before_it_was_locked_is_made_again(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    swept: list[Path] = []

    def late(handle: int, kind: int) -> None:
        if not swept:
            (path,) = target.parent.iterdir()
            path.rmdir()
            swept.append(path)
        lock(handle, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with hidden_directory(target) as hidden:
        assert hidden.is_dir()
        assert hidden != swept[0]
    assert os.listdir(target.parent) == []
