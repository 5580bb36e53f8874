"""Dry run: what an ingest of the inputs would record, found out without recording anything.

Every delivery is compared with the store, and those of events that are new there with each other. For that their ids
are sorted, in temporary files where there are many, so that the counts are exact in bounded memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from pik.errors import InputError
from pik.inputs.opened import OpenedInput
from pik.inputs.source import Input
from pik.model.batch import KEYED, PLAIN, BatchState, Chunk, Reject, Verdict, duplicate_kind, with_lags, with_names
from pik.model.layout import Layout
from pik.ports.store import Store
from pik.rawlog.corrected import corrected_until
from pik.rawlog.reading import Reading
from pik.rawlog.segment_writer import Work, reason_kind
from pik.runtime import Progress, showing
from pik.runtime.parallel import Pool
from pik.runtime.storage import SortedBytes
from pik.usecases.ingest.batch_ingest import (
    IngestOptions,
    Outcome,
    blocks_of,
    build_blocks,
    content_of,
    origin_of,
    workers_for,
)
from pik.usecases.ingest.checked_block import ID_SIZE, CheckedBlock, checking, decode_reject
from pik.usecases.ingest.earlier import ReadOtherwise, find_ingested, find_read_otherwise
from pik.usecases.ingest.preview import Preview

EXAMPLE = 200
"""Characters of a rejected record that are shown as an example."""

IN_MEMORY = 100_000
"""Entities that are told apart in memory."""

_NO_CONTENT = bytes(ID_SIZE)
"""Stands for the content of an event without an idempotency key, whose id is made of it."""

_POSITION = 8
"""Bytes of a position among all inputs."""

_OF_INPUT = 40
"""Bits of a position in an input; those before them are the input's number."""


@dataclass(frozen=True, slots=True)
class Example:
    """A rejected record: where it is, the field that is wrong, and the beginning of its text. `file` and `record` as in
    Reject."""

    source: str
    seq: int
    file: str
    record: int
    field: str
    line: str


@dataclass(slots=True)
class CheckedInput:
    """An input: what is in it. `outcome` is what an ingest would do with it, where the store was looked at, and
    `batch_id` the batch of the same input there. `in_store` counts deliveries of events that the store has, `repeated`
    those that repeat an earlier record of the inputs, `times` how times were read, as in Chunk. `named` is the
    mapping by which it is read, `otherwise` as in IngestReport. `cut`: it could not be read further; what came before
    is counted, and an ingest would record it."""

    source: str
    layout: Layout
    named: str = ""
    read: int = 0
    rejected: int = 0
    in_store: Counter[Verdict] = field(default_factory=Counter)
    repeated: Counter[Verdict] = field(default_factory=Counter)
    times: Counter[str] = field(default_factory=Counter)
    outcome: Outcome | None = None
    batch_id: str | None = None
    otherwise: ReadOtherwise | None = None
    cut: bool = False

    @property
    def valid(self) -> int:
        """Records that are events."""
        return self.read - self.rejected

    @property
    def new(self) -> int:
        """Records that make an event that neither the store nor an earlier record has."""
        return self.valid - self.in_store.total() - self.repeated.total()


@dataclass(frozen=True, slots=True)
class DryRunReport:
    """What is in the inputs, all together. `store` is the URL of the store that was looked in, if one was.

    With `uncertain`, corrections take batches or events of the store away: duplicates of these may count all the same,
    or be of events that are out.

    `types` and `sources` count the first thousand names one by one, `days` deliveries by day (since 1970-01-01),
    `future` those whose event_time is later than the clock's, `keyed` those with an idempotency key, `entities`
    distinct ones, `longer` those that a mapping made of one element of a longer list. `reasons` has an example for each
    kind that is counted by itself.
    """

    inputs: tuple[CheckedInput, ...]
    store: str | None
    uncertain: bool
    sample: tuple[tuple[str, Preview], ...]
    reasons: Mapping[str, int]
    examples: Mapping[str, Example]
    sources: Mapping[str, int]
    types: Mapping[str, int]
    lags: Mapping[int, int]
    days: Mapping[int, int]
    first_event: int | None
    last_event: int | None
    future: int
    keyed: int
    entities: int
    longer: Mapping[str, int]

    @property
    def read(self) -> int:
        """Records of all inputs, as the following."""
        return sum(one.read for one in self.inputs)

    @property
    def rejected(self) -> int:
        """As in CheckedInput, as the following."""
        return sum(one.rejected for one in self.inputs)

    @property
    def valid(self) -> int:
        """As in CheckedInput."""
        return sum(one.valid for one in self.inputs)

    @property
    def new(self) -> int:
        """As in CheckedInput."""
        return sum(one.new for one in self.inputs)

    @property
    def in_store(self) -> Counter[Verdict] | None:
        """As in CheckedInput; None if no store was looked in."""
        return None if self.store is None else sum((one.in_store for one in self.inputs), Counter[Verdict]())

    @property
    def repeated(self) -> Counter[Verdict]:
        """As in CheckedInput."""
        return sum((one.repeated for one in self.inputs), Counter[Verdict]())


