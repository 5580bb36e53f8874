"""Promise 2: whatever is lost or damaged in raw, its whole copy from elsewhere makes every answer what it was, and what
is damaged stays as it is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pik.errors import InputError, UsageError
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.replacements import COPIES, RECORDS, ReplacingRaw, read_replacement
from pik.runtime import SILENT
from pik.stores import open_foreign, open_store
from pik.stores.aws.s3 import AwsRaw
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.restore_raw import Outcome, RestoreReport, restore_raw
from pik.usecases.care.restore_source import open_source
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Problem, VerifyReport, depth_of
from pik.usecases.inspect.batches import list_rejects
from tests.contracts.conftest import LOCAL_FIRST
from tests.support.contracts.harm import fill
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.stores import PlainEngine


@dataclass(frozen=True)
class Objects:
    """Raw of a store with everything, and a copy of it in a directory."""

    store: Store
    copy: Path

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.copy)) for path in self.copy.rglob("*") if path.is_file())

    def whole(self, key: str) -> bytes:
        return (self.copy / key).read_bytes()

    def here(self, key: str) -> bytes | None:
        """The object as it lies there, whatever replaces it."""
        assert isinstance(self.store.raw, ReplacingRaw)
        raw = self.store.raw.raw
        return None if raw.size(key) is None else raw.read(key)

    def delete(self, key: str) -> None:
        bucket = self._bucket()
        if bucket is None:
            (Path(self.store.url) / key).unlink()
        else:
            bucket[0].delete_object(Bucket=bucket[1], Key=key)

    def overwrite(self, key: str, data: bytes) -> None:
        bucket = self._bucket()
        if bucket is None:
            path = Path(self.store.url) / key
            path.chmod(0o644)
            path.write_bytes(data)
        else:
            bucket[0].put_object(Bucket=bucket[1], Key=key, Body=data)

    def flip(self, key: str) -> bytes:
        """Flip a bit in the middle; the object as it is then."""
        data = bytearray(self.whole(key))
        data[len(data) // 2] ^= 4
        self.overwrite(key, bytes(data))
        return bytes(data)

    def _bucket(self) -> tuple[Any, str] | None:
        assert isinstance(self.store.raw, ReplacingRaw)
        raw = self.store.raw.raw
        return (raw.clients.client("s3"), raw.bucket) if isinstance(raw, AwsRaw) else None

    def again(self) -> Objects:
        """Opened by another process."""
        return Objects(open_store(self.store.url), self.copy)

    def restore(self, source: Path | str | None = None, **options: Any) -> RestoreReport:
        found = open_source(str(source or self.copy), lambda: open_foreign(self.store.url))
        return restore_raw(self.store, found, ALL_TIME, SILENT, **options)

    def verify(self) -> tuple[list[Problem], VerifyReport]:
        listing = verify(self.store, PlainEngine(), ALL_TIME, SILENT)
        return list(listing), listing.summary


@pytest.fixture
def objects(store: Store, tmp_path: Path) -> Objects:
    fill(store, tmp_path)
    return copied(store, tmp_path / "copy")


def copied(store: Store, directory: Path) -> Objects:
    for prefix in ("raw/", "corrections/"):
        for found in store.raw.objects(prefix):
            path = directory / found.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.raw.read(found.key))
    return Objects(store, directory)


def answers(store: Store) -> list[Any]:
    batches = list(store.index.batches())
    return [
        sorted((found.kind, found.line) for found in deliveries(store, Filter(ALL_TIME))),
        [(batch.batch_id, batch.origin, batch.counts) for batch in batches],
        [list(list_rejects(store, batch)) for batch in batches],
        store.index.totals(),
    ]


def immaterial(key: str) -> bool:
    """Openings and blocks of finished batches, which nothing misses."""
    return key.startswith((RawKind.OPENING, RawKind.BLOCK))


def test_whatever_is_lost_is_created_again(objects: Objects) -> None:
    before = answers(objects.store)
    gone = [key for key in objects.names() if not immaterial(key)]
    assert {RawKind(kind) for kind in RawKind if any(key.startswith(kind) for key in gone)} >= {
        *(RawKind.SEGMENT, RawKind.REJECTS, RawKind.BATCH, RawKind.CLOSING, RawKind.CORRECTION)
    }
    for key in gone:
        objects.delete(key)
    done = objects.restore()
    assert {(one.key, one.outcome) for one in done.objects} == {(key, Outcome.RESTORED) for key in gone}
    assert {key: objects.here(key) for key in gone} == {key: objects.whole(key) for key in gone}
    assert objects.verify()[0] == []
    assert answers(objects.store) == before
    assert objects.restore().objects == ()


@pytest.mark.parametrize("kind", LOCAL_FIRST)
def test_whatever_is_damaged_stays_and_its_copy_is_read(objects: Objects) -> None:
    before = answers(objects.store)
    damaged = {key: objects.flip(key) for key in objects.names()}
    done = objects.restore(actor="ana")
    assert {(one.key, one.outcome) for one in done.objects} == {(key, Outcome.REPLACED) for key in damaged}
    for each in (objects, objects.again()):
        problems, report = each.verify()
        assert (problems, sorted(report.replaced)) == ([], sorted(damaged))
        assert answers(each.store) == before
        assert {key: each.here(key) for key in damaged} == damaged
    rebuild_index(objects.store, SILENT, "ana")
    after = objects.again()
    assert after.verify()[0] == []
    assert answers(after.store) == before
    for key, data in damaged.items():
        line = read_replacement(after.store.raw, f"{RECORDS}1/{key}")
        assert (line.key, line.copy, line.actor) == (key, f"{COPIES}1/{key}", "ana")
        assert (line.digest, line.damaged) == (sha256(objects.whole(key)).hexdigest(), sha256(data).hexdigest())
        assert objects.here(line.copy) == objects.whole(key)


@pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])
def test_promise_2_a_copy_that_is_damaged_is_replaced_by_another(objects: Objects) -> None:
    key = next(key for key in objects.names() if key.startswith(RawKind.SEGMENT))
    objects.flip(key)
    objects.restore()
    objects.overwrite(f"{COPIES}1/{key}", b"x")
    assert [(one.what, one.kind) for one in objects.again().verify()[0]] == [(key, "modified")]
    again = objects.again()
    assert [one.outcome for one in again.restore().objects] == [Outcome.REPLACED]
    assert (again.verify()[0], again.here(f"{COPIES}1/{key}")) == ([], b"x")
    assert again.here(f"{COPIES}2/{key}") == objects.whole(key)
    again.delete(f"{COPIES}2/{key}")
    assert [one.outcome for one in again.restore().objects] == [Outcome.REPLACED]
    assert again.verify()[0] == []
    again.delete(key)  # which nobody needs any more
    assert again.verify()[0] == []


@pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])
@pytest.mark.parametrize("source", ["quick", "full"])
def test_a_dry_run_creates_nothing_and_says_the_same(objects: Objects, source: str) -> None:
    segments = [key for key in objects.names() if key.startswith(RawKind.SEGMENT)]
    objects.delete(segments[0])
    data = objects.whole(segments[1])
    objects.overwrite(segments[1], data + b"\0")
    full = source == "full"
    depth = depth_of(quick=not full, full=full)
    said = objects.restore(depth=depth, dry_run=True)
    assert (objects.here(segments[0]), list(objects.store.raw.objects(COPIES))) == (None, [])
    assert objects.restore(depth=depth) == said
    assert objects.verify()[0] == []


@pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])
def test_what_the_source_lacks_or_has_otherwise_is_reported_for_each_object(objects: Objects, tmp_path: Path) -> None:
    """The others are restored, from under whatever name they lie there."""
    segments = [key for key in objects.names() if key.startswith(RawKind.SEGMENT)]
    lost, other, there, renamed = segments[:4]
    record = next(key for key in objects.names() if key.startswith(RawKind.BATCH))
    for key in (lost, other, there, renamed, record):
        objects.delete(key)
    some = tmp_path / "some"
    for key, name, data in (
        (other, other, objects.whole(lost)),
        (there, there.removeprefix("raw/"), objects.whole(there)),
        (renamed, "deep/er/anything", objects.whole(renamed)),
        (record, record, objects.whole(record)[:-1]),
    ):
        assert objects.here(key) is None
        (some / name).parent.mkdir(parents=True, exist_ok=True)
        (some / name).write_bytes(data)
    said = {one.key: one for one in objects.restore(some).objects}
    # The object under the wrong name is the lost one.
    assert {key: one.outcome for key, one in said.items()} == {
        lost: Outcome.RESTORED,
        other: Outcome.OTHER,
        there: Outcome.RESTORED,
        renamed: Outcome.RESTORED,
        record: Outcome.OTHER,
    }
    assert "SHA-256" in said[other].detail
    assert (objects.here(other), objects.here(record)) == (None, None)
    for nothing in (tmp_path / "empty", tmp_path / "odd.bin"):
        nothing.mkdir() if nothing.name == "empty" else nothing.write_bytes(b"\0odd")
        assert {one.outcome for one in objects.restore(nothing).objects} == {Outcome.ABSENT}
    done = objects.restore(objects.copy / other)  # a single file
    assert {one.key: one.outcome for one in done.objects} == {other: Outcome.RESTORED, record: Outcome.ABSENT}
    with pytest.raises(InputError, match="there is no"):
        open_source(str(tmp_path / "nowhere"), lambda: open_foreign(objects.store.url))


@pytest.mark.parametrize("kind", ["local"])
def test_a_segment_whose_record_and_index_are_lost_is_restored_after_the_record(objects: Objects) -> None:
    """Only the record knows its digest."""
    key = next(
        key for key in objects.names() if key.startswith(RawKind.SEGMENT) and objects.store.raw.size(record(key))
    )
    before = answers(objects.store)
    objects.flip(key)
    objects.delete(record(key))
    forget_index(objects.store)
    store = open_store(objects.store.url)
    rebuild_index(store, SILENT)
    blind = Objects(store, objects.copy)
    nothing = objects.copy.parent / "nothing"
    nothing.mkdir()
    assert Outcome.UNKNOWN in {one.outcome for one in blind.restore(nothing).objects}
    blind.store.raw.create(record(key), objects.whole(record(key)))
    assert key in {one.key for one in blind.restore().objects if one.outcome == Outcome.REPLACED}
    rebuild_index(blind.store, SILENT)
    assert blind.verify()[0] == []
    assert {line for _, line in answers(blind.store)[0]} == {line for _, line in before[0]}


def record(key: str) -> str:
    return RawKind.BATCH.key(key.rpartition("/")[2].partition("-")[0])


def forget_index(store: Store) -> None:
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (Path(store.url) / name).unlink(missing_ok=True)


@pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_the_same_command_ends_the_same(objects: Objects, after: bool) -> None:
    segments = [key for key in objects.names() if key.startswith(RawKind.SEGMENT)][:3]
    objects.delete(segments[0])
    for key in segments[1:]:
        objects.flip(key)
    counting = 0
    for number in range(1, 20):
        fault = FailAt(number, after=after)
        broken = Objects(wrapped(objects.again().store, fault, "raw"), objects.copy)
        with suppress(Crash):
            broken.restore()
            break
        counting += 1
    assert counting >= 2
    again = objects.again()
    again.restore()
    problems, report = again.verify()
    assert (problems, sorted(report.replaced)) == ([], sorted(segments[1:]))
    assert [found.key for found in again.store.raw.objects(COPIES)] == [f"{COPIES}1/{key}" for key in segments[1:]]
    assert [found.key for found in again.store.raw.objects(RECORDS)] == [f"{RECORDS}1/{key}" for key in segments[1:]]


@pytest.fixture
def prefix(objects: Objects, request: pytest.FixtureRequest) -> str:
    """The copy in somebody's bucket."""
    s3: Any = request.getfixturevalue("aws").client("s3")
    bucket = f"backups-{uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name})
    for key in objects.names():
        s3.put_object(Bucket=bucket, Key=f"pik/{key}", Body=objects.whole(key))
    return f"s3://{bucket}/pik"


