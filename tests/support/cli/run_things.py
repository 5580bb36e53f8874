"""The program `pik` with the commands of things.py: `python tests/support/cli/run_things.py things …`."""

from __future__ import annotations

import sys

from pik.__main__ import main
from pik.cli.app import Root
from tests.support.cli.entries import ENTRIES

if __name__ == "__main__":
    Root.entries = ENTRIES
    sys.exit(main())
