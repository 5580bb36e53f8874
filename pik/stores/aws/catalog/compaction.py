"""Compacting the index of a deployed store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import time_ns

from pik.model.ids import ID_LENGTH, TIME_DIGITS, time_digits
from pik.ports.compaction import Packed
from pik.stores.aws.catalog.batch_list import BatchList
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.packing import Packing
from pik.stores.aws.catalog.totals import Summation
from pik.stores.aws.lease import holding
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Table

_LEASE = "compact"


@dataclass(frozen=True, slots=True)
class AwsCompaction:
    """Implements the port on the index table and the bucket."""

    table: Table
    raw: AwsRaw
    generation: Generation
    retention_days: int | None = None

    @contextmanager
    def compacting(self) -> Iterator[None]:
        with holding(self.table, _LEASE):
            self.generation.for_writing()
            yield
            if self.generation.is_compacted():
                self._packing().tidy(time_ns())

    def countable(self, before: int) -> int:
        return self._summation().countable(_first_id(before))

    def sum_up(self, before: int) -> Iterator[int]:
        return self._summation().sum_up(_first_id(before))

    def days(self, first: int | None = None, last: int | None = None) -> Iterator[int]:
        return self._packing().days(first, last)

    def waiting(self, day: int, before: int) -> tuple[int, int]:
        return self._packing().waiting(day, before)

    def pack(self, day: int, before: int) -> Iterator[Packed]:
        return self._packing().pack(day, before)

    def _packing(self) -> Packing:
        return Packing(self.table, self.raw, self.generation, self.retention_days)

    def _summation(self) -> Summation:
        listed = BatchList(self.table, self.raw, self.generation.current())
        return Summation(self.table, self.generation, listed)


def _first_id(made_at: int) -> str:
    """Return the smallest id that may be made at this moment."""
    return time_digits(made_at) + "0" * (ID_LENGTH - TIME_DIGITS)
