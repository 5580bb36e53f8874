"""Stacks and clients for the tests of the AWS store.

`deployed` is one as a user deploys it, for the tests that want all of it. They are in the xdist group `deployed`, so
that one worker builds and deploys it once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from pik.stores.aws.clients import Clients
from pik.stores.aws.deployed_stack import DeployedStack
from tests.support.aws.bare import deploy_bare
from tests.support.aws.deployed import Deployed, deploy
from tests.support.aws.emulator import REGION
from tools.sam import build


@pytest.fixture
def own(aws: Clients) -> Clients:
    """Clients that no other test has hooks on."""
    return Clients(REGION)


@pytest.fixture
def stack(aws: Clients) -> DeployedStack:
    """A bare stack of this test's own, as `pik stack` sees it."""
    return deploy_bare(aws, f"pik-{uuid4().hex[:8]}")


@pytest.fixture
def seen(stack: DeployedStack, own: Clients) -> DeployedStack:
    """The same, through those clients."""
    return replace(stack, clients=own)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template, built with SAM."""
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def deployed(aws: Clients, built: Path) -> Deployed:
    """The stack `pik-test`, deployed with SAM and the template's defaults."""
    return deploy(aws, built, "pik-test")
