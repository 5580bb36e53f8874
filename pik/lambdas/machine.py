"""Whether the package of a function was built for the machine that runs it: the first thing that a function looks at,
before it imports anything that is compiled."""

from __future__ import annotations

import platform
from pathlib import Path

MARK = Path(__file__).with_name("ARCHITECTURE")
"""What packaging/functions.mk writes into each package: the value of the template's parameter that it was built for."""

_ARCHITECTURES = {"aarch64": "arm64"}
"""What the parameter calls a machine, where that is another name."""


def expect_machine(mark: Path = MARK) -> None:
    """Raise ImportError if the package is for another machine. Outside of a package there is no mark."""
    if not mark.exists():
        return
    built_for, here = mark.read_text(encoding="utf-8").strip(), architecture()
    if built_for != here:
        raise ImportError(
            f"this package was built for {built_for}, and the function runs on {here}:"
            f" sam build and sam deploy with the same --parameter-overrides Architecture={here}"
        )


def architecture() -> str:
    """Return the value of the parameter Architecture for this machine."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


expect_machine()
