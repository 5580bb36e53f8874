"""The contract of Raw against SeaweedFS: a second opinion on what S3 does with If-None-Match, ranges and checksums."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from pik.errors import StoreError
from pik.ports.raw import Raw
from pik.stores.aws.clients import Clients, translated
from pik.stores.aws.s3 import AwsRaw
from tests.contracts import test_raw
from tests.support.aws.emulator import ENVIRONMENT, REGION, free_port

pytestmark = pytest.mark.slow

# The suite, with the fixture `raw` below in place of its own. SeaweedFS lists directory by directory, and so not in the
# order of keys, as S3 does and MiniStack.
_ELSEWHERE = ("local", "in_order_of_their_keys")
globals().update(
    {
        name: test
        for name, test in vars(test_raw).items()
        if name.startswith("test_") and not any(word in name for word in _ELSEWHERE)
    }
)

PROGRAM = Path(__file__).resolve().parents[2] / ".venv-seaweedfs/bin/weed"


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    directory = tmp_path_factory.mktemp("seaweed")
    identity = {"name": "test", "credentials": [{"accessKey": "test", "secretKey": "test"}], "actions": ["Admin"]}
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    port = free_port()
    ports: dict[str, int] = {"master": free_port(), "volume": free_port(), "filer": free_port(), "s3": port}
    arguments = [f"-{name}.port={number}" for name, number in ports.items()]
    grpc = [f"-{name}.port.grpc={free_port()}" for name in ports]
    command = [
        str(PROGRAM),
        "server",
        "-dir=.",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-volume.max=500",
        "-filer",
        "-s3",
    ]
    limits = ["-master.volumeSizeLimitMB=64", "-s3.config=s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    with (
        open(directory / "weed.log", "wb") as log,
        subprocess.Popen([*command, *arguments, *grpc, *limits], cwd=directory, stdout=log, stderr=log) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        try:
            for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
                patch.setenv(name, value)
            clients = Clients(REGION)
            _wait(clients, process, directory)
            yield clients
        finally:
            process.kill()  # it takes its time otherwise


def _wait(clients: Clients, process: subprocess.Popen[bytes], directory: Path) -> None:
    for _ in range(300):
        try:
            with translated("s3"):
                clients.client("s3").list_buckets()
        except StoreError:
            assert process.poll() is None, (directory / "weed.log").read_text()
            time.sleep(0.2)
        else:
            return
    raise AssertionError((directory / "weed.log").read_text()[-2000:])


@pytest.fixture
def raw(seaweed: Clients) -> Raw:
    bucket = f"pik-{uuid4().hex[:12]}"
    seaweed.client("s3").create_bucket(Bucket=bucket)
    return AwsRaw(seaweed, bucket)
