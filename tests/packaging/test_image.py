"""The Dockerfile: its steps can be carried out, for both architectures, with locked packages and as an ordinary user.

No image is pulled or built here. The steps run in a directory instead, with this machine's Python.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.docs.console import REPOSITORY

DOCKERFILE = REPOSITORY / "Dockerfile"
LOCKS = ("packaging/image.lock", "packaging/build.lock")
PYTHON = "3.13"
"""That of the base image."""


class Instruction(NamedTuple):
    """A line of the Dockerfile, joined with those that continue it."""

    name: str
    text: str


def instructions() -> list[Instruction]:
    """Return the instructions of all stages, without comments."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [Instruction(*line.split(" ", 1)) for line in joined.splitlines() if line]


def copied() -> list[tuple[list[str], str]]:
    """Return what each COPY takes from the repository, and where to."""
    words = [one.text.split() for one in instructions() if one.name == "COPY" and "--from" not in one.text]
    return [(sources, target) for *sources, target in words]


def pinned(lock: str) -> dict[str, set[str]]:
    """Return the hashes of each package of a lock, by its name and version."""
    text = (REPOSITORY / lock).read_text(encoding="utf-8")
    entries = re.findall(r"^(\S+==\S+)((?:.*\\\n {4}--hash=\S+)+)", text, re.MULTILINE)
    return {name: set(re.findall(r"--hash=(\S+)", hashes)) for name, hashes in entries}


@pytest.mark.parametrize("lock", LOCKS)
def test_its_packages_are_those_of_requirements_lock(lock: str) -> None:
    everything = pinned("requirements.lock")
    assert len(pinned(lock)) > 4
    for package, hashes in pinned(lock).items():
        assert hashes == everything[package], package


def test_it_has_what_pik_imports_at_run_time_and_nothing_of_development() -> None:
    names = {package.partition("==")[0] for package in pinned("packaging/image.lock")}
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    required = re.findall(r'"([\w-]+)>=', project.partition("\ndependencies = [")[2].partition("]")[0])
    assert set(required) <= names
    assert not names & {"pytest", "mypy", "ruff", "moto", "hatchling", "aws-lambda-powertools", "altair"}


def test_what_it_copies_is_there_and_is_sent_to_the_builder() -> None:
    sent = re.findall(r"^!(\S+)$", (REPOSITORY / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    sources = [source for sources, _ in copied() for source in sources]
    assert len(sources) >= 7
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert any(fnmatch(source, pattern) for pattern in sent), source


def test_it_ends_as_an_ordinary_user_whose_store_is_a_volume() -> None:
    last = instructions()[max(at for at, one in enumerate(instructions()) if one.name == "FROM") :]
    found = {one.name: one.text for one in last}
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", found["USER"])  # a number: Kubernetes cannot tell that a name is not root
    assert found["WORKDIR"] == found["VOLUME"] == "/data"
    assert found["ENTRYPOINT"] == '["pik"]'


@pytest.mark.slow
def test_its_steps_make_a_pik_that_plays_the_demo(tmp_path: Path) -> None:
    build, binaries = tmp_path / "build", tmp_path / "bin"
    build.mkdir()
    binaries.mkdir()
    (binaries / "python").symlink_to(sys.executable)
    for one in instructions():
        if one.name == "COPY" and "--from" not in one.text:  # between stages nothing is copied: here they share a disk
            _copy(one.text, build)
        if one.name == "RUN" and "useradd" not in one.text:
            _run(one.text.replace("/opt/", f"{tmp_path}/opt/").replace("/build/", f"{build}/"), build, binaries)
    played = _run(f"{tmp_path}/opt/pik/bin/pik demo --dir demo", tmp_path, binaries)
    assert "2 of 2 segments valid" in played


def _copy(text: str, build: Path) -> None:
    *sources, target = text.split()
    for source in sources:
        into = build / target / Path(source).name if target.endswith("/") else build / target
        into.parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / source, into)


def _run(command: str, directory: Path, binaries: Path) -> str:
    path = f"{binaries}:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=directory,
        env=os.environ | {"PATH": path},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_a_wheel_for_both_architectures(machine: str, lock: str, tmp_path: Path) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (41, 34, 28, 27, 26, 17)]
    platforms.append(f"--platform=manylinux2014_{machine}")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "-r",
        lock,
    ]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}", *platforms, "-d", tmp_path]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
