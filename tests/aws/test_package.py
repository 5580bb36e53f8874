"""What the package of a function was built for is read without downloading the package, as S3 allows it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from threading import Thread
from zipfile import ZipFile

import pytest

from pik.errors import StoreError
from pik.stores.aws.package import MARK, built_for


class _Parts(BaseHTTPRequestHandler):
    """Serves the server's `content` in parts, and counts bytes."""

    def do_GET(self) -> None:
        content: bytes = self.server.content  # type: ignore[attr-defined]
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert asked is not None
        part = content[int(asked[1]) : int(asked[2]) + 1]
        self.server.sent += len(part)  # type: ignore[attr-defined]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    made = HTTPServer(("127.0.0.1", 0), _Parts)
    made.sent = 0  # type: ignore[attr-defined]
    thread = Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def _package(*, marked: bool) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w") as made:
        for number in range(500):
            made.writestr(f"library/{number}.so", os.urandom(10_000))
        if marked:
            made.writestr(MARK, "arm64\n")
    return file.getvalue()


def test_only_a_part_of_it_is_read(server) -> None:
    server.content = _package(marked=True)
    assert built_for(f"http://127.0.0.1:{server.server_port}/") == "arm64"
    assert server.sent < len(server.content) / 4


def test_a_package_that_names_no_architecture_or_is_not_an_archive_is_refused(server) -> None:
    for content, said in ((_package(marked=False), "does not name an architecture"), (b"no archive", "cannot be read")):
        server.content = content
        with pytest.raises(StoreError, match=said):
            built_for(f"http://127.0.0.1:{server.server_port}/")
