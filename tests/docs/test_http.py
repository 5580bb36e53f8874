"""docs/http.md: curl and pik against the handlers print what it says they print."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pik import lambdas
from pik.stores import open_store
from tests.support.docs.console import REPOSITORY, play
from tests.support.lambdas.calls import Buffered, silence, wire
from tests.support.lambdas.gateway import CREDENTIALS, REGION, serving


def test_the_commands_print_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("curl"), "the page calls curl"
    store = open_store(str(tmp_path / "store"), create=True)
    wire(monkeypatch, store)
    monkeypatch.setattr(lambdas, "buffer", Buffered)
    silence(monkeypatch)
    (tmp_path / "shell").mkdir()
    with serving(store) as gateway:
        environment = {
            "PIK_API_URL": gateway.url,
            "PIK_ACTOR": "",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": str(CREDENTIALS.access_key),
            "AWS_SECRET_ACCESS_KEY": str(CREDENTIALS.secret_key),
            "AWS_SESSION_TOKEN": "",
        }
        assert play(REPOSITORY / "docs" / "http.md", tmp_path / "shell", environment) > 8
