"""The table of a program with commands for tests only."""

from __future__ import annotations

from pik.cli.app import Entry

ENTRIES = {
    "things": Entry("tests.support.cli.things", "Show things.", "Look"),
    "fail": Entry("tests.support.cli.things", "Ways to go wrong.", "Break"),
}
