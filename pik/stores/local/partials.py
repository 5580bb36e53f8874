"""Partial values in files below the store's directory, which are removed as soon as nothing needs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from pik.stores.partials import PREFIX, ObjectPartials


@dataclass(frozen=True, slots=True)
class LocalPartials(ObjectPartials):
    """Implements the port over the files below `root`."""

    root: Path

    def drop(self, run_id: str) -> None:
        """See Partials.drop."""
        rmtree(self.root / PREFIX / run_id, ignore_errors=True)
