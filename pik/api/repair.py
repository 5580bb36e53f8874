"""What writes: ingesting, and computing numbers again. Only a store that was opened with `writable=True` does it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pik.api.html import facts
from pik.api.inspect import instant_or_none
from pik.api.numbers import Diff, Numbers
from pik.api.opened import Names, names_of, warn
from pik.api.results import Result
from pik.api.rows import Ingested
from pik.api.times import Duration, Instant, When, window_of
from pik.errors import InputError, Invalid, PikError, UsageError

if TYPE_CHECKING:
    from pik.model.run import Run as StoredRun
    from pik.rawlog.reading import Reading
    from pik.usecases.ingest.batch_ingest import IngestReport
    from pik.usecases.replay.plan import Plan
    from pik.usecases.replay.promote import Move

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Repair(Numbers):
    """What writes."""

    def ingest(
        self,
        files: Paths,
        *,
        input: str | None = None,  # noqa: A002 - the option's name
        records: str | None = None,
        pattern: str | None = None,
        delimiter: str | None = None,
        columns: str | None = None,
        null: str | None = None,
        quote: str | None = None,
        escape: str | None = None,
        encoding: str | None = None,
        mapping: str | None = None,
        map: Mapping[str, str] | None = None,  # noqa: A002 - the option's name
        time_format: Names = None,
        timezone: Names = None,
        ambiguous: str | None = None,
        on_conflict: str = "record",
        again: bool = False,
        workers: int = 0,
    ) -> Result[Ingested]:
        """Record every event of the files, each exactly once: `pik ingest`. Returns what became of each input.

        `files` is a path, a glob, `s3://…`, or several of these; the other arguments say how records are read, as the
        options do (`map={"entity_id": "user.id"}`). Called again after an interruption it continues; content that was
        ingested before is recorded again only with `again`. `workers` processes parse; 0 is this one, and a program
        that asks for more needs the `if __name__ == "__main__":` of multiprocessing. Rejected records are counted and
        kept; an input that cannot be read raises InputError at the end, when all others are recorded.
        """
        from pik.inputs.archives import with_members
        from pik.inputs.paths import sources_of
        from pik.runtime import SILENT
        from pik.stores import open_foreign
        from pik.usecases.ingest.batch_ingest import IngestOptions
        from pik.usecases.ingest.many_inputs import ingest_all

        self._expect_writable("ingest")
        if on_conflict not in ("record", "fail"):
            raise UsageError(f"on_conflict: invalid choice {on_conflict!r}", hint="record or fail")
        layout = {
            "input": input,
            "records": records,
            "pattern": pattern,
            "delimiter": delimiter,
            "columns": columns,
            "null": null,
            "quote": quote,
            "escape": escape,
            "encoding": encoding,
        }
        times = {
            "time-format": list(names_of(time_format)),
            "timezone": list(names_of(timezone)),
            "ambiguous": ambiguous,
        }
        reading = self._reading(layout, times, map or {}, mapping)
        paths = [os.fspath(files)] if isinstance(files, (str, os.PathLike)) else [os.fspath(one) for one in files]
        sources = sources_of(paths, lambda: open_foreign(self.url), warn)
        options = IngestOptions(
            reading, refuse_conflicts=on_conflict == "fail", again=again, workers=workers, actor=self._actor
        )
        refused: list[tuple[str, PikError]] = []

        def refuse(name: str, error: PikError) -> None:
            refused.append((name, error))

        inputs = with_members(sources, warn, refuse)
        done = [_ingested(one) for one in ingest_all(self._store, inputs, options, SILENT, refuse)]
        if refused:
            name, error = refused[0]
            others = f"; so were {len(refused) - 1:,} more" if len(refused) > 1 else ""
            raise InputError(f"{name} was refused{others}: {error.message}", hint=error.hint) from error
        result: Result[Ingested] = self._result(Ingested, lambda _: done, None, "inputs")
        result.keep(done)
        return result

    def _reading(
        self, layout: Mapping[str, Any], times: Mapping[str, Any], fields: Mapping[str, str], mapping: str | None
    ) -> Reading:
        """Return how records are read. Raises UsageError."""
        from pik import config
        from pik.model.event import MAX_LINE
        from pik.model.layout import read_layout
        from pik.model.times import read_times
        from pik.rawlog.reading import Reading
        from pik.usecases.ingest.reading import resolve_reading

        try:
            given = Reading(
                MAX_LINE,
                mapping=dict(fields),
                times=read_times({name: text for name, text in times.items() if text}),
                layout=read_layout({name: text for name, text in layout.items() if text is not None}),
            )
        except Invalid as error:
            raise UsageError(error.message, hint=error.hint) from None
        return resolve_reading(config.ingest_defaults(self._settings), given, mapping, warn)

    def replay(
        self,
        entity: Names = None,
        metric: Names = None,
        *,
        all: bool = False,  # noqa: A002 - the option's name
        from_: When | None = None,
        to: When | None = None,
        since: Duration | None = None,
        timezone: str | None = None,
        type: str | None = None,  # noqa: A002 - the option's name
        source: str | None = None,
        correction: str | None = None,
        assume: Names = None,
        reason: str = "",
    ) -> Replay:
        """Plan to compute aggregates again from raw, next to the current ones: `pik replay`. Nothing is written until
        `run()` of the plan is called, and nothing becomes current until `promote()` of the run is.

        Buckets are computed whole: `type`, `source` and `correction` choose buckets, never a bucket's inputs. Raises
        UsageError unless something is selected (`all=True`: every entity), NothingSelected where there is nothing to
        replay, NotFound, and NotHeld where raw has expired.
        """
        from msgspec import structs

        from pik.model.assumption_text import replay_assumptions
        from pik.model.run import RunRequest
        from pik.rawlog.corrections import find_correction
        from pik.usecases.replay.plan import expect_work, left_out_of, plan_replay

        entities = names_of(entity)
        if not (entities or all or source or type or correction):
            raise UsageError("nothing selected to replay", hint="entity=, source=, type=, correction=, or all=True")
        if entities and all:
            raise UsageError("entity and all exclude each other", hint="leave one of them out")
        window = window_of(from_, to, since, timezone)
        request = RunRequest(
            start=window.start,
            end=window.end,
            entities=tuple(sorted(set(entities))),
            metrics=tuple(sorted(set(names_of(metric)))),
            source=source,
            event_type=type,
            assumed=replay_assumptions(names_of(assume)),
            correction=correction,
            reason=reason,
        )
        if correction is not None:
            request = structs.replace(request, correction=find_correction(self._store, correction).correction_id)
        actor = self._actor if self._writable else ""
        plan = plan_replay(self._store, self._engine, request, time.time_ns(), actor=actor)
        expect_work(self._store, plan.run)
        return Replay(self, plan, tuple(self._left_out(left_out_of(self._store, request))))

    def run(self, run_id: str) -> Run:
        """Return a run by its id, or the beginning of it. Raises NotFound."""
        return Run(self, self._store.runs.get(run_id))


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay that is planned: what it would compute. Nothing is written."""

    _store: Repair = field(repr=False)
    _plan: Plan = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def events_matched(self) -> int | None:
        """How many events chose its buckets; None: raw is damaged."""
        return self._plan.run.events_matched

    @property
    def buckets(self) -> int | None:
        """How many whole buckets it computes, counted for each metric; None: raw is damaged."""
        return self._plan.run.buckets

    @property
    def window(self) -> tuple[Instant, Instant]:
        """The whole buckets that the window touches: their start, and their end."""
        return Instant(self._plan.run.effective_start), Instant(self._plan.run.effective_end)

    def run(self, *, workers: int = 0) -> Run:
        """Compute, and return the run when it has ended. An interrupted run of the same request is continued. `workers`
        processes compute (0: this one); a stack uses its own. Raises UsageError for a store that is open to be read
        only, Busy, StoreError."""
        from pik.runtime import SILENT
        from pik.usecases.replay.execute import Pace, execute_run
        from pik.usecases.replay.plan import start

        store = self._store
        store._expect_writable("run")
        unfinished = store._store.runs.unfinished(self._plan.run.request)
        found = unfinished or start(store._store, self._plan)
        return Run(store, execute_run(store._store, store._engine, found.run_id, Pace(workers=workers), SILENT))

    def _repr_html_(self) -> str:
        start, end = self.window
        pairs = [("from", start), ("to", end), ("events_matched", self.events_matched), ("buckets", self.buckets)]
        return facts(pairs)


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion or rollback did: aggregates that it `moved`, that `already` were so, and `conflicts`, left
    unchanged because another promotion had changed them."""

    moved: int
    already: int
    conflicts: int


class Run:
    """A run, as it was when it was read: `state` is `COMPLETED`, `PARTIAL` (some tasks or values failed), `FAILED`,
    `CANCELLED`, `PLANNING`, `PLANNED` or `RUNNING`."""

    def __init__(self, store: Repair, run: StoredRun) -> None:
        self._store, self._run = store, run

    @property
    def run_id(self) -> str:
        """Its id."""
        return self._run.run_id

    @property
    def state(self) -> str:
        """How far it is, or how it ended."""
        return str(self._run.state)

    @property
    def counts(self) -> dict[str, int]:
        """How many of its values are `new` (there was no current one), `changed`, `unchanged`, `removed` (there are no
        events any more), and how many could not be computed (`failed_aggregates`)."""
        names = ("new", "changed", "unchanged", "removed", "failed_aggregates")
        return {name: getattr(self._run, name) for name in names}

    def diff(self, *, limit: int | None = None) -> Diff:
        """Return what promoting it would change: `pik diff aggregates --run`."""
        return self._store.diff(run=self.run_id, limit=limit)

    def promote(self, reason: str = "") -> Promotion:
        """Make what it wrote current: `pik promote`. An aggregate that has changed since the run read it is a conflict,
        and is left as it is. The reason is that of the run unless one is given. Raises UsageError for a run that has
        not ended, or a store that is open to be read only."""
        from pik.usecases.replay.promote import promote

        self._store._expect_writable("promote")
        reason = reason or self._run.request.reason
        store = self._store
        return self._moved(promote(store._store, self.run_id, time.time_ns(), reason, store._actor))

    def rollback(self, reason: str = "") -> Promotion:
        """Make current what was so before the run was promoted: `pik rollback`."""
        from pik.usecases.replay.promote import rollback

        self._store._expect_writable("rollback")
        store = self._store
        return self._moved(rollback(store._store, self.run_id, time.time_ns(), reason, store._actor))

    def _moved(self, move: Move) -> Promotion:
        self._run = move.run
        if move.corrections:
            warn(f"corrections {', '.join(move.corrections)} were recorded after the run had been planned")
        return Promotion(move.counts.moved, move.counts.already, move.counts.conflicts)

    def __repr__(self) -> str:
        return f"<pik.Run {self.run_id} {self.state}>"

    def _repr_html_(self) -> str:
        return facts([("run_id", self.run_id), ("state", self.state), *self.counts.items()])


def _ingested(one: IngestReport) -> Ingested:
    batch, counts = one.batch, one.batch.counts
    return Ingested(
        batch.batch_id,
        one.source,
        str(one.outcome),
        *(counts.read, counts.accepted, counts.exact, counts.conflict, counts.rejected),
        instant_or_none(batch.first_event),
        instant_or_none(batch.last_event),
    )
