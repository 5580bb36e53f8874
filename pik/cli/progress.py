"""Progress on standard error: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pik.cli.bars import NARROWEST, bar
from pik.cli.text import cells, note, padded, shortened
from pik.model.duration import format_duration
from pik.model.instant import SECOND
from pik.model.visible import visible
from pik.runtime import SILENT, Progress

_ONE = {"deliveries": "delivery"}
"""Units whose singular lacks more than an s."""

EVERY = 10.0
"""Seconds between two plain lines."""


def progress(*, quiet: bool) -> Progress:
    """Return the progress that suits standard error."""
    if quiet or sys.stderr is None:
        return SILENT
    return Bar() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines()


class _Work(Progress):
    """One piece of work: how much of it is done, and how fast it goes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._label, self._unit, self._total, self._done, self._rate = "", "", 0, 0, Rate(0, 0)
        self._waits = ""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin counting from `done`."""
        self._label, self._total, self._unit, self._done = label, total or 0, unit, done
        self._rate, self._waits = Rate(done, self._clock()), ""

    def advance(self, done: int) -> None:
        """Count."""
        self._done += done
        if self._waits:
            self._rate, self._waits = Rate(self._done, self._clock()), ""  # the wait is not slow work
        self._rate.add(self._done, self._clock())

    def wait(self, text: str) -> None:
        """Show this text in the place of the figures."""
        self._waits = text

    def text(self, share: str = "") -> str:
        """Return how much is done, then `share`, then rate and remaining time, as far as they are known."""
        if self._waits:
            return self._waits
        whole = f" of {self._number(self._total)}" if self._total else ""
        megabytes = " MB" if self._unit == "bytes" else ""
        unit = self._unit if (self._total or self._done) != 1 else _ONE.get(self._unit, self._unit.removesuffix("s"))
        text = f"{self._number(self._done)}{whole}{megabytes or f' {unit}'}{share}"
        rate = self._rate.at(self._done, self._clock())
        if rate is None:
            return text
        left = (self._total - self._done) / rate if rate else 0
        remaining = f", {format_duration(round(left) * SECOND)} left" if left >= 1 else ""
        return f"{text}, {self._number(rate)}{megabytes} a second{remaining}"

    def _number(self, number: float) -> str:
        return f"{number / 1e6:,.1f}" if self._unit == "bytes" else f"{number:,.0f}"


class Lines(_Work):
    """A line every ten seconds; work that is done before the first prints nothing."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin counting from `done`."""
        super().start(label, total, unit, done)
        self._printed = self._clock()

    def advance(self, done: int) -> None:
        """Count, and print a line if it is time to."""
        super().advance(done)
        now = self._clock()
        if now - self._printed >= EVERY:
            self._printed = now
            share = f" ({100 * self._done // self._total} %)" if self._total else ""
            note(f"{self._label}: {self.text(share)}")

    def wait(self, text: str) -> None:
        """Print a line at once: nothing may be counted for long."""
        super().wait(text)
        self._printed = self._clock()
        note(f"{self._label}: {text}")


class Bar(_Work):
    """A line with a bar, rate and remaining time, drawn ten times a second whatever the work does, by rich, which knows
    the width at that moment."""

    _bar: Any = None

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Show the bar, in the place of one before."""
        from rich.console import Console
        from rich.progress import Progress, ProgressColumn, Task
        from rich.table import Column
        from rich.text import Text

        console, line = Console(stderr=True), self.line

        class Line(ProgressColumn):
            def render(self, task: Task) -> Text:  # noqa: ARG002 - rich's signature
                return Text(line(console.width))

        self.stop()
        super().start(label, total, unit, done)
        column = Line(Column(no_wrap=True))
        self._bar = Progress(column, console=console, transient=True, redirect_stdout=False)
        self._bar.add_task("", total=None)
        self._bar.start()

    def line(self, width: int) -> str:
        """Return the work, how far it is as a bar, and in figures, in that many columns. The figures come first: a long
        label is shortened, and where there is no room for both, the bar is left out."""
        text = shortened(self.text(), width)
        room = width - cells(text) - 1
        with_bar = room - NARROWEST - len(" []")
        name = _fitting_label(visible(self._label), with_bar if self._total and with_bar >= _SHORT_LABEL else room)
        length = room - cells(name) - len(" []")
        if not self._total or length < NARROWEST:
            return f"{name} {text}".strip()
        drawn = bar(min(self._done, self._total), self._total, length, sys.stderr)
        return f"{name} [{padded(drawn, length)}] {text}"

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _fitting_label(label: str, width: int) -> str:
    """Return the label in that many columns: its first word, which says what is done, and its end, which tells the
    files of a folder apart; nothing where that is too little."""
    if cells(label) <= width:
        return label
    first, _, rest = label.partition(" ")
    room = width - cells(first) - len(" …")
    if room < NARROWEST:
        return first if cells(first) <= width else ""
    while cells(rest) > room:
        rest = rest[1:]
    return f"{first} …{rest}"


_SHORT_LABEL = 24
"""Columns of a label that is still worth reading."""


WINDOW = 15.0
"""Seconds that a rate is of, at most: it follows when work gets slower, and falls while nothing moves."""

FIRST = 1.0
"""Seconds before which no rate is known: what is fetched ahead would make it far too high."""


class Rate:
    """The rate of the last seconds, in units per second."""

    def __init__(self, done: float, now: float) -> None:
        self._began = now
        self._samples = deque([(now, done)])

    def add(self, done: float, now: float) -> None:
        """Count `done` units in all by now."""
        if now - self._samples[-1][0] >= FIRST / 4:
            self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()

    def at(self, done: float, now: float) -> float | None:
        """Return units a second; None where it is too early."""
        since, before = self._samples[0]
        return (done - before) / (now - since) if now - self._began >= FIRST else None
