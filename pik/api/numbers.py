"""What the numbers are, what they should be, and why they differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pik.api.explanation import Explanation, explanation
from pik.api.inspect import instant_or_none
from pik.api.opened import Names, Opened, checked_limit, frames, names_of, warn
from pik.api.results import Result, columns_of
from pik.api.rows import Aggregate, Difference
from pik.api.times import Duration, Instant, When, nanos_of, window_of, zone_of
from pik.errors import Invalid, UsageError
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model import aggregate as model
    from pik.model.scenario import Scenario
    from pik.usecases.metrics import comparison
    from pik.usecases.metrics.diff import Diff as Compared
    from pik.usecases.metrics.sides import Side


class Numbers(Opened):
    """Values, and what they should be."""

    def aggregates(
        self,
        entity: Names = None,
        metric: Names = None,
        *,
        from_: When | None = None,
        to: When | None = None,
        since: Duration | None = None,
        timezone: str | None = None,
        history: bool = False,
        limit: int | None = None,
    ) -> Result[Aggregate]:
        """Return the current values of the buckets that the window touches, or with `history` every version of them, by
        metric, bucket and entity: `pik aggregates`.

        A metric is NAME, or NAME@VERSION for values that this definition made. Raises UsageError, NotFound for an
        unknown metric; while iterating Damaged at a value that is not as it was written.
        """
        from pik.usecases.metrics.definitions import list_aggregates

        window, metrics, entities = window_of(from_, to, since, timezone), names_of(metric), names_of(entity)

        def listing() -> Any:
            return list_aggregates(self._store, window, metrics=metrics, entities=entities, history=history)

        def ask(_: int | None) -> Iterator[Aggregate]:
            local_text = self._bucket_texts()
            return (_aggregate(row, local_text) for row in listing().rows)

        notes = self._left_out(listing().left_out)
        return self._result(Aggregate, ask, limit, "values", notes=lambda: notes)

    def diff(
        self,
        entity: Names = None,
        metric: Names = None,
        *,
        from_: When | None = None,
        to: When | None = None,
        since: Duration | None = None,
        timezone: str | None = None,
        left: str | None = None,
        right: str | None = None,
        run: str | None = None,
        tolerance: Names = None,
        changed_only: bool = False,
        as_of: When | None = None,
        assume: Names = None,
        explain: bool = False,
        limit: int | None = None,
    ) -> Diff:
        """Recompute from raw and return how the current values differ: `pik diff aggregates`. Nothing is written.

        Other sides: `left` is `current`, `current@TIME`, `run:ID` or `file:PATH`, `right` is `recomputed`, `current`,
        `current@TIME` or `run:ID`, for which `run="ID"` is short. `as_of` and `assume` recompute under a scenario, as
        the options do. `tolerance` ignores differences up to `0.01`, `0.5%`, or of one metric `revenue=0.5%`;
        `changed_only` leaves out what only one side has; `explain` splits each difference by cause. Raises UsageError,
        NotFound, NothingSelected where there is nothing to compare, NotHeld where raw has expired; EngineError while
        iterating.
        """
        from pik.usecases.metrics.chosen_sides import file_request
        from pik.usecases.metrics.compare_sides import Comparing, compare_sides
        from pik.usecases.metrics.tolerance import read_tolerances

        window: Window | None = window_of(from_, to, since, timezone)
        sides = self._sides(left, right, run, timezone)
        asked = Comparing(
            *sides,
            file_request(sides[0], (), ()),
            self._scenario(as_of, assume, timezone, sides[1], run),
            metrics=names_of(metric),
            entities=names_of(entity),
            tolerances=read_tolerances(names_of(tolerance)),
            changed_only=changed_only,
            explains=explain,
        )
        if "run" in (sides[0].kind, sides[1].kind):
            if window != Window():
                raise UsageError("a run has its own window", hint="leave from_, to and since out")
            window = None

        def compare(stack: ExitStack) -> Compared:
            return compare_sides(stack, self._store, self._engine, asked, window)

        return Diff(compare, self._bucket_texts(), self._left_out, limit)

    def _sides(self, left: str | None, right: str | None, run: str | None, timezone: str | None) -> tuple[Side, Side]:
        from pik.usecases.metrics.chosen_sides import read_sides

        return read_sides(left, right, None, run, zone_of(timezone), now=time.time_ns())

    def _scenario(
        self, as_of: When | None, assume: Names, timezone: str | None, right: Side, run: str | None
    ) -> Scenario:
        """Return the scenario. Raises UsageError where the right side is recorded."""
        from pik import config
        from pik.usecases.metrics.chosen_sides import refuse_scenario, scenario_of

        known = None if as_of is None else nanos_of("as_of", as_of, zone_of(timezone))
        found = scenario_of(known, names_of(assume), lambda: config.ingest_defaults(self._settings), warn)
        refuse_scenario(found, right, run)
        return found

    def explain(
        self,
        metric: str,
        entity: str | None,
        bucket: When,
        *,
        left: str | None = None,
        right: str | None = None,
        run: str | None = None,
        as_of: When | None = None,
        timezone: str | None = None,
        assume: Names = None,
    ) -> Explanation:
        """Split the difference between the current value and the recomputed one by cause: `pik explain`.

        `entity` is None for a metric over all entities; `bucket` a date (in the metric's timezone), or any time in it.
        The sides and the scenario are those of `diff`. Raises UsageError, NotFound, NothingSelected where there is no
        value on either side, NotHeld, Damaged and EngineError.
        """
        from datetime import date, datetime

        from pik.model.metric import ALL_ENTITIES, entities_of
        from pik.usecases.metrics.chosen_sides import file_request
        from pik.usecases.metrics.explain import explain, named_bucket
        from pik.usecases.metrics.file_numbers import file_numbers
        from pik.usecases.metrics.sides import LEFT, RIGHT, RecordedSide

        sides = self._sides(left, right, run, timezone)
        scenario = self._scenario(as_of, assume, timezone, sides[1], run)
        text = bucket.isoformat() if isinstance(bucket, date) and not isinstance(bucket, datetime) else bucket
        try:
            if isinstance(text, str):
                instant = named_bucket(self._store, self._engine, metric, text, scenario, now=time.time_ns())
            else:
                instant = nanos_of("bucket", text, zone_of(timezone))
        except Invalid as error:
            raise UsageError(f"bucket: {error.message}", hint=error.hint or "or a date: 2026-01-31") from None
        whose = ALL_ENTITIES if entity is None else entity
        with ExitStack() as stack:
            given: Any = None if sides[0] == LEFT else sides[0]
            if (request := file_request(sides[0], (), ())) is not None:
                within = Window(instant, instant + 1)
                given = stack.enter_context(
                    file_numbers(
                        *(self._store, self._engine, request, within), metrics=[metric], entities=entities_of(whose)
                    )
                )
            elif given is not None:
                given = RecordedSide(self._store, given)
            after = None if sides[1] == RIGHT else RecordedSide(self._store, sides[1])
            found = explain(
                *(self._store, self._engine, metric, whose, instant, scenario), left=given, right=after, events=True
            )
        return explanation(self._store, found)


class Diff(Result[Difference]):
    """The differences between two sides, by metric, bucket and entity: an empty result says that there are none."""

    def __init__(
        self,
        compare: Callable[[ExitStack], Compared],
        local_text: Callable[[str, int], str | None],
        left_out: Callable[[tuple[str, ...]], list[str]],
        limit: int | None,
    ) -> None:
        self._resources = ExitStack()  # what the comparison reads while its rows are iterated over
        self._found, self._is_fresh = compare(self._resources), True  # complains at once of wrong arguments

        def ask(_: int | None) -> Iterator[Difference]:
            if not self._is_fresh:
                self._resources.close()
                self._found = compare(self._resources)
            self._is_fresh = False
            return (_difference(row, local_text) for row in self._found.rows)

        notes = left_out(self._found.left_out)
        columns = columns_of(Difference)
        super().__init__(*(ask, columns, frames), limit=checked_limit(limit), notes=lambda: notes, title="differences")

    def _compared(self) -> Compared:
        """Return the comparison, its rows read."""
        self._is_fresh = False
        for _ in self._found.rows:  # those that nothing has read yet
            pass
        return self._found

    @property
    def compared(self) -> int:
        """How many pairs of values were compared; those that cannot be computed are not among them."""
        return self._compared().stats.compared

    @property
    def metrics(self) -> list[str]:
        """What the right side was computed with, as NAME@VERSION."""
        return sorted(self._compared().basis.versions)

    @property
    def known_until(self) -> Instant | None:
        """The last recording that the right side knew; None: there was none."""
        return instant_or_none(self._compared().basis.known_until or None)


def _aggregate(row: model.Aggregate, local_text: Callable[[str, int], str | None]) -> Aggregate:
    computed = row.computed
    return Aggregate(
        computed.metric,
        Instant(computed.bucket),
        computed.entity_id or None,
        computed.value,
        computed.inputs,
        row.current,
        row.run_id,
        row.actor or None,
        row.reason or None,
        row.metric_version,
        instant_or_none(row.known_until or None),
        instant_or_none(row.retired_at or None),
        local_text(computed.metric, computed.bucket),
    )


def _difference(row: comparison.Difference, local_text: Callable[[str, int], str | None]) -> Difference:
    failure = row.failure
    return Difference(
        str(row.op),
        row.metric,
        Instant(row.bucket),
        None if failure is not None and failure.damage else row.entity_id or None,
        row.current,
        row.recomputed,
        row.delta,
        row.inputs_before,
        row.inputs_after,
        None if failure is None else failure.reason,
        () if failure is None else tuple(failure.event_ids),
        tuple(f"{cause} {share:+f}" for cause, share in row.causes),
        row.proven,
        local_text(row.metric, row.bucket),
    )
