"""The SQL of recorded corrections: lines with the times at which they happened, and which events are out.

Lists may have a million deliveries, so their tables are slim: a delivery is a number, a time is microseconds and the
three digits after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pik.engine.sandbox import OutOfMemory, file_list, first_line, literal
from pik.errors import Damaged
from pik.ports.engine import CorrectionFiles

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SEQS = 1 << 40
"""More than any batch has deliveries."""

_TIME = "strftime(make_timestamp(moved.us), '%Y-%m-%dT%H:%M:%S.%f') || lpad(CAST(moved.rest AS VARCHAR), 3, '0') || 'Z'"
"""A time as raw has it."""


@dataclass(frozen=True, slots=True)
class CorrectedLines:
    """How lines are corrected by the tables that `load_corrections` makes: some are `moved`, events are `out`. With
    `named`, lines have the ids of the corrections."""

    moved: bool = False
    out: bool = False
    named: bool = False

    @property
    def columns(self) -> list[str]:
        """What lines of `applied` have beside their fields: `_corrected`, the time of a moved one where that is not the
        one in raw, `_out`, and with `named` the ids in `_moved_by` and `_out_by`."""
        found = ["_corrected"] * self.moved + ["_out"] * self.out
        return found + (["_moved_by"] * self.moved + ["_out_by"] * self.out if self.named else [])

    @property
    def filters(self) -> list[str]:
        """The conditions on a line of `applied` that they add."""
        return ["NOT line._out"] if self.out else []

    @property
    def fields(self) -> list[str]:
        """The fields that a line must have."""
        return ["batch_id", "seq", "event_time"] * self.moved + ["event_id"] * self.out

    def applied(self, read: str, fields: Iterable[str], received: bool = False) -> str:
        """Return the SQL of a relation like `read`, whose lines have these fields, with the times that count. With
        `received` their own times are there as `_received`."""
        if not self.moved and not self.out:
            return read
        columns = [f"line.{field} AS {field}" for field in fields if field != "event_time" or not self.moved]
        joins = ""
        if self.moved:
            is_moved = "moved.us IS NOT NULL AND line.event_time IS NOT NULL"
            columns.append(f"CASE WHEN {is_moved} THEN {_TIME} ELSE line.event_time END AS event_time")
            columns.append(f"CASE WHEN {is_moved} THEN nullif({_TIME}, line.event_time) END AS _corrected")
            if self.named:
                columns.append("moved.ids AS _moved_by")
            joins += (
                " LEFT JOIN moved_batch ON moved_batch.batch_id = line.batch_id"
                f" LEFT JOIN moved ON moved.place = moved_batch.number * {_SEQS} + line.seq"
            )
        if self.out:
            columns.append("out_event.id IS NOT NULL AS _out")
            if self.named:
                columns.append("out_event.ids AS _out_by")
            joins += " LEFT JOIN out_event ON out_event.id = CAST('0x' || line.event_id AS UHUGEINT)"
        if received:
            columns.append("line.event_time AS _received")
        return f"(SELECT {', '.join(columns)} FROM {read} AS line{joins})"


UNCORRECTED = CorrectedLines()


def load_corrections(
    db: DuckDBPyConnection, corrections: Sequence[CorrectionFiles], *, named: bool = False
) -> CorrectedLines:
    """Load what corrections list into the tables `moved_batch`, `moved` and `out_event`, as far as there is any, and
    return how lines are corrected. Raises Damaged unless all of it is there."""
    moving = [one for one in corrections if one.moves]
    removing = [one for one in corrections if not one.moves]
    with _reading(corrections):
        if moving:
            _load_moved(db, moving, named)
        if removing:
            _load_out(db, removing, named)
    return CorrectedLines(bool(moving), bool(removing), named)


def load_listed(db: DuckDBPyConnection, corrections: Sequence[CorrectionFiles]) -> None:
    """Load what corrections list into the table `listed`. Raises Damaged unless all of it is there."""
    columns = {"event_id": "VARCHAR", "batch_id": "VARCHAR", "seq": "BIGINT"}
    if not corrections:
        nothing = ", ".join(f"CAST(NULL AS {sql_type}) AS {name}" for name, sql_type in columns.items())
        db.execute(f"CREATE TEMP VIEW listed AS SELECT CAST(NULL AS VARCHAR) AS correction_id, {nothing} WHERE false")
        return
    with _reading(corrections):
        db.execute(f"CREATE TEMP TABLE listed_line AS {_listed(corrections, columns)}")
        _expect(db, "SELECT count(seq) FROM listed_line", corrections)
    by = _id_of(corrections)
    db.execute(f"CREATE TEMP VIEW listed AS SELECT {by} AS correction_id, {', '.join(columns)} FROM listed_line")


@contextmanager
def _reading(corrections: Sequence[CorrectionFiles]) -> Iterator[None]:
    """Raise Damaged for errors that the lists are to blame for."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise OutOfMemory(error) from None
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise _damaged([file for one in corrections for file in one.files], first_line(error)) from None


