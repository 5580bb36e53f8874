"""The number that a value should be, and the scenarios that give it: what `pik explain` shows of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

from pik.cli.commands.numbers.assumed import for_good
from pik.cli.document import Column, Field, Rows
from pik.cli.options import option
from pik.cli.values import Count
from pik.errors import Invalid, UsageError, command
from pik.model.criteria import Criteria
from pik.model.instant import format_instant
from pik.model.scenario import CountedConflict, WithoutSuspects

if TYPE_CHECKING:
    from pik.ports.engine import Engine
    from pik.ports.store import Store
    from pik.runtime import Progress
    from pik.usecases.metrics.explanation import Explanation
    from pik.usecases.metrics.tolerance import Tolerance
    from pik.usecases.metrics.trials import Trials

Expect = Annotated[
    str | None,
    option("--expect NUMBER", "What the value should be, such as 4469.45; also try which scenario gives that."),
]


def read_number(option: str, text: str) -> Decimal:
    """Return the number that an option gives. Raises UsageError."""
    from pik.inputs.figures import number_text  # imports csv

    try:
        number = number_text(text)
    except Invalid as error:
        raise UsageError(f"{option}: {error.message}", hint=f"digits and a point: {option} 1234.50") from None
    if number is None:
        raise UsageError(f"{option} is empty", hint=f"{option} 1234.50")
    return Decimal(text.strip().replace("\u2212", "-"))  # with the digits that were typed


def try_number(
    store: Store,
    engine: Engine,
    found: Explanation,
    number: Decimal | None,
    tolerances: Sequence[Tolerance],
    progress: Progress,
) -> Trials | None:
    """Return which scenarios give the number; None where the right side does, or there is none."""
    from pik.usecases.metrics.candidates import Question
    from pik.usecases.metrics.chain import value_of
    from pik.usecases.metrics.trials import try_scenarios

    if number is None:
        return None
    recomputed = value_of(found.recomputed)
    asked = Question(number, recomputed, found.metric, found.entity_id, found.bucket, found.scenario, tolerances)
    return None if asked.meets(recomputed) else try_scenarios(store, engine, asked, progress)


def off_by(found: Explanation, number: Decimal | None) -> Decimal | None:
    """Return how much more the right side would have to be."""
    from pik.usecases.metrics.chain import EXACT, value_of

    return None if number is None else EXACT.subtract(number, value_of(found.recomputed))


def next_of(store: Store, found: Explanation, trials: Trials, assume: Sequence[str]) -> str | None:
    """Return the command that goes on with the first scenario that gives the number; without one, what is wrong with
    the value's events. None where nothing can be done about it."""
    from pik.usecases.metrics.definitions import pin
    from pik.usecases.metrics.states import options_of

    start, end = format_instant(found.bucket), format_instant(found.metric.buckets.end_of(found.bucket))
    if not trials.met:
        return command("triage", *options_of(found.entity_id), "--from", start, "--to", end)
    first = trials.met[0]
    given = [word for text in assume for word in ("--assume", text)]
    if first.bucket is not None or first.entity:
        if found.scenario.as_of is not None:
            given += ["--as-of", format_instant(found.scenario.as_of)]
        metric = pin(found.metric) if found.metric.version else found.metric.name
        bucket = start if first.bucket is None else format_instant(first.bucket)
        entity = first.entity or found.entity_id
        return command("explain", *given, "--", metric, *([entity] if entity else []), bucket)
    place = [found.metric.name, *([found.entity_id] if found.entity_id else []), start]
    if first.kind == "current":  # against raw: what has come since
        return command("explain", "--left", first.scenario, "--events", "--", *place)
    if first.kind == "as-of":
        return command("explain", "--as-of", first.scenario.removeprefix("as-of="), *given, "--events", "--", *place)
    return for_good(store, first.assumed, [*assume, *first.typed]) if first.is_correctable else None


def trials_notes(found: Explanation, trials: Trials | None) -> Iterator[str]:
    """Yield what is to be said of several scenarios that give the number, and of a correction that may reach further
    than the value that was asked about."""
    if trials is None or not trials.met:
        return
    if len(trials.met) > 1:
        yield f"{len(trials.met)} scenarios give the number; raw cannot tell which one is true, the producer can"
    first = trials.met[0]
    if first.is_correctable and any(
        isinstance(one, CountedConflict | WithoutSuspects) for one in first.assumed.assumptions
    ):
        only = Criteria(entity=found.entity_id or None, window=found.metric.buckets.around(found.bucket))
        append = "append to each --assume" if len(first.typed) > 1 else "append"
        yield f"the correction may reach further than this value, see its plan; for this value alone {append} ,{only}"


_ONLY = "with `--expect`, or a file on the left"

EXPECTED = (
    Field("expected_value", Decimal | None, "by `--expect`", only="with `--expect`"),
    Field("off_by", Decimal | None, "expected value - recomputed", only="with `--expect`"),
)

TRIED = (
    Rows(
        "trials",
        "scenarios that give the number, first those that change the fewest deliveries; null: the right side gives it,"
        " or a file has none",
        Column("kind", str),
        Column("scenario", str, "as it is typed", wrap=True),
        Column("value", Decimal | None, drop=1),
        Column("events", Count | None, "deliveries that count otherwise than recomputed; null: not known", drop=2),
        Column("detail", str, wrap=True),
        empty="no scenario that was tried gives the number",
        absent="no scenario was tried: the right side gives the number, or is within the tolerance",
        only=_ONLY,
    ),
    Field("tried", Count | None, "scenarios", only=_ONLY),
    Field("failed", Count | None, "of those that cannot be computed", only=_ONLY),
    Field("not_tried", list[str] | None, only=_ONLY),
)
