"""What is generated is current, and every command in the table exists."""

from __future__ import annotations

import sys

import pytest

from pik.cli.app import COMMANDS, root_command
from pik.cli.help import GLOBAL
from tools import gen_json, gen_openapi
from tools.gen_docs import PAGE, main, page


def test_docs_commands_md_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "`make docs` writes it again"


def test_docs_json_md_and_the_schemas_are_what_the_commands_declare() -> None:
    pages = gen_json.pages()
    assert set(gen_json.SCHEMAS.iterdir()) | {gen_json.PAGE} == pages.keys()
    stale = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "`make docs` writes them again"


def test_docs_openapi_yaml_is_what_the_models_say() -> None:
    assert gen_openapi.PAGE.read_text(encoding="utf-8") == gen_openapi.page(), "`make docs` writes it again"


def test_check_reports_an_outdated_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gen_docs", "--check"])
    monkeypatch.setattr("tools.gen_docs.page", lambda: "another page")
    assert main() == 1
    assert "`make docs` writes it again" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_and_no_option_of_the_global_names(name: str) -> None:
    root = root_command()
    command = root.get_command(root.make_context("pik", [], resilient_parsing=True), name)
    for one in getattr(command, "commands", {}).values() or [command]:
        assert one.help
        assert one.epilog.startswith("Examples:\n")
        assert all(len(line) <= 110 for line in one.epilog.splitlines())
        own = [param for param in one.params if getattr(param, "rich_help_panel", None) != GLOBAL]
        names = {option for param in own for option in param.opts}
        assert not names & {"--store", "--format", "--quiet", "-q", "--version", "--help", "-h"}
        assert all(param.help for param in own)
