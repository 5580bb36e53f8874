"""Rows of Parquet as records: each an object from the columns' names to their values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from pik.errors import InputError
from pik.inputs import blocks as limits
from pik.inputs.advice import WHOLE, Advice
from pik.inputs.arrow_json import Texts, expect_readable, joined, reason, shown, within, within_quotes
from pik.inputs.arrow_values import number as number_of
from pik.inputs.arrow_values import text, truth
from pik.inputs.arrow_values import texts as texts_of
from pik.inputs.blocks import Block, Problem
from pik.inputs.copies import seekable
from pik.model.event import one_line
from pik.model.layout import Layout

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

MAGIC = b"PAR1"
"""How a Parquet file begins."""

ROWS = 8192
"""Rows that are converted at a time, at most."""

_BUFFER = 1 << 18  # bytes of a column read at a time
_SAMPLE = 64  # rows of a group that are looked at to tell how large rows are
_SAMPLED_GROUPS = 8
_NANOS = -(2**63) // 1000 + 1, (2**63 - 1) // 1000
"""The first microsecond that 64 bits of nanoseconds reach, and the first one after these."""

_encode = msgspec.json.Encoder().encode


def blocks(
    stream: BinaryIO, name: str, _layout: Layout, *, max_line: int, first_seq: int = 1, offset: int = 0
) -> Iterator[Block]:
    """Yield the rows from `first_seq` on, with their number in place of the offset.

    A row with a value that JSON cannot say, such as NaN, is a problem. Raises InputError where it is not Parquet.
    """
    del max_line, offset  # a line that is too long is rejected as it is anywhere; rows are counted
    with seekable(stream) as file:
        rows = _Rows(file, name)
        at_a_time = rows.at_a_time()
        lines: list[pa.Buffer] = []
        problems: dict[int, Problem] = {}
        size, seq = 0, first_seq
        for part, number, wrong in rows.read(at_a_time, first_seq - 1):
            for place, problem in wrong.items():
                problems[seq + place] = problem
            seq += number
            lines.append(part)
            size += part.size
            if size >= limits.BLOCK or seq - first_seq + at_a_time > limits.LINES:
                yield Block(first_seq, seq - 1, b"".join(lines), seq - 1, problems=problems)
                first_seq, lines, problems, size = seq, [], {}, 0
        if lines:
            yield Block(first_seq, seq - 1, b"".join(lines), seq - 1, problems=problems)


def first_records(file: BinaryIO, name: str) -> list[dict[str, Any]]:
    """Return the first rows; of a file without rows one with all columns. Raises InputError where it is not Parquet."""
    rows = _Rows(file, name)
    lines, _, problems = next(rows.read(_SAMPLE), (b"", 0, {}))
    records = [json.loads(line) for place, line in enumerate(bytes(lines).splitlines()) if place not in problems]
    return records or [dict.fromkeys(rows.columns)]


def open_parquet(file: BinaryIO, name: str, **options: Any) -> ParquetFile:
    """Open a file that can be read at any place. Raises InputError where it is not Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps 40 MB that it does not use
    try:
        return parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER, **options)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, pa.ArrowNotImplementedError):
            raise _unknown(name) from None
        file.seek(max(0, file.seek(0, 2) - len(MAGIC)))
        is_whole = file.read() == MAGIC
        cut = "it begins with PAR1, and does not end with it, so it is cut or no such file"
        why = "the list of its columns, at its end, is damaged or encrypted" if is_whole else cut
        raise InputError(f"{name} cannot be read as Parquet: {why}", hint=Advice(*WHOLE)) from None


def unreadable(name: str, rows: int, error: Exception) -> InputError:
    """Return the error for a file of which only so many rows can be read."""
    import pyarrow as pa

    if isinstance(error, pa.ArrowNotImplementedError):
        return _unknown(name)
    return InputError(f"{name}, after row {rows:,}: the rows that follow are damaged", hint=Advice(*WHOLE))


def _unknown(name: str) -> InputError:
    what = "is Parquet with a compression or an encoding that pik does not read"
    return InputError(f"{name} {what}", hint="write it again with another one, such as zstd")


