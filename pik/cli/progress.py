"""Progress on standard error: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from pik.cli.render.terminal import note
from pik.model.instant import SECOND, format_duration
from pik.usecases.progress import Progress, Silent

EVERY = 10.0
"""Seconds between two plain lines."""


def progress(*, quiet: bool) -> Progress:
    """What suits standard error."""
    if quiet or sys.stderr is None:
        return Silent()
    return Bar() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines()


class Lines:
    """A line every ten seconds; work that is done before the first says nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._label, self._unit, self._total = "", "", 0
        self._done, self._before, self._began, self._told = 0, 0, 0.0, 0.0

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin counting from `done`."""
        self._label, self._total, self._unit = label, total or 0, unit
        self._done = self._before = done
        self._began = self._clock()
        self._told = self._began

    def advance(self, done: int) -> None:
        """Count, and tell if it is time to."""
        self._done += done
        now = self._clock()
        if now - self._told >= EVERY:
            self._told = now
            note(self._line(now - self._began))

    def stop(self) -> None:
        """Nothing is left to clean up."""

    def _line(self, seconds: float) -> str:
        rate = (self._done - self._before) / seconds
        said = f"{self._label}: {_amount(self._done, self._total, self._unit)}"
        if self._total:
            said += f" ({100 * self._done // self._total} %)"
        said += f", {_speed(rate, self._unit)}"
        left = (self._total - self._done) / rate if rate else 0
        return f"{said}, {format_duration(round(left) * SECOND)} left" if left >= 1 else said


def _amount(done: float, total: int | None, unit: str) -> str:
    whole = f" of {_number(total, unit)}" if total else ""
    return f"{_number(done, unit)}{whole} {'MB' if unit == 'bytes' else unit}"


def _speed(rate: float, unit: str) -> str:
    return f"{_number(rate, unit)}{' MB' if unit == 'bytes' else ''} a second"


def _number(number: float, unit: str) -> str:
    return f"{number / 1e6:,.1f}" if unit == "bytes" else f"{number:,.0f}"


class Bar:
    """rich's progress bar, with rate and remaining time."""

    _bar: Any = None

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Show the bar, in the place of one before."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from pik.cli.render.text import visible

        self.stop()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[done]}{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
        self._total, self._unit = total, unit
        self._task = self._bar.add_task(
            visible(label), total=total, completed=done, done=_amount(done, total, unit), speed=""
        )
        self._bar.start()

    def advance(self, done: int) -> None:
        """Move the bar."""
        self._bar.advance(self._task, done)
        task = self._bar.tasks[0]
        speed = f", {_speed(task.speed, self._unit)}" if task.speed else ""
        self._bar.update(self._task, done=_amount(task.completed, self._total, self._unit), speed=speed)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
