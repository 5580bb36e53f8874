"""`make dist`: the same commit gives the same bytes everywhere, and the archives hold what they need, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pik import __version__
from pik.cli.app import COMMANDS
from tests.support.docs.console import REPOSITORY

WHEEL, SDIST = f"pik-{__version__}-py3-none-any.whl", f"pik-{__version__}.tar.gz"
AT = "1772445725"
LEFT_OUT = (".github/",)
"""What of the repository a source archive does without."""


def build(source: Path, into: Path, umask: int = 0o022) -> Path:
    """Build both archives of the source as `make dist` does; return their directory."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", into],
        cwd=source,
        env=os.environ | {"SOURCE_DATE_EPOCH": AT},
        umask=umask,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return into


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(REPOSITORY, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked somewhere else."""
    place = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built / SDIST) as archive:
        archive.extractall(place, filter="data")
    return place / SDIST.removesuffix(".tar.gz")


def test_the_unpacked_source_builds_the_same_bytes_in_another_directory(
    built: Path, unpacked: Path, tmp_path: Path
) -> None:
    (unpacked / "notes.txt").write_text("not part of it\n", encoding="utf-8")
    (unpacked / "pik" / "errors.py").touch()
    again = build(unpacked, tmp_path / "dist", umask=0o077)
    for name in (WHEEL, SDIST):
        assert (again / name).read_bytes() == (built / name).read_bytes()


def test_the_source_archive_holds_all_files_of_the_repository(unpacked: Path) -> None:
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
    if listed.returncode:
        pytest.skip("these tests run from a source archive, not from the repository")
    kept = {name for name in listed.stdout.splitlines() if (REPOSITORY / name).is_file()}
    wanted = {name for name in kept if not name.startswith(LEFT_OUT)}
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert sorted(wanted - found) == []
    assert found - wanted <= {"PKG-INFO", "notes.txt"}


def test_the_wheel_holds_the_package_and_its_man_pages(built: Path) -> None:
    with zipfile.ZipFile(built / WHEEL) as archive:
        names = archive.namelist()
    package = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "pik").rglob("*") if path.is_file()}
    assert {name for name in names if name.startswith("pik/")} == {
        name for name in package if "__pycache__" not in name
    }
    pages = {name.rpartition("/share/man/man1/")[2] for name in names if ".data/" in name}
    assert pages == {"pik.1", *(f"pik-{name}.1" for name in COMMANDS)}


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment_and_plays_the_demo(built: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    binaries = tmp_path / "venv" / "bin"
    pip: list[str | Path] = [binaries / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{built / WHEEL}[report,kafka]"], check=True)
    played = subprocess.run(
        [binaries / "pik", "demo", "--dir", "demo"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert played.returncode == 0, played.stderr
    assert "2 of 2 segments valid" in played.stdout
    assert (tmp_path / "venv" / "share" / "man" / "man1" / "pik-ingest.1").is_file()
    assert subprocess.run([binaries / "python", "-c", "import altair, confluent_kafka"], check=False).returncode == 0


@pytest.mark.slow
def test_the_source_archive_passes_its_own_tests_of_documents_and_archives(unpacked: Path) -> None:
    """Only the packages come from here; pik, its tests and its pages come from the archive."""
    tests = (
        "tests/docs/test_readme.py",
        "tests/docs/test_contributing.py",
        "tests/cli/test_docs.py",
        "tests/packaging",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *tests],
        cwd=unpacked,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
