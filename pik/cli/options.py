"""Options that several commands share, and what they mean."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from pik.cli.completion import completed
from pik.cli.document import Column, Field, or_null
from pik.cli.text import broken
from pik.cli.values import Moment
from pik.errors import Invalid, PikError, UsageError
from pik.model.cluster import expect_cluster
from pik.model.duration import parse_duration
from pik.model.instant import MAX_INSTANT, MIN_INSTANT
from pik.model.typed_times import WORDS, typed_instant
from pik.model.visible import visible
from pik.model.window import Window
from pik.model.zone import Zone, load_zone
from pik.ports.fleet import LOCAL

if TYPE_CHECKING:
    from pik.cli.context import Context

_Row = TypeVar("_Row")


def option(usage: str, help: str, **settings: Any) -> Any:  # noqa: A002 - Typer's word
    """Return an option as its help shows it: `--limit N`, `--yes -y`; `settings` are Typer's."""
    names = [word for word in usage.split() if word.startswith("-")]
    metavar = usage.removeprefix(" ".join(names)).strip() or None
    return typer.Option(*names, metavar=metavar, help=help, **{**completed(names[0]), **settings})


def argument(metavar: str, help: str, **settings: Any) -> Any:  # noqa: A002 - Typer's word
    """Return an argument as its help shows it; `settings` are Typer's."""
    return typer.Argument(metavar=metavar, help=help, **{**completed(metavar.strip("[]")), **settings})


def _location(text: str) -> str:
    """Check where to compute, before a command does anything."""
    if text != LOCAL:
        expect_cluster(text)
    return text


From = Annotated[
    str | None,
    option("--from TIME", "First instant of the window: 2026-01-31, 2026-01-31T10:00, today, yesterday, now-2h."),
]
Timezone = Annotated[
    str | None, option("--timezone ZONE", "The IANA zone of dates and times typed without an offset, instead of UTC.")
]
To = Annotated[str | None, option("--to --until TIME", "End of the window, exclusive; a time as for --from.")]
Since = Annotated[
    str | None,
    option("--since TIME", "Begin the window this long ago (90s, 15m, 2h, 7d, 1w), or at a time as for --from."),
]
Entity = Annotated[str | None, option("--entity ID", "Only this entity.")]
Entities = Annotated[list[str] | None, option("--entity ID", "Only this entity (repeatable).")]
Type = Annotated[str | None, option("--type TYPE", "Only events of this type.")]
Source = Annotated[str | None, option("--source SOURCE", "Only events from this source.")]
Metrics = Annotated[list[str] | None, option("--metric NAME", "Only this metric, or NAME@VERSION (repeatable).")]
Limit = Annotated[int | None, option("--limit N", "Show at most N rows, and note if there are more.", min=1)]
FailIfNone = Annotated[bool, option("--fail-if-none", "Exit with 1 if nothing matches.")]
AsReceived = Annotated[bool, option("--as-received", "What came, without recorded corrections.")]
RunId = Annotated[str, argument("RUN", "The run: id or its beginning, latest or -1, -2; `pik runs list` lists them.")]
DryRun = Annotated[bool, option("--dry-run", "Only show what would be done.")]
Yes = Annotated[bool, option("--yes -y", "Do not ask (for runbooks).")]
Reason = Annotated[str, option("--reason TEXT", "The reason; it is recorded.", show_default=False)]

Total = Annotated[
    bool, option("--total", "Totals of each metric instead: exact sums, or the least or greatest of a min or max.")
]
TotalBy = Annotated[
    Literal["metric", "bucket", "run"] | None, option("--by COLUMN", "Totals by metric, bucket or run of each metric.")
]
On = Annotated[
    str,
    option(
        "--on LOCATION",
        "Where to compute: local, or the Spark cluster at spark://HOST:PORT, sc://HOST:PORT (Spark Connect) or "
        "'local-cluster[WORKERS,CORES,MB]', or a job at 'emr-serverless://APPLICATION?role=ARN'; spark-submit within a "
        "job that it started.",
        callback=_location,
    ),
]
AsOf = Annotated[str | None, option("--as-of TIME", "Only what had been recorded by then, with the verdicts of then.")]
Assume = Annotated[
    list[str] | None,
    option(
        "--assume KIND=VALUE",
        "Compute as if (repeatable): without=EVENT_ID, without=suspects,SELECTION (and within=, same=PATH, as in `pik "
        "duplicates`), without-batch=BATCH, with=@FILE (and mapping=NAME, map=FIELD=JMESPATH, time-format=, timezone=, "
        "ambiguous=, max-line=, max-window=, as in `pik ingest`), "
        "delivery=EVENT_ID:N, conflicts=first|last, shift=DURATION,SELECTION, zone=ZONE,SELECTION, duplicates=counted, "
        "without-correction=CORRECTION, definition=@FILE.toml. SELECTION: source=, type=, entity=, batch=, from=, to=, "
        "received-from=, received-to=, where=SQL.",
    ),
]
Via = Annotated[
    Literal["api"] | None, option("--via api", "api: through the stack's HTTP API. [env PIK_API_KEY, PIK_API_URL]")
]


LEFT_OUT = Field(
    "metrics_left_out",
    list[str] | None,
    "metrics over all entities, which `--entity` leaves out; null: none",
    get="left_out",
)

VALUE_RETIRED_AT = Column(
    "retired_at",
    Moment | None,
    "since when its metric is retired; null: it is not",
    get=or_null("retired_at"),
    rare=True,
)
"""The column of a list of values."""


def note_left_out(cli: Context, names: Sequence[str]) -> None:
    """Name the metrics over all entities that --entity leaves out."""
    if names:
        are = "is" if len(names) == 1 else "are"
        cli.note(f"{', '.join(names)} {are} over all entities, and left out because of --entity")


