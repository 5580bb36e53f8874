"""A stack as a user deploys it, for the tests that want all of it. They are in the xdist group `deployed`, so that one
worker builds and deploys it once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.stores.aws.clients import Clients
from tests.aws.deployed import Deployed, build, deploy


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template, built with SAM."""
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def deployed(aws: Clients, built: Path) -> Deployed:
    """The stack `pik-test`, deployed with SAM and the template's defaults."""
    return deploy(aws, built, "pik-test")