def _load_moved(db: DuckDBPyConnection, moving: Sequence[CorrectionFiles], named: bool) -> None:
    batches = _listed(moving, {"batch_id": "VARCHAR"})
    db.execute(
        "CREATE OR REPLACE TEMP TABLE moved_batch AS SELECT batch_id, CAST(row_number() OVER () AS BIGINT) AS number"
        f" FROM (SELECT DISTINCT batch_id FROM ({batches}))"
    )
    listed = _listed(moving, {"batch_id": "VARCHAR", "seq": "BIGINT", "time": "VARCHAR"})
    by = f", {_id_of(moving)} AS ids" if named else ""
    correction = ", correction" if len(moving) > 1 else ""
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE moved AS SELECT number * {_SEQS} + seq AS place,"
        " epoch_us(CAST(time AS TIMESTAMP)) AS us, CAST(time[27:29] AS USMALLINT) AS rest"
        f"{by}{correction} FROM ({listed}) JOIN moved_batch USING (batch_id)"
    )
    _expect(db, "SELECT count(us) FROM moved", moving)
    if correction:  # of several about one delivery the last one holds
        last = ", ".join(f"arg_max({name}, correction) AS {name}" for name in ("us", "rest", *(["ids"] * named)))
        db.execute(f"CREATE OR REPLACE TEMP TABLE moved AS SELECT place, {last} FROM moved GROUP BY place")


def _load_out(db: DuckDBPyConnection, removing: Sequence[CorrectionFiles], named: bool) -> None:
    listed = _listed(removing, {"event_id": "VARCHAR"})
    by = f", {_id_of(removing)} AS ids" if named else ""
    db.execute(
        "CREATE OR REPLACE TEMP TABLE out_event AS SELECT CAST('0x' || event_id AS UHUGEINT) AS id"
        f"{by}{', correction' * named} FROM ({listed})"
    )
    _expect(db, "SELECT count(id) FROM out_event", removing)
    if named:
        by = "string_agg(DISTINCT ids, ',' ORDER BY ids)"
        db.execute(f"CREATE OR REPLACE TEMP TABLE out_event AS SELECT id, {by} AS ids FROM out_event GROUP BY id")
    else:
        db.execute("CREATE OR REPLACE TEMP TABLE out_event AS SELECT DISTINCT id FROM out_event")


def _listed(corrections: Sequence[CorrectionFiles], columns: dict[str, str]) -> str:
    """Return the SQL of the lines of all lists, with the number of their correction."""
    types = ", ".join(f"{name}: '{sql_type}'" for name, sql_type in columns.items())
    return " UNION ALL ".join(
        f"SELECT {', '.join(columns)}, {number} AS correction FROM read_json({file_list(one.files)}, "
        f"format = 'newline_delimited', compression = 'zstd', records = true, columns = {{{types}}})"
        for number, one in enumerate(corrections)
    )


def _id_of(corrections: Sequence[CorrectionFiles]) -> str:
    """Return the SQL of a correction's id, given its number as `correction`."""
    ids = ", ".join(literal(one.correction_id) for one in corrections)
    return f"([{ids}])[correction + 1]"


def _expect(db: DuckDBPyConnection, count: str, corrections: Sequence[CorrectionFiles]) -> None:
    found, lines = db.execute(count).fetchone() or (0,), sum(one.lines for one in corrections)
    if found[0] != lines:
        files = [file for one in corrections for file in one.files]
        raise _damaged(files, f"they have {found[0]} whole deliveries of {lines}")


def _damaged(files: Sequence[Path], what: str) -> Damaged:
    names = files[0].name if len(files) == 1 else f"{len(files)} files, {files[0].name} the first"
    return Damaged(f"the lists of corrections cannot be read ({names}): {what}", hint="pik verify --full")
