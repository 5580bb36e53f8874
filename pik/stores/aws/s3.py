"""S3: raw in the store's bucket, and objects of any bucket as files to ingest."""

from __future__ import annotations

import re
import shlex
from base64 import b64decode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pik.errors import AlreadyExists, Damaged, InputError, NoAccess, PikError, StoreError, Unreadable, UsageError
from pik.ports.raw import Object, RawObject
from pik.ports.remote import ForeignFile
from pik.runtime.retries import attempts
from pik.runtime.storage import scratch
from pik.stores import missing
from pik.stores.aws.clients import Clients, Refused, denied, translated
from pik.stores.aws.read_ahead import ReadAhead

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ObjectTypeDef

PAGE = 1000
"""Objects that one call lists."""

_DOWNLOADS = 8
_PACKED = "compact/", "index/"
"""What the keys of large objects begin with whose parts are read in their order."""
_ARCHIVED = {"InvalidObjectState"}
_ABSENT = {"404", "NoSuchKey", "NotFound"}


@dataclass(frozen=True, slots=True)
class AwsRaw:
    """The objects of a bucket."""

    clients: Clients
    bucket: str
    _ahead: ReadAhead = field(default_factory=ReadAhead, repr=False, compare=False)

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

    def remove(self, key: str) -> None:
        """Delete an object of the index, if it is there. What is raw is never deleted."""
        assert key.startswith(_PACKED), key
        with translated("s3"):
            self._s3.delete_object(Bucket=self.bucket, Key=key)

    def create_all(self, objects: Sequence[Object]) -> None:
        for key, data in objects:
            self.create(key, data)

    def _holds(self, key: str, data: bytes) -> bool:
        return self.size(key) == len(data) and sha256(self.read(key)).digest() == sha256(data).digest()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        if length is not None and key.startswith(_PACKED):
            data = self._ahead.read(key, offset, length, self._read)
        else:
            data = self._read(key, offset, length)
        if length is not None and len(data) < length:
            raise _short(key, offset, length)
        return data

    def _read(self, key: str, offset: int, length: int | None) -> bytes:
        """Return bytes of an object, fewer than `length` only at its end. Raises as `read` does."""
        end = "" if length is None else offset + length - 1
        where: dict[str, Any] = {"Range": f"bytes={offset}-{end}"} if offset or length is not None else {}
        try:
            with translated("s3"):
                answer = self._s3.get_object(Bucket=self.bucket, Key=key, **where)
        except Refused as error:
            if error.code == "InvalidRange":
                if length is None and self.size(key) == offset:
                    return b""
                raise _short(key, offset, length) from None
            if error.code in ("NoSuchKey", "404"):
                raise missing(key) from None
            if denied(error) or error.code in _ARCHIVED or error.code.startswith("KMS."):
                raise Unreadable(f"raw object {key}", error.message, hint=error.hint) from None
            raise
        data, reason = _body(answer)
        if data is None:
            raise StoreError(f"the connection to S3 broke while an object was read: {reason}")
        return data

    def size(self, key: str) -> int | None:
        try:
            with translated("s3"):
                return self._s3.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
        except Refused as error:
            if error.code in _ABSENT:
                return None
            if not denied(error):
                raise
            return next((found.size for found in self.objects(key) if found.key == key), None)  # needs another right

    def stored_digest(self, key: str) -> str | None:
        try:
            with translated("s3"):
                answer = self._s3.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
        except Refused as error:
            if error.code in _ABSENT:
                raise missing(key) from None
            if denied(error) or error.code == "400":  # the answer to HEAD has no other word for a key of KMS
                raise Unreadable(f"raw object {key}", error.message, hint=error.hint) from None
            raise
        digest = answer.get("ChecksumSHA256", "-")
        return None if "-" in digest else b64decode(digest).hex()  # of an upload in parts it is that of their digests

    def objects(self, prefix: str, *, after: str = "") -> Iterator[RawObject]:
        """Yield those whose key comes after `after`, PAGE of them per call."""
        request: Any = {"Bucket": self.bucket, "Prefix": prefix, **({"StartAfter": after} if after else {})}
        with translated("s3"):
            for page in self._s3.get_paginator("list_objects_v2").paginate(**request):
                for found in page.get("Contents", ()):
                    yield RawObject(found["Key"], found["Size"])

    @contextmanager
    def files(self, keys: Sequence[str]) -> Iterator[list[Path]]:
        with scratch() as directory, ThreadPoolExecutor(_DOWNLOADS) as pool:

            def download(key: str) -> Path:
                path = directory / key.replace("/", "_")
                path.write_bytes(self.read(key))
                return path

            yield list(pool.map(download, keys))


def _short(key: str, offset: int, length: int | None) -> Damaged:
    return Damaged(f"raw object {key} ends before byte {offset + (length or 0)}", hint="pik verify --full")


