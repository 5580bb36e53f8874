"""The archive that executors of a cluster run from: this Python, pik and the packages that it needs, as they are here.

Tools that pack an environment leave its Python out (venv-pack, PEX) or need another kind of environment (conda-pack),
and take whatever else is installed. A cluster's Python is often older than pik's, and results are equal only where the
versions are; so everything comes from here, and nothing from an index of packages.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import IO

import pik
from pik.errors import StoreError, UsageError, command
from pik.runtime import Progress, showing
from pik.runtime.new_file import created_whole

PACKAGES = "packages"
"""The directory of the archive that has pik and what it needs."""

EXTRA = "spark"

_FROM_CLUSTER = {"pik", "pyspark", "py4j"}
"""What is not taken as a package: pik is copied from where it runs, the others must be those of the cluster."""

_UNUSED = {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tkinter"}
"""Directories of Python's library that executors do without."""

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

_START = f"""#!/bin/sh
# Starts this archive's Python, wherever it was unpacked.
top=$(dirname "$(dirname "$(readlink -f "$0")")")
PYTHONHOME=$top
PYTHONNOUSERSITE=1
PYTHONPATH=$top/{PACKAGES}${{PYTHONPATH:+:$PYTHONPATH}}
LD_LIBRARY_PATH=$top/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}
export PYTHONHOME PYTHONNOUSERSITE PYTHONPATH LD_LIBRARY_PATH
exec "$top/bin/python{_VERSION}" "$@"
"""


@dataclass(frozen=True, slots=True)
class PackReport:
    """The file that was written, its bytes and those of what it holds, its Python, and the version of each package."""

    path: str
    size: int
    unpacked: int
    python: str
    packages: Mapping[str, str]


def pack(path: Path, progress: Progress) -> PackReport:
    """Write this environment to a new .tar.gz file: the same bytes, whenever that is done. Raises UsageError for
    another kind of file, StoreError where something of the environment cannot be found."""
    if ":/" in str(path) and not path.parent.is_dir():  # a URL
        raise UsageError(
            f"-o {path}: it is written to a file here, which `aws s3 cp` copies",
            hint=command("cluster", "pack", "-o", path.name),
        )
    if not path.name.endswith((".tar.gz", ".tgz")):
        raise UsageError(
            f"-o {path}: it does not end in .tar.gz, by which Spark knows how to unpack it",
            hint=command("cluster", "pack", "-o", f"{path.parent / path.stem}.tar.gz"),
        )
    packages = {one.name: one for one in _needed()}
    files = {**_python(), **{f"{PACKAGES}/{name}": file for name, file in _packages(packages.values())}}
    unpacked = sum(file.stat().st_size for file in files.values())
    with (
        created_whole(path, "-o") as out,
        gzip.GzipFile("", "wb", 6, out, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        showing(progress, "packing", unpacked, "bytes"),
    ):
        for name, file in sorted(files.items()):
            with file.open("rb") as opened:
                found = os.fstat(opened.fileno())
                _add(archive, name, opened, found.st_size, executable=bool(found.st_mode & stat.S_IXUSR))
            progress.advance(found.st_size)
        start = _START.encode()
        _add(archive, "bin/python", io.BytesIO(start), len(start), executable=True)
    versions = {"pik": pik.__version__, **{name: one.version for name, one in sorted(packages.items())}}
    return PackReport(str(path), path.stat().st_size, unpacked, sys.version.split()[0], versions)


def _needed() -> Iterator[Distribution]:
    """Yield the packages that pik needs for Spark, and what those need, as far as they are installed here."""
    waiting, seen = [(_installed("pik"), EXTRA)], set(_FROM_CLUSTER)
    while waiting:
        of, extra = waiting.pop()
        for name in _requirements(of, extra):
            if name in seen:
                continue
            seen.add(name)
            try:
                found = distribution(name)
            except PackageNotFoundError:  # one of another system or version of Python
                continue
            yield found
            waiting.append((found, ""))


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise StoreError(
            f"{name} is not an installed package here", hint="in a copy of pik's repository: pip install ."
        ) from None


def _requirements(of: Distribution, extra: str) -> Iterator[str]:
    """Yield the names of what a package requires, also with an extra; conditions of systems are not looked at."""
    for line in of.requires or ():
        name, *condition = line.split(";", 1)
        wanted = re.search(r"extra == ['\"]([^'\"]+)", condition[0]) if condition else None
        if wanted is None or wanted[1] == extra:
            yield re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", name.strip(), maxsplit=1)[0]).lower()


def _packages(found: Iterable[Distribution]) -> Iterator[tuple[str, Path]]:
    """Yield the files of packages, pik first, by their place in the archive."""
    yield from _below(Path(pik.__file__).parent, "pik")
    for one in found:
        if one.files is None:
            raise StoreError(f"the package {one.name} does not say which files it has", hint=f"pip install {one.name}")
        for file in one.files:
            if ".." in file.parts or "__pycache__" in file.parts:
                continue
            path = Path(str(one.locate_file(file)))
            if not path.is_file():
                raise StoreError(
                    f"the package {one.name} lacks its file {file}", hint=f"pip install --force-reinstall {one.name}"
                )
            yield str(file), path


def _python() -> dict[str, Path]:
    """Return the files of this Python without packages: its program, its library, and what the program is linked to."""
    library = Path(sysconfig.get_path("stdlib"))
    base = Path(sys.base_prefix)
    files = dict(_below(library, str(library.relative_to(base))))
    files[f"bin/python{_VERSION}"] = Path(os.path.realpath(sys.executable))
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        name = str(sysconfig.get_config_var("INSTSONAME"))
        places = (Path(str(sysconfig.get_config_var("LIBDIR"))), base / "lib", base / "lib64")
        if found := [place / name for place in places if (place / name).is_file()]:
            files[f"lib/{name}"] = found[0]  # none: the program holds it
    return files


def _below(directory: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Yield the files below a directory by their place in the archive."""
    for place, directories, files in os.walk(directory):
        directories[:] = [one for one in directories if one not in _UNUSED and not one.startswith("config-")]
        inner = os.path.normpath(os.path.join(name, os.path.relpath(place, directory)))
        yield from ((f"{inner}/{one}", Path(place, one)) for one in files)


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int, *, executable: bool) -> None:
    """Add a file, without what differs from machine to machine."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o755 if executable else 0o644
    archive.addfile(info, content)
