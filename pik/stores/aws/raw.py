"""Raw in an S3 bucket. Objects appear whole; If-None-Match keeps a key from being written twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pik.errors import AlreadyExists, Damaged, StoreError
from pik.ports.raw import Object, RawObject
from pik.stores import missing, scratch
from pik.stores.aws.clients import Clients, Refused, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

_DOWNLOADS = 8


@dataclass(frozen=True, slots=True)
class AwsRaw:
    """The objects of a bucket."""

    clients: Clients
    bucket: str

    @property
    def _s3(self) -> S3Client:
        return self.clients.client("s3")

    def create(self, key: str, data: bytes) -> None:
        try:
            with translated("s3"):
                self._s3.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*", ChecksumAlgorithm="SHA256")
        except Refused as error:
            # 409: another writer is creating the same key.
            if error.code not in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
                raise
            # A connection that was lost after the write makes boto3 write again and find its own object.
            if not (error.retried and self._holds(key, data)):
                raise AlreadyExists(f"raw object {key} exists already; raw is never overwritten") from None

    def create_all(self, objects: Sequence[Object]) -> None:
        for key, data in objects:
            self.create(key, data)

    def _holds(self, key: str, data: bytes) -> bool:
        return self.size(key) == len(data) and sha256(self.read(key)).digest() == sha256(data).digest()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        end = "" if length is None else offset + length - 1
        where: dict[str, Any] = {"Range": f"bytes={offset}-{end}"} if offset or length is not None else {}
        try:
            with translated("s3"):
                data = self._body(self._s3.get_object(Bucket=self.bucket, Key=key, **where))
        except Refused as error:
            if error.code == "InvalidRange":
                if length is None and self.size(key) == offset:
                    return b""
                raise _short(key, offset, length) from None
            if error.code in ("NoSuchKey", "404"):
                raise missing(key) from None
            raise
        if length is not None and len(data) < length:
            raise _short(key, offset, length)
        return data

    def _body(self, answer: GetObjectOutputTypeDef) -> bytes:
        from botocore.exceptions import BotoCoreError

        try:
            return answer["Body"].read()
        except (BotoCoreError, OSError) as error:
            raise StoreError(f"the connection to S3 broke while an object was read: {error}") from None

    def size(self, key: str) -> int | None:
        try:
            with translated("s3"):
                return self._s3.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
        except Refused as error:
            if error.code in ("404", "NoSuchKey", "NotFound"):
                return None
            raise

    def objects(self, prefix: str) -> Iterator[RawObject]:
        with translated("s3"):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for found in page.get("Contents", ()):
                    yield RawObject(found["Key"], found["Size"])

    @contextmanager
    def files(self, keys: Sequence[str]) -> Iterator[list[Path]]:
        with self.scratch() as directory, ThreadPoolExecutor(_DOWNLOADS) as pool:

            def download(key: str) -> Path:
                path = directory / key.replace("/", "_")
                path.write_bytes(self.read(key))
                return path

            yield list(pool.map(download, keys))

    def scratch(self) -> AbstractContextManager[Path]:
        return scratch()


def _short(key: str, offset: int, length: int | None) -> Damaged:
    return Damaged(f"raw object {key} ends before byte {offset + (length or 0)}", hint="pik verify --full")
