"""The notebook of the documents runs, and its stored outputs are what it prints."""

from __future__ import annotations

import nbformat
import pytest

from tools.run_notebook import PAGE, executed


def shown(cell):
    """What a cell shows, as text and HTML, in order."""
    return [output.get("text") or dict(output.get("data", {})) for output in cell.get("outputs", ())]


@pytest.mark.filterwarnings("ignore::Warning")  # of the notebook's own libraries
def test_the_notebook_prints_what_is_stored_in_it(tmp_path):
    stored, now = nbformat.read(PAGE, as_version=4), executed(tmp_path)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in now.cells]
    for before, after in zip(stored.cells, now.cells, strict=True):
        if "varies" not in before.metadata.get("tags", ()):  # ids of runs and batches
            assert shown(before) == shown(after), before.source
    charts = [cell for cell in now.cells if "<svg" in str(shown(cell))]
    assert len(charts) == 2, "the shares of the causes, and the lags"
