"""docs/troubleshooting.md quotes what pik says, word for word; docs/configuration.md names every setting."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

import pik
from pik.cli.app import root_command
from pik.config import Config, Format, settings
from pik.stores.aws.deployed_stack import ALARMS
from tests.support.docs.console import REPOSITORY

PAGE = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")
CONFIGURATION = (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")
ENOUGH = 9
"""Literal characters that make a message one."""

PLACEHOLDER = r"[A-Z0-9: ]+"
"""How the page writes what pik puts in."""


def symptoms(page: str) -> list[str]:
    """What the first columns of the tables of messages quote."""
    tables = page.partition("### Alarms")[0]
    return re.findall(r"^\| `([^`]+)` \|", tables, re.MULTILINE)


@cache
def messages() -> list[re.Pattern[str]]:
    """Every text in the code, with what is put into it in capitals."""
    found = set()
    for path in Path(pik.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if isinstance(part, ast.Constant) else PLACEHOLDER for part in parts]
            literal = [text for text in texts if isinstance(text, str) and text is not PLACEHOLDER]
            if sum(map(len, literal)) >= ENOUGH:
                found.add("".join(str(one) if one is PLACEHOLDER else re.escape(str(one)) for one in texts))
    return [re.compile(one) for one in found]


def is_said(symptom: str) -> bool:
    """Whether the code has this text, or has it as the detail of a part: PART is STATE: DETAIL."""
    part = re.fullmatch(r"[\w ]+ is \w+: (.+)", symptom)
    said = [symptom, part[1]] if part else [symptom]
    return any(pattern.fullmatch(one) for pattern in messages() for one in said)


@pytest.mark.parametrize("symptom", symptoms(PAGE))
def test_each_symptom_is_a_message_of_piks(symptom: str) -> None:
    assert is_said(symptom)


def test_what_pik_does_not_say_is_reported_apart() -> None:
    assert len(symptoms(PAGE)) > 40
    assert not is_said("no store near PATH")
    assert not is_said("the AWS credentials are stale")
    assert not is_said("processor is Disabled: somebody stopped it")


def test_every_alarm_is_there() -> None:
    assert set(re.findall(r"`(\w+Alarm)`", PAGE)) == set(ALARMS)


def test_the_commands_of_both_pages_exist() -> None:
    root = root_command()
    ctx = root.make_context("pik", [], resilient_parsing=True)
    for words in re.findall(r"`pik ((?:--store \S+ )?[a-z]+(?: [a-z]+)?)", PAGE + CONFIGURATION):
        name, *inner = words.removeprefix("--store DIR ").split()
        command = root.get_command(ctx, name)
        assert command is not None, words
        if hasattr(command, "commands") and not (command.invoke_without_command and not inner):
            assert inner, words
            assert inner[0] in command.commands, words


def test_the_options_of_both_pages_exist() -> None:
    root = root_command()
    ctx = root.make_context("pik", [], resilient_parsing=True)
    for line in re.findall(r"`(pik [^`]+)`", PAGE + CONFIGURATION):
        words = line.split()
        names = [word for word in words if re.fullmatch("[a-z]+", word)][1:3]
        command = root.get_command(ctx, names[0]) if names else root
        if names and hasattr(command, "commands") and not (command.invoke_without_command and len(names) == 1):
            command = command.commands[names[1]]
        known = {option for param in command.params for option in param.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= known, line


# Configuration


def test_the_example_is_a_pik_toml(tmp_path: Path) -> None:
    (text,) = re.findall(r"<!-- pik.toml -->\n```toml\n(.*?)```", CONFIGURATION, re.DOTALL)
    (tmp_path / "pik.toml").write_text(text, encoding="utf-8")
    found = settings(environment={}, directory=tmp_path)
    assert found.store == "aws://pik?region=eu-central-1&profile=on-call"
    assert found.ingest.map["event_type"] == "event"
    table = tomllib.loads(text)
    (formats,) = re.findall(r"^format = .* # (.*)$", text, re.MULTILINE)
    assert re.split(", | or ", formats) == list(Format)
    assert set(table) == {field.name for field in dataclasses.fields(Config)}
    assert settings(store="incident", environment={}, directory=tmp_path).store == str(
        tmp_path / "incidents/2026-03-02"
    )


def test_every_variable_of_piks_own_is_named_and_no_other() -> None:
    code = [path for path in Path(pik.__file__).parent.rglob("*.py") if path.parent.name != "lambdas"]
    texts = "".join(path.read_text(encoding="utf-8") for path in code)
    read = set(re.findall(r"[\"'](PIK_[A-Z]\w*)[\"']", texts))
    named = set(re.findall(r"^\| `(PIK_\w+)` \|", CONFIGURATION, re.MULTILINE))
    assert named == read - {"PIK_STACK"}  # which a function's environment has
