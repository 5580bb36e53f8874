"""What all tests share."""

import gc
import os
import tempfile
from collections.abc import Generator, Iterator
from functools import cache
from math import inf
from pathlib import Path

import pytest
from botocore import hooks, useragent
from botocore.loaders import create_loader
from botocore.retries.standard import ExponentialBackoff
from botocore.useragent import sanitize_user_agent_string_component as sanitized
from hypothesis import settings
from moto import mock_aws

from pik.cli import progress
from pik.fleets.session import Session
from pik.runtime import retries
from pik.stores.aws import queue
from pik.stores.aws.clients import Clients
from pik.usecases.replay import execute
from tests.support.aws.emulator import ENVIRONMENT, REGION, ministack
from tests.support.spark import spark_session

settings.register_profile("pik", deadline=None)  # no test depends on how fast a machine is
settings.load_profile("pik")

MEMORY, ROOM = Path("/dev/shm"), 4 << 30


def pytest_configure() -> None:
    """Keep the tests' files in memory, if they fit: each durable write would wait for the disk, and most tests write.

    Set before workers start, so that they and all programs that tests run have it. TMPDIR names another place.
    """
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    found = os.statvfs(MEMORY)
    if found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"], tempfile.tempdir = str(MEMORY), None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among tests and modules, which all stay: that took two fifths of the time to collect them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Let the interpreter free everything at its end, or DuckDB's module would list what it takes for leaks."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def at_once() -> Iterator[None]:
    """Tasks that failed are tried again without the time in between, and no test waits for more dead letters; nor does
    a slow machine write lines of progress between what tests compare."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "FIRST_DELAY", 0.001)
        patch.setattr(execute, "IDLE", 0.001)
        patch.setattr(queue, "LETTER_WAIT", 0)
        patch.setattr(progress, "EVERY", inf)
        yield


@pytest.fixture
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pik and boto3 try again, they try again at once; whatever else sleeps in this process goes on sleeping."""
    monkeypatch.setattr(retries, "sleep", lambda _seconds: None)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda _self, _context: 0)


@pytest.fixture(scope="session", autouse=True)
def boto3_remembers() -> Iterator[None]:
    """What boto3 knows about services is megabytes of JSON in hundreds of directories, which it would look through
    again for each store of each test; for each call it would check its own name letter by letter. Two thirds of the
    time to make a client went into the signatures of botocore's own handlers and the old names of its events."""
    names: dict[str, str] = {}
    renamed = vars(hooks.EventAliaser)["_alias_event_name"]

    def remembered(self: object, name: str) -> str:
        if name not in names:
            names[name] = renamed(self, name)
        return names[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", cache(create_loader))
        patch.setattr(useragent, "sanitize_user_agent_string_component", cache(sanitized))
        patch.setattr(hooks, "accepts_kwargs", lambda _handler: True)
        patch.setattr(hooks.EventAliaser, "_alias_event_name", remembered)
        yield


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Clients of an emulator; the environment names it, for programs that tests start as well."""
    with ministack(tmp_path_factory.mktemp("ministack")) as url, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        yield Clients(REGION)


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Clients of moto, which answers in this process, and knows nothing at first."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield Clients(REGION)


@pytest.fixture(scope="session")
def spark() -> Iterator[Session]:
    """A Spark session with two executors. Tests of it are in the group `spark`, so that one process has it."""
    with spark_session() as made:
        yield made
