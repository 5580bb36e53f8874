"""The commands of a page that are for a stack's operator, run as they stand there, in bash: `aws` by botocore, which
knows the options and their types; `sam` deploys the bare template."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import jmespath
from botocore.model import Shape

from pik.stores.aws.clients import Clients
from tests.support.aws.bare import update_bare
from tools.ministack import REGION, ROOT

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(page: Path, heading: str) -> str:
    """The commands of the section with this heading."""
    (text,) = (part for part in page.read_text(encoding="utf-8").split("\n## ") if part.startswith(f"{heading}\n"))
    return "\n".join(_BLOCK.findall(text))


def run(script: str, directory: Path, **variables: str) -> str:
    """Run a script of a checkout, and return what it prints; `directory` is for what it writes."""
    programs = directory / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("aws", "sam"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {__name__} {name} "$@"\n')
        program.chmod(0o755)
    if not (directory / "packaging").exists():
        (directory / "packaging").symlink_to(ROOT / "packaging")
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    ended = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", script],
        cwd=directory,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def _aws(service: str, operation: str, *words: str) -> None:
    client: Any = boto3.client("s3" if service == "s3api" else service, region_name=REGION)  # type: ignore[call-overload]  # any service
    if operation == "wait":
        waiter = client.get_waiter(words[0].replace("-", "_"))
        waiter.wait(**dict(_arguments(client, waiter.config.operation, words[1:])), WaiterConfig={"Delay": 1})
        return
    (name,) = (one for one in client.meta.service_model.operation_names if _kebab(one) == operation)
    options = dict(_options(words))
    answer = getattr(client, operation.replace("-", "_"))(**dict(_arguments(client, name, words)))
    answer.pop("ResponseMetadata", None)
    found = jmespath.search(options["query"][0], answer) if "query" in options else answer
    if options.get("output") == ["text"]:
        rows = found if isinstance(found, list) else [found]
        print("\n".join("\t".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows))
    else:
        print(json.dumps(found, default=str))


def _options(words: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Each option with its values."""
    starts = [number for number, word in enumerate(words) if word.startswith("--")]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        yield words[start][2:], list(words[start + 1 : end])


def _arguments(client: Any, operation: str, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    members = {
        _kebab(name): (name, shape)
        for name, shape in client.meta.service_model.operation_model(operation).input_shape.members.items()
    }
    for option, values in _options(words):
        if option in ("query", "output"):
            continue
        name, shape = members[option.removeprefix("no-")]
        yield name, _value(shape, values) if values else not option.startswith("no-")


def _value(shape: Shape, words: list[str]) -> Any:
    text = Path(words[0].removeprefix("file://")).read_text() if words[0].startswith("file://") else words[0]
    if shape.type_name == "list" and not text.startswith("["):
        return [_value(shape.member, [word]) for word in words]  # type: ignore[attr-defined]  # a list has one
    if shape.type_name in ("list", "structure", "map"):
        return json.loads(text) if text[0] in "[{" else _shorthand(shape, text)
    assert len(words) == 1, words
    return _scalar(shape.type_name, text)


def _shorthand(shape: Any, text: str) -> dict[str, Any]:
    """A=1,B=true"""
    pairs = dict(pair.split("=", 1) for pair in text.split(","))
    return {name: _scalar(shape.members[name].type_name, value) for name, value in pairs.items()}


def _scalar(kind: str, text: str) -> Any:
    if kind == "boolean":
        return text == "true"
    return int(text) if kind in ("integer", "long", "double") else text


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def _sam(action: str, *words: str) -> None:
    if action == "deploy":
        update_bare(Clients(REGION), dict(_options(words))["stack-name"][0])


if __name__ == "__main__":
    program = _aws if sys.argv[1] == "aws" else _sam
    program(*sys.argv[2:])