class _Rows:
    """The rows of a file as lines of JSON."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._name = name
        self._file = open_parquet(file, name)
        schema = self._file.schema_arrow
        if not schema.names:
            raise InputError(f"{name} has no columns")
        if repeated := [column for column in schema.names if schema.names.count(column) > 1]:
            raise InputError(f"{name}: two columns have the same name, {repeated[0]!r}")
        for field in schema:
            expect_readable(field.type, f"{name}: column {field.name}")
        self.columns: list[str] = schema.names
        self._legacy = self._legacy_times()
        # Legacy timestamps that do not fit into 64 bits of nanoseconds come out as others; as microseconds they fit.
        self._coarse = open_parquet(file, name, coerce_int96_timestamp_unit="us") if self._legacy else None
        metadata = self._file.metadata
        self._groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]

    def at_a_time(self) -> int:
        """Return how many rows are to be converted at a time."""
        return max(1, min(ROWS, limits.LINES, limits.BLOCK // self._row_size()))

    def _row_size(self) -> int:
        """Return about how many bytes a row takes. Texts that repeat are short in the file and long in memory, so the
        first rows of the first groups are looked at."""
        import pyarrow as pa

        sizes = [1]
        try:
            for place, group in enumerate(self._groups[:_SAMPLED_GROUPS]):
                if group.num_rows:
                    batch = next(self._batches(self._file, _SAMPLE, place, None))
                    sizes += [group.total_byte_size // group.num_rows, batch.nbytes // max(1, batch.num_rows)]
        except (pa.ArrowException, OSError):
            pass  # it is reported where it is read
        return max(sizes)

    def _legacy_times(self) -> set[str]:
        """Return the columns of timestamps of 96 bits."""
        columns = self._file.schema
        leaves = [columns.column(number) for number in range(len(columns))]
        found = {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}
        if nested := [path for path in found if path not in self._file.schema_arrow.names]:
            what = f"{self._name}: column {nested[0]} has timestamps of 96 bits, inside of another column"
            raise InputError(what, hint="cast them to TIMESTAMP where the file is written")
        return found

    def read(self, at_a_time: int, skip: int = 0) -> Iterator[tuple[pa.Buffer, int, dict[int, Problem]]]:
        """Yield lines, how many they are, and the problems among them by their place, from the row after so many."""
        import pyarrow as pa

        number = skip
        try:
            for place, group in enumerate(self._groups):
                if skip >= group.num_rows:
                    skip -= group.num_rows
                    continue
                coarse = self._batches(self._coarse, at_a_time, place, sorted(self._legacy)) if self._coarse else None
                for batch in self._batches(self._file, at_a_time, place, None):
                    check = next(coarse) if coarse is not None else None
                    # Long texts that repeat are short in the file and in the estimate, and long here.
                    step = max(1, batch.num_rows * limits.BLOCK // max(1, batch.nbytes))
                    for begin in range(min(skip, batch.num_rows), batch.num_rows, step):
                        part = batch.slice(begin, step)
                        found, wrong = self._converted(part, None if check is None else check.slice(begin, step))
                        yield found, part.num_rows, wrong
                        number += part.num_rows
                    skip = max(0, skip - batch.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self._name, number, error) from None

    def _batches(
        self, file: ParquetFile, at_a_time: int, group: int, columns: list[str] | None
    ) -> Iterator[pa.RecordBatch]:
        for batch in file.iter_batches(at_a_time, row_groups=[group], columns=columns, use_threads=False):
            yield _without_dictionaries(batch)

    def _converted(self, batch: pa.RecordBatch, coarse: pa.RecordBatch | None) -> tuple[pa.Buffer, dict[int, Problem]]:
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = {column: within_quotes(batch.column(column)) for column in batch.schema.names}
        for column, moments in zip(coarse.schema.names, coarse.columns, strict=True) if coarse is not None else ():
            micros, nanos = moments.view(pa.int64()), batch.column(column).view(pa.int64())
            fits = pc.fill_null(within(micros, *_NANOS), truth(True))
            # Nanoseconds that do not fit have wrapped around, as the product does, so the difference is what is lost.
            whole = pc.equal(nanos, pc.multiply(micros, number_of(1000)))
            beyond = pc.if_else(whole, within_quotes(moments).cells, text(None))
            texts[column] = Texts(pc.if_else(fits, texts[column].cells, beyond), texts[column].quote)
        parts: list[Any] = []
        before = "{"
        for column, (cells, quote) in texts.items():
            parts += [f"{before}{_encode(column).decode()}:{quote}", cells]
            before = f"{quote},"
        found = joined(*parts, before.replace(",", "}\n"))
        problems = {}
        if found.null_count:
            for place in pc.indices_nonzero(found.is_null()).to_pylist():
                problems[place] = _problem(batch, place, texts)
            lines = [one_line(problem.record).decode() + "\n" for problem in problems.values()]
            found = pc.replace_with_mask(found, found.is_null(), texts_of(lines))
        size = pc.sum(pc.binary_length(found)).as_py() or 0
        return found.buffers()[2].slice(0, size), problems


def _without_dictionaries(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with values in the place of numbers of values, so that its size is that of the values."""
    import pyarrow as pa

    if not any(map(pa.types.is_dictionary, batch.schema.types)):
        return batch
    columns = [cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells for cells in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _problem(batch: pa.RecordBatch, place: int, texts: dict[str, Texts]) -> Problem:
    """Return the problem of a row with a value that JSON cannot say."""
    cells = {name: column.at(place) for name, column in texts.items()}
    wrong = next(name for name, text in cells.items() if text is None)
    pairs = [(name, text or shown(batch.column(name)[place])) for name, text in cells.items()]
    row = ",".join(f"{_encode(name).decode()}:{text}" for name, text in pairs)
    return Problem(f"column {wrong} {reason(batch.column(wrong)[place])}", f"{{{row}}}".encode(errors="replace"))
