"""A bundle of any store: the same bytes again, and what it holds answers as its store does."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from pik.cli.context import Context
from pik.cli.recorder import write_documents
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.usecases.bundle.check import check_bundle
from pik.usecases.bundle.contents import BundleRequest
from pik.usecases.bundle.opening import open_bundle
from pik.usecases.bundle.pack import environment_of, make_bundle
from pik.usecases.bundle.redaction import read_redaction
from tests.support.contracts.pulling import answers, fill
from tests.support.stores import PlainEngine, window


@pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "paths", [(), pytest.param(("payload.nothing",), marks=pytest.mark.slow)], ids=["whole", "redacted"]
)
def test_a_bundle_answers_as_its_store(store: Store, tmp_path: Path, paths: tuple[str, ...]) -> None:
    fill(store, tmp_path, 1)
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    cli, engine = Context(), PlainEngine()
    within = window("03", "07")
    redaction = read_redaction(paths, tmp_path / "key" if paths else None)
    request = BundleRequest("INC-1", within)
    made = [
        make_bundle(
            store,
            request,
            tmp_path / name,
            redaction,
            cli.make_copy,
            partial(write_documents, cli),
            engine,
            SILENT,
        )
        for name in ("one", "two")
    ]
    assert made[0] == made[1]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    environment = environment_of(engine.version)
    checked = check_bundle(tmp_path / "one", cli.make_copy, partial(write_documents, cli), environment, SILENT)
    assert (checked.problems, checked.recomputed) == ((), len(made[0].documents))
    opened = open_bundle(tmp_path / "one", tmp_path / "opened", cli.make_copy, SILENT)
    expected, found = answers(store, within), answers(opened.store, within)
    assert expected["events"]
    for part in ("stats", "by entity", "metrics") if paths else expected:  # ids of keyed events are others
        assert found[part] == expected[part]
    assert len(found["events"]) == len(expected["events"])
    assert made[0].not_recomputable == ()