class DryRun:
    """Reads inputs one after the other, as an ingest would. `store` is looked at and never written to (None: not
    looked at); `sample` events are shown as they would be recorded, 3 of records that are mapped if it is None."""

    def __init__(self, store: Store | None, options: IngestOptions, sample: int | None = None) -> None:
        self._store, self._options, self._sample = store, options, sample
        self._inputs: list[CheckedInput] = []
        self._previews: list[tuple[str, Preview]] = []
        self._origins: set[bytes] = set()
        self._examples: dict[str, Example] = {}
        self._reasons: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._types: dict[str, int] = {}
        self._longer: Counter[str] = Counter()
        self._lags: dict[int, int] = {}
        self._days: Counter[int] = Counter()
        self._times: list[int] = []  # the first and the last, if any
        self._future = self._keyed = 0
        self._entities = _Distinct()
        self._ids = SortedBytes(2 * ID_SIZE + _POSITION)

    def check(self, source: Input, progress: Progress, on_reject: Callable[[Reject], None]) -> None:
        """Read an input; `on_reject` gets each rejected record. Raises as `ingest` does."""
        with source.open() as opened:
            options = self._options.of(opened)
            checked = CheckedInput(source.name, options.reading.layout, options.reading.named)
            self._inputs.append(checked)
            self._look_up_input(source, opened, options, checked)
            sample = self._sample_of(options.reading)
            pool: Pool[Work, CheckedBlock] = Pool(
                partial(checking, options.reading, sample), workers_for(source, options)
            )
            with showing(progress, f"checking {source.name}", source.size, "bytes"), pool:
                try:
                    for block in build_blocks(pool, opened, blocks_of(opened, options, None), None, progress):
                        self._add(checked, block, on_reject)
                        self._previews += [(source.name, one) for one in block.previews[: sample - len(self._previews)]]
                except InputError:
                    checked.cut = checked.read > 0
                    raise

    def report(self) -> DryRunReport:
        """Return what was found in all inputs."""
        self._count_repeated()
        return DryRunReport(
            inputs=tuple(self._inputs),
            store=self._store.url if self._store else None,
            uncertain=self._is_uncertain(),
            sample=tuple(self._previews),
            reasons=self._reasons,
            examples=self._examples,
            sources=self._sources,
            types=self._types,
            lags=self._lags,
            days=self._days,
            first_event=min(self._times, default=None),
            last_event=max(self._times, default=None),
            future=self._future,
            keyed=self._keyed,
            entities=self._entities.count(),
            longer=self._longer,
        )

    def _is_uncertain(self) -> bool:
        if self._store is None or not any(one.in_store for one in self._inputs):
            return False
        corrected = corrected_until(self._store)
        return bool(corrected.withdrawn or corrected.removing)

    def _sample_of(self, reading: Reading) -> int:
        """Return how many events are still to be shown, of all inputs up to this one."""
        if self._sample is None:
            return 0 if reading.record_mapping() is None else SAMPLE
        return self._sample

    def _look_up_input(self, source: Input, opened: OpenedInput, options: IngestOptions, checked: CheckedInput) -> None:
        """Find out whether the input was ingested before, or begun, or came already among these."""
        if opened.is_stream and options.batch_key is None:
            checked.outcome = Outcome.NEW if self._store else None
            return
        origin = origin_of(source, options, content_of(opened, options))
        found = find_ingested(self._store, origin) if self._store else None
        twice = origin.identity in self._origins
        self._origins.add(origin.identity)
        if found is not None:
            checked.batch_id = found.batch_id
        if found is not None and found.state != BatchState.COMPLETE:
            checked.outcome = Outcome.RESUMED
        elif (found is not None or twice) and not options.again:
            checked.outcome = Outcome.ALREADY
        elif self._store is not None:
            checked.outcome = Outcome.NEW
        if self._store is not None and checked.outcome != Outcome.ALREADY:
            checked.otherwise = find_read_otherwise(self._store, origin)

    def _add(self, checked: CheckedInput, block: CheckedBlock, on_reject: Callable[[Reject], None]) -> None:
        chunk = block.chunk
        checked.read += chunk.read
        checked.times.update(chunk.times)
        checked.rejected += len(block.rejects)
        self._reasons = with_names(self._reasons, chunk.reasons)
        for reject in map(decode_reject, block.rejects):
            on_reject(reject)
            kind = reason_kind(reject.reason)
            if kind in self._reasons and kind not in self._examples:
                self._examples[kind] = _example(checked.source, reject)
        self._sources = with_names(self._sources, chunk.sources)
        self._types = with_names(self._types, block.types)
        self._lags = with_lags(self._lags, chunk.lags)
        self._future += block.future
        self._longer.update(chunk.longer)
        self._entities.add(block.entities)
        for arrived in chunk.arrivals:
            self._days[arrived.segment.day] += arrived.count
            self._keyed += len(arrived.keyed) // KEYED.size
            times = [*self._times, arrived.segment.first_event, arrived.segment.last_event]
            self._times = [min(times), max(times)]
        self._look_up(checked, chunk)

    def _look_up(self, checked: CheckedInput, chunk: Chunk) -> None:
        """Count the deliveries whose event is in the store, and keep the ids of the others."""
        known = self._store.repeats.verdicts(chunk.arrivals) if self._store and chunk.arrivals else {}
        checked.in_store.update(known.values())
        before = len(self._inputs) << _OF_INPUT
        for arrived in chunk.arrivals:
            self._ids.add(
                event_id + (before + seq).to_bytes(_POSITION, "big") + _NO_CONTENT
                for event_id, seq, _ in PLAIN.iter_unpack(arrived.plain)
                if seq not in known
            )
            self._ids.add(
                event_id + (before + seq).to_bytes(_POSITION, "big") + content
                for seq, event_id, content, _ in KEYED.iter_unpack(arrived.keyed)
                if seq not in known
            )

    def _count_repeated(self) -> None:
        """Count the deliveries that repeat an earlier one: sorted, those of an event follow each other in order."""
        event_id, accepted = b"", b""
        for entry in self._ids:
            if entry[:ID_SIZE] != event_id:
                event_id, accepted = entry[:ID_SIZE], entry[-ID_SIZE:]
            else:
                number = int.from_bytes(entry[ID_SIZE:-ID_SIZE], "big") >> _OF_INPUT
                self._inputs[number - 1].repeated[duplicate_kind(entry[-ID_SIZE:], accepted)] += 1


SAMPLE = 3
"""Events that are shown, of records that are mapped."""


class _Distinct:
    """Counts distinct digests, exactly."""

    def __init__(self) -> None:
        self._held: set[bytes] = set()
        self._spilled: SortedBytes | None = None

    def add(self, digests: bytes) -> None:
        """Add digests, which are joined."""
        self._held.update(digests[at : at + ID_SIZE] for at in range(0, len(digests), ID_SIZE))
        if len(self._held) > IN_MEMORY:
            self._spilled = self._spilled or SortedBytes(ID_SIZE)
            self._spilled.add(self._held)
            self._held = set()

    def count(self) -> int:
        """Return how many there are."""
        if self._spilled is None:
            return len(self._held)
        self._spilled.add(self._held)
        self._held = set()
        return sum(1 for _ in groupby(self._spilled))


def _example(source: str, reject: Reject) -> Example:
    line = reject.line[:EXAMPLE] + ("…" if len(reject.line) > EXAMPLE else "")
    return Example(source, reject.seq, reject.file, reject.record, reject.field, line)