def first_rows(rows: Iterator[_Row], limit: int | None) -> tuple[Iterator[_Row], Callable[[], bool]]:
    """Return the first `limit` rows, and what tells, once they have been read, whether there are more."""
    return islice(rows, limit), lambda: limit is not None and next(rows, None) is not None


def no_actor(cli: Context) -> Mapping[str, tuple[bool, str]]:
    """Return, for `unknown_to_the_api`, that `--via api` takes no actor, from wherever it is given."""
    caller = "the stack records the caller of its API"
    given = cli.actor_option is not None
    return {
        "--actor": (given, f"{caller}; leave it out"),
        "PIK_ACTOR": (not given and cli.settings.actor is not None, f"{caller}; unset PIK_ACTOR for this command"),
    }


def unknown_to_the_api(given: Mapping[str, tuple[bool, str]]) -> None:
    """Raises UsageError for the first option that is given, though `--via api` cannot have it, with its hint."""
    not_beside("--via api", given)


def not_beside(other: str, given: Mapping[str, tuple[bool, str]]) -> None:
    """Raises UsageError for the first option that is given, though it does not go with the other one, with its hint."""
    for option, (is_given, hint) in given.items():
        if is_given:
            raise UsageError(f"{option} does not go with {other}", hint=hint)


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """A window of time, and the zone in which it is typed. A command that takes a parameter of this type has these
    options."""

    from_: From = None
    to: To = None
    since: Since = None
    timezone: Timezone = None

    @property
    def given(self) -> bool:
        """Whether anything limits the window."""
        return bool(self.from_ or self.to or self.since)

    def window(self) -> Window:
        """Return the window. Raises UsageError."""
        return window_of(self.from_, self.to, self.since, self.timezone)


def window_of(from_: str | None, to: str | None, since: str | None, timezone: str | None = None) -> Window:
    """Return the window that --from, --to and --since describe; all of time without them.

    Raises UsageError naming the option that is wrong.
    """
    if since is not None and from_ is not None:
        raise UsageError("--since and --from exclude each other: both begin the window", hint="leave one of them out")
    start, end = MIN_INSTANT, MAX_INSTANT + 1
    typed_zone(timezone)
    if since is not None:
        start = moment_or_ago("--since", since, timezone)
    if from_ is not None:
        start = moment("--from", from_, timezone)
    if to is not None:
        end = moment("--to", to, timezone)
    return Window(start, end)


def typed_zone(timezone: str | None) -> Zone | None:
    """Return the zone that --timezone names. Raises UsageError."""
    try:
        return None if timezone is None else load_zone(timezone)
    except UsageError as error:
        raise UsageError(f"--timezone: {error.message}", hint=error.hint) from None


_now: ContextVar[int] = ContextVar("now")


@contextmanager
def at_one_time(instant: int) -> Iterator[None]:
    """While this holds, `now()` is that instant, in nanoseconds: all times of a command line are relative to it."""
    token = _now.set(instant)
    try:
        yield
    finally:
        _now.reset(token)


def now() -> int:
    """Return the instant that `now` means in a time that was typed, in nanoseconds."""
    return _now.get(None) or time.time_ns()


def moment(name: str, text: str, timezone: str | None) -> int:
    """Return the instant that the option of that name gives, as `typed_instant` reads it; without an offset it is of
    the zone that --timezone names, else UTC. Raises UsageError."""
    hint = f"such as {WORDS}"
    if _is_duration(text):
        hint = f"that long ago is now-{text}"
    return _parsed(name, partial(typed_instant, zone=typed_zone(timezone), now=now()), text, hint)


def moment_or_ago(name: str, text: str, timezone: str | None) -> int:
    """Return the instant that the option of that name gives: `2h` is two hours ago, all else as in `moment`. Raises
    UsageError."""
    if _is_duration(text):
        return now() - parse_duration(text)
    instant = partial(typed_instant, zone=typed_zone(timezone), now=now())
    return _parsed(name, instant, text, f"how long ago (15m, 2h, 7d), or {WORDS}")


def _is_duration(text: str) -> bool:
    try:
        parse_duration(text)
    except Invalid:
        return False
    return True


def duration(name: str, text: str) -> int:
    """Return the nanoseconds that the option gives. Raises UsageError naming it."""
    return _parsed(name, parse_duration, text)


def _parsed(name: str, parse: Callable[[str], int], text: str, hint: str = "") -> int:
    try:
        return parse(text)
    except Invalid as error:
        raise UsageError(f"{name}: {error.message}", hint=error.hint or hint) from None


def able_to_ask(yes: bool) -> None:
    """Raises UsageError where a question will have to be asked, and stdin is not a terminal."""
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise UsageError("confirmation required, but stdin is not a terminal", hint="add --yes")


def confirm(plan: str, yes: bool, *, declined: str = "nothing was changed", hint: str = "") -> None:
    """Show what is about to be done and ask, unless `yes`. `declined` is how things are after a no.

    Raises UsageError where stdin is not a terminal, PikError if the answer is no.
    """
    if yes:
        return
    able_to_ask(yes)
    print("\n".join(_fitted(plan)), file=sys.stderr)
    print("Go ahead? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise PikError(f"not confirmed; {declined}", hint=hint)


def _fitted(plan: str) -> Iterator[str]:
    """Yield the lines of a plan, those that are longer than the terminal broken, with what follows indented."""
    columns = shutil.get_terminal_size().columns
    for line in map(visible, plan.split("\n")):
        text = line.lstrip()
        indent = " " * (len(line) - len(text))
        first, *rest = broken(text, max(columns - len(indent) - 2, 20))
        yield indent + first
        yield from (f"{indent}  {one}" for one in rest)
