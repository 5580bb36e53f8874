"""A command inside a job of EMR Serverless: what `emr.py` put into S3 for it is read, what it says is put there.

Its standard output and error are objects of the job, not EMR's logs, which come late and packed, with Spark's own lines
among them. Its exit code is one, too: a difference that was found is not a job that failed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from pik.errors import StoreError
from pik.runtime.storage import scratch
from pik.stores.aws.clients import Clients, Refused, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REQUEST, FILES, STDOUT, STDERR, RESULT = "request.json", "files/", "stdout", "stderr/", "result.json"
"""The objects of a job: what it is to do, with files for it; what it wrote, standard error in numbered pieces; and its
exit code, once all of that is there."""

SENT_EVERY = 5
"""Seconds between two pieces of standard error."""


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The objects of one job, by names; their keys begin with `prefix`."""

    s3: S3Client
    bucket: str
    prefix: str

    @classmethod
    def at(cls, s3: S3Client, url: str) -> JobFiles:
        """Return those at `s3://BUCKET/PREFIX/`."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return cls(s3, bucket, prefix)

    @property
    def url(self) -> str:
        """Where they are."""
        return f"s3://{self.bucket}/{self.prefix}"

    def put(self, name: str, data: bytes) -> None:
        """Write an object. Raises StoreError."""
        with translated("s3"):
            self.s3.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=data)

    def read(self, name: str) -> bytes | None:
        """Return the content of an object; None: it is not there. Raises StoreError."""
        try:
            with translated("s3"):
                return self.s3.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
        except Refused as error:
            if error.code == "NoSuchKey":
                return None
            raise

    def upload(self, name: str, path: Path) -> None:
        """Write a file, however large. Raises StoreError."""
        with translated("s3"):
            self.s3.upload_file(str(path), self.bucket, self.prefix + name)

    def download(self, name: str, path: Path) -> None:
        """Fetch an object into a file. Raises StoreError."""
        with translated("s3"):
            self.s3.download_file(self.bucket, self.prefix + name, str(path))

    def names(self, start: str = "", after: str = "") -> Iterator[str]:
        """Yield the names that begin so and come after one, in their order. Raises StoreError."""
        pages = self.s3.get_paginator("list_objects_v2")
        since: Any = {"StartAfter": self.prefix + after} if after else {}
        with translated("s3"):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + start, **since):
                yield from (found["Key"].removeprefix(self.prefix) for found in page.get("Contents", ()))

    def remove(self) -> None:
        """Delete all of them. Raises StoreError."""
        for name in list(self.names()):
            with translated("s3"):
                self.s3.delete_object(Bucket=self.bucket, Key=self.prefix + name)


def run(
    url: str,
    region: str,
    versions: str,
    program: Callable[[], int],
    at_one_time: Callable[[int], AbstractContextManager[None]],
) -> None:
    """Run the command that the job at this URL is, by pik's `program`, unless the versions of what computes are others
    than those of the caller. Raises StoreError where S3 cannot be used."""
    files = JobFiles.at(Clients(region).client("s3"), url)
    request = json.loads(files.read(REQUEST) or b"{}")
    result: dict[str, object] = {"versions": versions}
    if request.get("versions") == versions:
        with scratch() as directory:
            work = directory / "work"
            work.mkdir()
            (work / "pik.toml").write_text(request["settings"], encoding="utf-8")
            for number, name in enumerate(request["files"]):
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                files.download(f"{FILES}{number}", work / name)
            os.chdir(work)
            os.environ.update(request["environment"])
            sys.argv = ["pik", *request["arguments"]]
            out, err = directory / "stdout", directory / "stderr"
            with _redirected(out, err), _sending(files, err), at_one_time(request["now"]):
                result["exit_code"] = program()
            files.upload(STDOUT, out)
            os.chdir(directory.parent)
    files.put(RESULT, json.dumps(result).encode())


@contextmanager
def _redirected(out: Path, err: Path) -> Iterator[None]:
    """Meanwhile, standard input is empty, and standard output and error are these files."""
    before = [os.dup(number) for number in range(3)]
    writing = os.O_WRONLY | os.O_CREAT
    now = [os.open(os.devnull, os.O_RDONLY), os.open(out, writing, 0o600), os.open(err, writing, 0o600)]
    _replace(now)
    try:
        yield
    finally:
        _replace(before)


def _replace(descriptors: list[int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)


@contextmanager
def _sending(files: JobFiles, path: Path) -> Iterator[None]:
    """Meanwhile, put whole lines of a file into S3 as they come, and in the end all of it."""
    ended = Event()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(_send, files, path, ended)
        try:
            yield
        finally:
            ended.set()
            sent.result()


def _send(files: JobFiles, path: Path, ended: Event) -> None:
    held, number, last = b"", 0, False
    with path.open("rb") as written:
        while not last:
            last = ended.wait(SENT_EVERY)
            sys.stderr.flush()
            held += written.read()
            piece = held if last else held[: held.rfind(b"\n") + 1]
            if not piece:
                continue
            try:
                files.put(f"{STDERR}{number:06}", piece)
            except StoreError:
                if last:
                    raise
            else:
                held, number = held[len(piece) :], number + 1