@pytest.mark.parametrize("kind", ["aws"])
def test_from_a_prefix_in_s3(objects: Objects, prefix: str) -> None:
    segments = [key for key in objects.names() if key.startswith(RawKind.SEGMENT)]
    objects.delete(segments[0])
    objects.flip(segments[1])
    wrong = f"{prefix}/{segments[1]}"
    assert {one.outcome for one in objects.restore(wrong, dry_run=True).objects} == {Outcome.ABSENT, Outcome.REPLACED}
    done = objects.restore(f"{prefix}/")
    assert [(one.source, one.outcome) for one in done.objects] == [
        (f"{prefix}/{segments[0]}", Outcome.RESTORED),
        (f"{prefix}/{segments[1]}", Outcome.REPLACED),
    ]
    assert objects.verify()[0] == []
    objects.delete(segments[0])
    with pytest.raises(InputError, match="no object matches"):
        objects.restore(f"{prefix}/nothing")
    with pytest.raises(UsageError):
        objects.restore("gs://bucket/x")


@pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])
def test_a_record_of_another_batch_under_its_name_is_refused(objects: Objects, tmp_path: Path) -> None:
    first, second = [key for key in objects.names() if key.startswith(RawKind.BATCH)][:2]
    objects.delete(first)
    (tmp_path / "wrong" / "raw" / "batches").mkdir(parents=True)
    (tmp_path / "wrong" / first).write_bytes(objects.whole(second))
    [said] = objects.restore(tmp_path / "wrong").objects
    assert (said.outcome, "the record of batch" in said.detail) == (Outcome.OTHER, True)
