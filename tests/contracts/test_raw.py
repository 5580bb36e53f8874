"""The contract of Raw: create-only, whole or not at all, and durable."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from urllib3 import HTTPResponse

from pik.errors import AlreadyExists, Damaged, Unreadable
from pik.ports.raw import Raw
from pik.stores.aws.s3 import AwsRaw
from tests.contracts.conftest import STORES, WITH_MOTO, local_store
from tests.support.aws.emulator import make_stack

KEY = "raw/event_date=2026-01-01/01J-1.ndjson.zst"


@pytest.fixture(params=WITH_MOTO)
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> Raw:
    if request.param == "local":
        return local_store(tmp_path / "local").raw
    clients = request.getfixturevalue(request.param)
    return AwsRaw(clients, make_stack(clients).raw_bucket)


def keys(raw: Raw, prefix: str = "raw/") -> list[str]:
    return [found.key for found in raw.objects(prefix)]


@pytest.mark.parametrize("data", [b"", b"x", b"\0\n" * 3_000_000], ids=["none", "one", "many"])
def test_what_was_created_is_read_back(raw: Raw, data: bytes) -> None:
    raw.create(KEY, data)
    assert raw.read(KEY) == data
    assert raw.size(KEY) == len(data)
    assert [(found.key, found.size) for found in raw.objects("raw/")] == [(KEY, len(data))]


def test_a_storage_that_keeps_digests_keeps_that_of_the_bytes(raw: Raw) -> None:
    """S3 does; a file system does not, and so a file is read to be checked."""
    for key, data in ((KEY, b"x" * 9), (f"{KEY}.2", b"")):
        raw.create(key, data)
        assert raw.stored_digest(key) == (sha256(data).hexdigest() if isinstance(raw, AwsRaw) else None)
    if isinstance(raw, AwsRaw):
        with pytest.raises(Damaged, match="is missing"):
            raw.stored_digest("raw/other")


def test_promise_2_nothing_is_created_twice(raw: Raw) -> None:
    raw.create(KEY, b"first")
    for data in (b"second", b"first"):
        with pytest.raises(AlreadyExists, match=KEY):
            raw.create(KEY, data)
    assert raw.read(KEY) == b"first"


@pytest.mark.parametrize("raw", STORES, indirect=True)  # moto looks for the key and writes it in two steps
def test_promise_2_of_many_that_create_one_key_one_does(raw: Raw) -> None:
    barrier = threading.Barrier(8)

    def create(number: int) -> int | None:
        barrier.wait()
        try:
            raw.create(KEY, b"%d" % number * 1000)
        except AlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(8) as threads:
        winners = [number for number in threads.map(create, range(8)) if number is not None]
    assert len(winners) == 1
    assert raw.read(KEY) == b"%d" % winners[0] * 1000


def test_nobody_sees_part_of_an_object(raw: Raw) -> None:
    """Neither its bytes nor its name, at any moment."""
    done = threading.Event()
    seen: set[int] = set()

    def look() -> None:
        while not done.is_set():
            for key in keys(raw):
                seen.add(len(raw.read(key)))

    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(look)
        for number in range(40):
            raw.create(f"raw/event_date=2026-01-01/{number}", b"x" * 300_000)
        done.set()
        looking.result()
    assert seen <= {300_000}


def test_several_objects_are_created_at_once(raw: Raw) -> None:
    objects = [(f"raw/event_date=2026-01-{n % 9 + 1:02}/{n}", b"%d" % n * n) for n in range(70)]
    raw.create_all(objects)
    assert keys(raw) == sorted(key for key, _ in objects)
    assert all(raw.read(key) == data for key, data in objects)
    raw.create_all([])


def test_promise_2_nothing_is_created_twice_among_several(raw: Raw) -> None:
    raw.create(KEY, b"first")
    others = {KEY + "a": b"1", KEY + "b": b"2"}
    with pytest.raises(AlreadyExists, match=KEY):
        raw.create_all([(KEY + "a", b"1"), (KEY, b"second"), (KEY + "b", b"2")])
    assert raw.read(KEY) == b"first"
    assert all(raw.read(key) == others[key] for key in keys(raw) if key != KEY)


def test_parts_of_an_object(raw: Raw) -> None:
    raw.create(KEY, b"0123456789")
    assert raw.read(KEY, 3) == b"3456789"
    assert raw.read(KEY, 3, 4) == b"3456"
    assert raw.read(KEY, 10) == b""
    assert raw.read(KEY, 4, 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(0, 11), (9, 2), (10, 1), (11, None), (50, 1)])
def test_an_object_that_is_shorter_than_asked_for_is_damaged(raw: Raw, offset: int, length: int | None) -> None:
    raw.create(KEY, b"0123456789")
    with pytest.raises(Damaged, match=KEY):
        raw.read(KEY, offset, length)


def test_an_object_that_is_missing(raw: Raw) -> None:
    assert raw.size(KEY) is None
    with pytest.raises(Damaged, match=f"{KEY} is missing"):
        raw.read(KEY)
    with pytest.raises(Damaged, match=f"{KEY} is missing"), raw.files([KEY]):
        pass


class Denied:
    """S3, which answers every GET and HEAD of an object with an error."""

    def __init__(self, code: str) -> None:
        self.body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    def __call__(self, request: Any, event_name: str, **_: Any) -> AWSResponse | None:
        if event_name.rpartition(".")[2] not in ("GetObject", "HeadObject"):
            return None
        raw: Any = HTTPResponse(BytesIO(self.body), preload_content=False)
        headers: Any = {}
        return AWSResponse(request.url, 403, headers, raw)


@pytest.mark.parametrize("reason", ["denied", "broken"])
def test_an_object_that_is_there_and_cannot_be_read(raw: Raw, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """It is unreadable, which is a kind of damage, and has its size."""
    raw.create(KEY, b"0123456789")
    if isinstance(raw, AwsRaw):
        answer: Any = Denied("AccessDenied" if reason == "denied" else "InvalidObjectState")
        raw.clients.client("s3").meta.events.register_first("before-send.s3", answer)
    else:
        number = errno.EACCES if reason == "denied" else errno.EIO
        opened = Mock(side_effect=OSError(number, os.strerror(number)))
        monkeypatch.setattr("pik.stores.local.raw.open", opened, raising=False)
    try:
        for read in (lambda: raw.read(KEY), lambda: raw.read(KEY, 2, 3), lambda: raw.files([KEY]).__enter__()):
            with pytest.raises(Unreadable, match=f"raw object {KEY} cannot be read: "):
                read()
        assert raw.size(KEY) == 10 if reason == "denied" else True
    finally:
        if isinstance(raw, AwsRaw):
            raw.clients.client("s3").meta.events.unregister("before-send.s3", answer)
    assert [found.size for found in raw.objects("raw/")] == [10]


def test_what_stands_in_the_place_of_an_object_is_named(tmp_path: Path) -> None:
    raw = local_store(tmp_path / "local").raw
    path = tmp_path / "local" / "store" / KEY
    path.mkdir(parents=True)
    with pytest.raises(Unreadable, match="it is a directory, not a file"):
        raw.read(KEY)
    path.rmdir()
    path.symlink_to("nowhere")
    with pytest.raises(Unreadable, match="it is a link to 'nowhere', which is not there"):
        raw.read(KEY)
    assert (raw.size(KEY), keys(raw)) == (None, [KEY])
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(Unreadable, match="symbolic links") as raised:
        raw.read(KEY)
    assert raw.size(KEY) == len(path.name)
    assert (keys(raw), raised.value.hint) == ([KEY], f"a link in {str(path)!r} leads back to itself")


SEGMENT = st.text("ab-.=", min_size=1, max_size=3).filter(lambda name: set(name) != {"."})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.lists(SEGMENT, min_size=1, max_size=3).map("/".join), unique=True, max_size=8), st.data())
def test_objects_are_found_by_prefix_in_order_of_their_keys(
    tmp_path_factory: pytest.TempPathFactory, raw: Raw, names: list[str], data: st.DataObject
) -> None:
    root = f"raw/{os.urandom(8).hex()}/"
    files = [name for name in names if not any(other.startswith(name + "/") for other in names)]
    for name in files:
        raw.create(root + name, name.encode())
    prefix = data.draw(st.sampled_from(["", *(name[:cut] for name in files for cut in range(len(name) + 1))]))
    assert keys(raw, root + prefix) == sorted(root + name for name in files if name.startswith(prefix))


def test_there_are_no_objects_below_a_prefix_that_is_not_there(raw: Raw) -> None:
    assert keys(raw, "raw/batches/") == keys(raw, "raw/event_date=") == []


def test_whole_objects_as_files(raw: Raw) -> None:
    other = KEY.replace("-1", "-2")
    raw.create(KEY, b"1")
    raw.create(other, b"2")
    with raw.files([other, KEY]) as paths:
        assert [path.read_bytes() for path in paths] == [b"2", b"1"]


def test_it_can_be_handed_to_another_process(raw: Raw) -> None:
    raw.create(KEY, b"1")
    assert pickle.loads(pickle.dumps(raw)).read(KEY) == b"1"
