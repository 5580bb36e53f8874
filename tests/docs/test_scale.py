"""docs/scale.md: its settings are settings, its locations are those there are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pik.cli.clusters import without_cluster
from pik.config import settings
from pik.model.cluster import LOCATIONS
from tests.support.docs.console import REPOSITORY

PAGE = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")


def test_its_pik_toml_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "pik.toml").write_text(text, encoding="utf-8")
    found = settings(environment={}, directory=tmp_path).cluster
    assert found.archive == tomllib.loads(text)["cluster"]["archive"]
    overhead = float(found.spark["spark.executor.memoryOverhead"].removesuffix("g"))
    (formula,) = re.findall(r"memoryOverhead ≥ cores × (.*)", PAGE)
    a_core = sum(float(size) for size in re.findall(r"([\d.]+) GB", formula))
    assert a_core * int(found.spark["spark.executor.cores"]) <= overhead


def test_every_location_is_named_and_no_other() -> None:
    (rows,) = re.findall(r"\| location \|.*?\n\n", PAGE, re.DOTALL)
    table = set(re.findall(r"^\| `([^`]+)` \|", rows, re.MULTILINE))
    kinds = {re.split(r"[:\[]", name)[0] for name in table}
    assert kinds == {re.split(r"[:\[]", name.strip(" '"))[0].split()[0] for name in re.split(r", (?=\D)", LOCATIONS)}


def test_it_names_the_commands_that_have_the_option() -> None:
    (rows,) = re.findall(r"\| command \|.*?\n\n", PAGE, re.DOTALL)
    named = {name for cell in re.findall(r"^\|(.*?)\|", rows, re.M) for name in re.findall("`pik (.*?)`", cell)}
    assert named == set(without_cluster("pik").hint.removeprefix("it goes with ").split(", "))


def test_its_entry_point_is_piks_program() -> None:
    (code,) = re.findall(r"pik_job.py <<'END'\n(.*?)END", PAGE, re.DOTALL)
    assert "from pik.__main__ import program\nsys.exit(program())" in code
