"""README.md and docs/ten-commands.md print what the commands print."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pik.cli.app import COMMANDS
from pik.cli.demo.incidents import INCIDENTS
from tests.docs.conftest import expect
from tests.support.docs.console import REPOSITORY, Console, Step, play, steps

README = REPOSITORY / "README.md"
TEXT = README.read_text(encoding="utf-8")
TEN = REPOSITORY / "docs" / "ten-commands.md"
TEN_TEXT = TEN.read_text(encoding="utf-8")


def test_the_commands_print_what_it_says(tmp_path: Path) -> None:
    assert play(TEN, tmp_path) > 15


def test_ten_commands_are_there() -> None:
    numbered = re.findall(r"^\*\*(\d+)\. `pik ", TEN_TEXT, re.MULTILINE)
    assert numbered == [str(number) for number in range(1, 11)]
    played = " ".join(step.command for step in steps(TEN))
    for name in re.findall(r"^\*\*\d+\. `pik (\w+)", TEN_TEXT, re.MULTILINE):
        assert f"pik {name}" in played


def test_the_demo_prints_what_the_page_shows(tmp_path: Path) -> None:
    block = re.search(r"<!-- demo:begin -->\n```text\n(.*?)\n```\n<!-- demo:end -->", TEXT, re.DOTALL)
    assert block
    Console(tmp_path).run(Step("pik demo --dir demo", block[1], 0))


def test_the_readme_fits_on_three_screens() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_every_command_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`pik (\w+)", TEXT))
    listed = re.findall(r"^\| (`pik .*?) \|", TEXT, re.MULTILINE)
    named |= {name for row in listed for name in re.findall(r"`(?:pik )?(\w+)", row)}
    assert len(named) > 18
    assert named <= COMMANDS.keys()
    assert f"`pik demo --list` names {['twelve', 'thirteen', 'fourteen'][len(INCIDENTS) - 12]}," in TEXT


def test_the_mapping_works_from_pik_toml(tmp_path: Path) -> None:
    *_, toml = re.findall(r"```toml\n(.*?)```", TEN_TEXT, re.DOTALL)
    assert "map" in tomllib.loads(toml)["ingest"]
    (tmp_path / "pik.toml").write_text(toml, encoding="utf-8")
    made = next(step.command for step in steps(TEN) if step.command.startswith("cat > hooks.jsonl"))
    (tmp_path / "hooks.jsonl").write_text("\n".join(made.splitlines()[1:-1]) + "\n", encoding="utf-8")
    expect(tmp_path, 0, "init")
    assert "accepted            2\n" in expect(tmp_path, 3, "ingest", "hooks.jsonl")
    assert (tmp_path / "hooks" / "format.json").is_file()


@pytest.mark.parametrize(
    "page", sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]), ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text)
    for link in (one or other for one, other in links):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), f"{page.name} links to {link}"


def _anchors(text: str) -> set[str]:
    """The names under which headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
