"""docs/repair-on-the-stack.md: what is found on a copy is repaired where it was pulled from, a directory or a stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.stores.aws.clients import Clients
from tests.docs.conftest import expect
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.processor import processing
from tests.support.docs.console import REPOSITORY, Console, Step, play, steps

PAGE = REPOSITORY / "docs" / "repair-on-the-stack.md"


def test_the_page(tmp_path: Path) -> None:
    expect(tmp_path, 0, "demo", "--incident", "late-events", "--dir", "incident")
    assert play(PAGE, tmp_path / "incident", columns=80) >= 15


@pytest.mark.slow
def test_the_page_on_a_stack(aws: Clients, tmp_path: Path) -> None:
    """The same commands print the same, where `prod` is a stack with a processor."""
    stack = make_stack(aws)
    url = publish(aws, stack)
    with processing(stack, tmp_path):
        expect(tmp_path, 0, "demo", "--incident", "late-events", "--dir", "incident")
        day = ("--from", "2026-03-02", "--to", "2026-03-03")
        incident = tmp_path / "incident"
        expect(incident, 0, "ingest", "monday.jsonl", "--store", url)
        expect(incident, 0, "metrics", "apply", "metrics.toml", "--store", url)
        expect(incident, 0, "replay", "--all", *day, "--reason", "numbers", "--promote", "--yes", "--store", url)
        expect(incident, 0, "ingest", "tuesday-morning.jsonl", "--store", url)
        console = Console(incident, columns=80)
        for step in steps(PAGE):
            on_stack = step.command.replace('prod = ".pik"', f'prod = "{url}"')
            console.run(Step(on_stack, step.output.replace("/home/me/incident/.pik", url), step.code))
