"""What the numbers are, what they should be, and why they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pik.api.inspect import instant_or_none
from pik.api.opened import Names, Opened, checked_limit, frames, names_of
from pik.api.results import Result, columns_of
from pik.api.rows import Aggregate, Difference
from pik.api.times import Duration, Instant, When, window_of

if TYPE_CHECKING:
    from pik.model import metric as model
    from pik.usecases.metrics import comparison
    from pik.usecases.metrics.diff import Diff as Compared


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
        tolerance: Names = None,
        changed_only: bool = False,
        explain: bool = False,
        limit: int | None = None,
    ) -> Diff:
        """Recompute from raw and return how the current values differ: `pik diff aggregates`. Nothing is written.

        `tolerance` ignores differences up to `0.01`, `0.5%`, or of one metric `revenue=0.5%`; `changed_only` leaves out
        what only one side has; `explain` splits each difference by cause. Raises UsageError, NothingSelected where
        there is nothing to compare, NotHeld where raw has expired; EngineError while iterating.
        """
        from pik.usecases.metrics.causes import with_causes
        from pik.usecases.metrics.comparison import read_tolerances
        from pik.usecases.metrics.diff import diff_aggregates

        window, metrics, entities = window_of(from_, to, since, timezone), names_of(metric), names_of(entity)
        tolerances = read_tolerances(names_of(tolerance))

        def compare() -> Compared:
            found = diff_aggregates(
                *(self._store, self._engine, window),
                metrics=metrics,
                entities=entities,
                tolerances=tolerances,
                changed_only=changed_only,
            )
            return with_causes(self._store, self._engine, found, metrics) if explain else found

        return Diff(compare, self._bucket_texts(), self._left_out, limit)


class Diff(Result[Difference]):
    """The differences between two sides, by metric, bucket and entity: an empty result says that there are none."""

    def __init__(
        self,
        compare: Callable[[], Compared],
        local_text: Callable[[str, int], str | None],
        left_out: Callable[[tuple[str, ...]], list[str]],
        limit: int | None,
    ) -> None:
        self._found, self._is_fresh = compare(), True  # which complains at once of what is wrong with the arguments

        def ask(_: int | None) -> Iterator[Difference]:
            if not self._is_fresh:
                self._found = compare()
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
