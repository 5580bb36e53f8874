"""`pik verify --continue`: where a verification keeps what it has checked, and what it says when it is interrupted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pik.cli.context import Context
from pik.cli.document import Field, Object
from pik.cli.values import Count, Moment
from pik.errors import PikError, number_of
from pik.model.instant import day_text, display_instant
from pik.model.window import Window
from pik.ports.store import Store

if TYPE_CHECKING:
    from pik.usecases.care.verify_continue import Earlier, TakenOver
    from pik.usecases.care.verify_findings import Depth


NOTHING_KEPT = (
    "nothing to continue: everything will be checked from the start"
    " (nothing is kept of a check that ended, nor when the index was rebuilt since)"
)


def _directory() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if given.startswith("/") else Path(os.path.expanduser("~")) / ".cache"
    return base / "pik" / "verify"


def _prefix(store: Store) -> str:
    return sha256(store.url.encode(errors="surrogateescape")).hexdigest()[:16]


def forget_checks(store: Store) -> None:
    """Forget what interrupted verifications of the store have checked: its index is another one."""
    with suppress(OSError):
        for path in _directory().glob(f"{_prefix(store)}-*"):
            path.unlink(missing_ok=True)


@contextmanager
def keeping_checks(cli: Context, store: Store, window: Window, depth: Depth, *, resume: bool) -> Iterator[Earlier]:
    """Keep what is checked in a file of the user's until the verification has ended. With `resume`, what an earlier
    one has checked is taken over. An error or an interruption says how to go on."""
    from pik.runtime.checkpoint import Checkpoint
    from pik.usecases.care.verify_continue import Earlier

    of_window = sha256(f"{window.start} {window.end}".encode()).hexdigest()[:8]
    checkpoint = Checkpoint(_directory() / f"{_prefix(store)}-{depth}-{of_window}", cli.note)
    if resume and not checkpoint.resume():
        cli.note(NOTHING_KEPT)
    advice = "the same command with --continue takes over what was checked"
    try:
        yield Earlier(store, depth, checkpoint)
    except KeyboardInterrupt:
        kept = advice if checkpoint.has_entries else "nothing of it is kept: the same command begins again"
        raise KeyboardInterrupt(f"interrupted; {kept}") from None
    except PikError as error:
        if checkpoint.has_entries:
            error.hint = f"{error.hint}\n{advice}" if error.hint else advice
        raise
    finally:
        checkpoint.close()


def taken_over_text(found: TakenOver | None) -> str | None:
    """Return, for people, which days an earlier verification looked at, and when."""
    if found is None:
        return None
    first, last = day_text(min(found.days)), day_text(max(found.days))
    days = first if first == last else f"{number_of(len(found.days), 'day')} from {first} to {last}"
    start, end = display_instant(found.checked_from), display_instant(found.checked_until)
    times = f"at {start}" if start == end else f"from {start} to {end}"
    segments = number_of(found.segments, "segment")
    return f"{segments} of {days}, checked {times} by a verification that was interrupted, not looked at again"


TAKEN_OVER = Field(
    "checked_earlier",
    Object(
        Field("segments", Count),
        Field("days", Count, "with such segments", get=lambda found: len(found.days)),
        Field("first_day", str, get=lambda found: day_text(min(found.days))),
        Field("last_day", str, get=lambda found: day_text(max(found.days))),
        Field("checked_from", Moment, "when the check of the first ones began"),
        Field("checked_until", Moment, "when the check of the last ones began"),
        null=True,
    ),
    "segments that an interrupted verification had checked, taken over by `--continue`; the index lists them as then,"
    " they were not looked at again, and all counts include them; null: none",
    get="summary.taken_over",
    text=lambda problems: taken_over_text(problems.summary.taken_over),
)
