"""Executes docs/examples/notebook/investigation.ipynb on the incident that it is about.

`python -m tools.run_notebook` stores the outputs in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

PAGE = Path(__file__).parent.parent / "docs" / "examples" / "notebook" / "investigation.ipynb"
INCIDENT = "late-events"


def executed(directory: Path) -> Any:
    """Return the notebook as it is after its cells were run, in a new directory in this one."""
    import nbformat
    from nbclient import NotebookClient

    work, kernels = directory / "incident", directory / "jupyter" / "kernels" / "python3"
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")}
    words = [sys.executable, "-m", "pik", "demo", "--incident", INCIDENT, "--dir", str(work)]
    subprocess.run(words, check=True, capture_output=True, env=ours)
    kernels.mkdir(parents=True)
    program = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernels / "kernel.json").write_text(
        json.dumps({"argv": program, "display_name": "Python 3", "language": "python"})
    )
    notebook = nbformat.read(PAGE, as_version=4)  # type: ignore[no-untyped-call]
    with patch.dict(os.environ, {**ours, "JUPYTER_PATH": str(kernels.parent.parent)}, clear=True):
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": work}})
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def main() -> int:
    """Execute it, and store its outputs."""
    import nbformat

    with TemporaryDirectory() as directory:
        notebook = executed(Path(directory))
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, PAGE)  # type: ignore[no-untyped-call]
    return 0


if __name__ == "__main__":
    sys.exit(main())