_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MAGIC = re.compile(r"[*?\[]")
_GLOB = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class S3Files:
    """Finds and reads objects with the caller's own credentials. A file's version is its ETag."""

    clients: Clients

    @property
    def _s3(self) -> S3Client:
        return self.clients.client("s3")

    def find(self, url: str) -> list[ForeignFile]:
        bucket, key = _parts(url)
        found = self._matching(bucket, key) if _MAGIC.search(key) else [self._one(bucket, key)]
        if not found:
            place = f"s3://{bucket}/{_prefix(key)}"
            raise InputError(f"no object matches {url}", hint=f"aws s3 ls {place} lists what is there")
        return found

    def read(self, file: ForeignFile, offset: int, length: int) -> bytes:
        bucket, key = _parts(file.name)
        reason = ""
        for _ in attempts():
            try:
                with _reading(file.name, bucket):
                    answer = self._s3.get_object(
                        Bucket=bucket,
                        Key=key,
                        Range=f"bytes={offset}-{offset + length - 1}",
                        IfMatch=file.version,
                    )
            except Refused as error:
                if error.code in _ABSENT | {"PreconditionFailed", "412", "InvalidRange"}:
                    raise InputError(
                        f"{file.name} changed while it was being read",
                        hint="what was read is kept; ingest the object again when nothing writes to it",
                    ) from None
                raise
            data, reason = _body(answer)
            if data is not None:
                return data
        raise StoreError(f"{file.name}: the connection broke again and again: {reason}", hint="run this again to go on")

    def _one(self, bucket: str, key: str) -> ForeignFile:
        url = f"s3://{bucket}/{key}"
        try:
            with _reading(url, bucket):
                head = self._s3.head_object(Bucket=bucket, Key=key)
        except Refused as error:
            if error.code not in _ABSENT:
                raise
            raise self._absent(bucket, url) from None
        return ForeignFile(url, head["ContentLength"], head["ETag"])

    def _absent(self, bucket: str, url: str) -> PikError:
        """Return the error for an absent object. The answer to HEAD does not tell whether the bucket exists."""
        try:
            with translated("s3"):
                self._s3.head_bucket(Bucket=bucket)
        except Refused as error:
            if error.code in _ABSENT | {"NoSuchBucket"}:
                return _no_bucket(bucket)
        return InputError(f"there is no object {url}", hint=f"aws s3 ls {url.rpartition('/')[0]}/ lists what is there")

    def _matching(self, bucket: str, key: str) -> list[ForeignFile]:
        """Return what matches the glob, or the object whose key it literally is, as with files."""
        pattern = _pattern(key)
        found = []
        for each in self._listed(bucket, _prefix(key)):
            if each["Key"] == key:
                return [ForeignFile(f"s3://{bucket}/{key}", each["Size"], each["ETag"])]
            if pattern.fullmatch(each["Key"]) and not each["Key"].endswith("/"):  # a directory, as consoles make them
                found.append(ForeignFile(f"s3://{bucket}/{each['Key']}", each["Size"], each["ETag"]))
        return found

    def _listed(self, bucket: str, prefix: str) -> Iterator[ObjectTypeDef]:
        try:
            with _reading(f"s3://{bucket}/{prefix}", bucket):
                for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                    yield from page.get("Contents", ())
        except Refused as error:
            if error.code != "NoSuchBucket":
                raise
            raise _no_bucket(bucket) from None


@contextmanager
def _reading(url: str, bucket: str) -> Iterator[None]:
    try:
        with translated("s3"):
            yield
    except Refused as error:
        if not denied(error):
            raise
        raise NoAccess(
            f"S3 denies reading {url}: {error.message.partition(': ')[2]}",
            hint=f"it takes s3:GetObject on arn:aws:s3:::{bucket}/* and s3:ListBucket on arn:aws:s3:::{bucket}",
        ) from None


def _parts(url: str) -> tuple[str, str]:
    """Return bucket and key. Raises UsageError."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{url} names no bucket", hint="s3://BUCKET/KEY, or a glob: 's3://BUCKET/PREFIX/*.jsonl.gz'")
    if not key or key.endswith("/"):
        raise UsageError(f"{url} names no object", hint=f"all objects below it: {shlex.quote(url.rstrip('/') + '/*')}")
    return bucket, key


def _prefix(key: str) -> str:
    """Return the part of a key before its first magic character."""
    return _MAGIC.split(key, maxsplit=1)[0]


def _pattern(glob: str) -> re.Pattern[str]:
    """Return a glob's pattern, as for files: `*` and `?` match within a part of a path, `**` any number of parts."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(one) or _literal(one) for one in _GLOB.findall(glob)), re.DOTALL)


def _literal(one: str) -> str:
    if len(one) == 1:
        return re.escape(one)
    inner = one[1:-1].replace("\\", "\\\\").replace("[", "\\[")
    return f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"


def _body(answer: GetObjectOutputTypeDef) -> tuple[bytes | None, str]:
    """Return the content, or why it broke off."""
    from botocore.exceptions import BotoCoreError

    try:
        return answer["Body"].read(), ""
    except (BotoCoreError, OSError) as error:
        return None, str(error)


def _no_bucket(bucket: str) -> InputError:
    return InputError(f"there is no bucket {bucket}", hint="aws s3 ls lists the buckets of this account")
