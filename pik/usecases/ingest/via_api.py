"""Ingest through the API: a file's records are sent in requests of about a mebibyte, several of them under way at once.

Each request is its own batch, so there is nothing to resume: an input that is sent again is recorded again,
as duplicates. Deliveries of one event must be recorded in the order of the input, because the first of them is the one
that counts. So records go into lanes by their entity, which is a part of what makes an event the same, and a lane has
one request under way at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread
from time import monotonic
from zlib import crc32

from pik.errors import InputError, Invalid, StoreError
from pik.inputs.blocks import Problem
from pik.inputs.opened import OpenedInput
from pik.inputs.parents import Parents
from pik.inputs.source import Input
from pik.model.batch import Counts, Reject, Verdict
from pik.model.delivery import event_line, event_line_in
from pik.model.event import read_event
from pik.model.place import Place
from pik.model.zone import NO_ZONES, Zones, load_zone
from pik.ports.remote import Answer, Api
from pik.rawlog.reading import Reading
from pik.rawlog.segment_writer import InvalidRecord, make_reject, reason_kind
from pik.runtime import Progress, showing

LANES = 8
BODY = 1 << 20
"""Bytes of a request, about: a quarter of what the API takes, because text may grow on its way."""

RECORDS = 1000
"""Records of a request, so that a function records them well before API Gateway stops waiting."""


@dataclass(frozen=True, slots=True)
class SendReport:
    """The result of sending an input. `counts` are of the records that were answered, or rejected before being sent.

    `times` counts how times of the records sent were read, as in Chunk. `repeated` records were sent more than once,
    because no answer came; those that the first attempt had recorded count as duplicates. `failure` is why it stopped
    before the end of the input; `unanswered` records then have no answer, of which the first is `unanswered_from`.
    `named` is the mapping by which the input was read, `longer` as in IngestReport.
    """

    source: str
    counts: Counts
    reasons: Mapping[str, int]
    times: Mapping[str, int]
    requests: int
    repeated: int
    seconds: float
    failure: StoreError | None = None
    unanswered: int = 0
    unanswered_from: int | None = None
    longer: Mapping[str, int] = field(default_factory=dict)
    named: str = ""


def send(
    api: Api, source: Input, reading: Reading, progress: Progress, on_reject: Callable[[Reject], None]
) -> SendReport:
    """Send one input to its end, or until the API fails for good. `on_reject` gets each rejected record, in the order
    of the answers.

    Raises InputError as `ingest` does (what was sent before stands), and StoreError if the API failed before it
    recorded anything.
    """
    began = monotonic()
    with source.open() as opened:
        reading = reading.of(opened)
        sender = _Sender(api, source, reading, on_reject)
        with showing(progress, f"sending {source.name}", source.size, "bytes"):
            sender.run(_records(opened, reading, progress))
    return sender.report(monotonic() - began)


def _records(
    opened: OpenedInput, reading: Reading, progress: Progress
) -> Iterator[tuple[int, bytes | Problem, Parents]]:
    """Yield the records that are not blank, with their seqs, and what finds the fields around them."""
    before = 0
    for block in opened.blocks(reading.layout, reading.max_line):
        parents = Parents(block)
        for seq, line in enumerate(block.data.split(b"\n"), block.first_seq):
            if seq in block.problems:
                yield seq, block.problems[seq], parents
            elif line.strip():
                yield seq, line, parents
        progress.advance(opened.position - before)
        before = opened.position
    opened.expect_unchanged()


_Request = list[tuple[int, bytes]]
"""Records by their seqs."""


@dataclass(slots=True)
class _Lane:
    """A request that is being filled, and the one under way."""

    records: _Request = field(default_factory=list)
    size: int = 0
    sent: _Request = field(default_factory=list)
    answer: Future[Answer] | None = None


class _Sender:
    def __init__(self, api: Api, source: Input, reading: Reading, on_reject: Callable[[Reject], None]) -> None:
        self._api, self._source, self._reading, self._on_reject = api, source, reading, on_reject
        self._noted: list[str] = []
        self._mapping = reading.record_mapping(self._noted)
        self._zones = reading.times.zones(self._noted)
        self._times: Counter[str] = Counter()
        self._lanes = [_Lane() for _ in range(LANES)]
        self._kinds: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._requests = self._repeated = 0
        self._lost: list[int] = []
        self._failure: StoreError | None = None

    def run(self, records: Iterator[tuple[int, bytes | Problem, Parents]]) -> None:
        try:
            for seq, record, parents in records:
                self._add(seq, record, parents)
                if self._failure is not None:
                    break
            else:
                self._send_rest()
        except InputError:
            self._absorb_all()  # but after Ctrl-C there is no waiting for requests under way
            raise
        self._absorb_all()

    def report(self, seconds: float) -> SendReport:
        kinds = (Verdict.ACCEPTED, Verdict.EXACT, Verdict.CONFLICT, _REJECTED)
        counts = Counts(sum(self._kinds.values()), *(self._kinds[kind] for kind in kinds))
        if self._failure is not None and counts.read == counts.rejected:
            raise self._failure
        return SendReport(
            source=self._source.name,
            counts=counts,
            reasons=self._reasons,
            times=self._times,
            requests=self._requests,
            repeated=self._repeated,
            seconds=seconds,
            failure=self._failure,
            unanswered=len(self._lost),
            unanswered_from=min(self._lost, default=None),
            longer=self._mapping.longer if self._mapping else {},
            named=self._reading.named,
        )

    def _add(self, seq: int, record: bytes | Problem, parents: Parents) -> None:
        """Add the record to its lane. Invalid records are sent as well, for the stack to keep, if it would."""
        entity, longest = "", self._reading.max_line
        line = record.record if isinstance(record, Problem) else record
        try:
            if isinstance(record, Problem):
                raise Invalid(record.reason)
            if len(line) > longest:
                line = line[: longest + 1]  # enough to see that it is too long
                raise Invalid(f"the line is longer than {longest} bytes")
            entity, line = self._readable(line, seq, parents)
            self._times.update(self._noted)
            self._noted.clear()
        except Invalid as error:
            self._noted.clear()
            if self._reading.stop:
                invalid = InvalidRecord(seq, error.message)
                raise InputError(f"{self._source.name}: {invalid.message}", hint=invalid.hint) from None
            if not self._stack_would_reject(line):
                self._reject(seq, error, line)
                return
        lane = self._lanes[crc32(entity.encode()) % LANES]
        if lane.records and (lane.size + len(line) > BODY or len(lane.records) == RECORDS):
            self._dispatch(lane)
        lane.records.append((seq, line))
        lane.size += len(line) + 1

    def _readable(self, line: bytes, seq: int, parents: Parents) -> tuple[str, bytes]:
        """Return the record's entity, and the line to send: as it is, unless it is mapped or has times without an
        offset and their time zone is known here. Raises Invalid."""
        zones = self._zones
        if self._mapping is not None:
            event, _ = self._mapping.read(line, Place(self._reading.file, seq, parents.of(seq)))
            return event.entity_id, event_line(event) if zones == NO_ZONES else event_line_in(zones, event)
        try:
            return read_event(line).entity_id, line
        except Invalid:
            if zones != NO_ZONES:
                event = read_event(line, zones)
                return event.entity_id, event_line_in(zones, event)
            if self._reading.stop:
                raise
            # Times without an offset are for the stack to refuse, or to read in its own time zone.
            return read_event(line, _ANY_ZONE).entity_id, line

    def _stack_would_reject(self, line: bytes) -> bool:
        """Return whether an invalid record would arrive at the stack as it is, and be invalid there, too.

        One that cannot be mapped would not, nor one of several lines, nor bytes that are not UTF-8, which the gateway
        would replace. What only the time zone known here makes invalid, as its clocks skipped that time, may be valid
        in the stack's.
        """
        if self._mapping is not None or b"\n" in line or line.decode(errors="ignore").encode() != line:
            return False
        if self._zones == NO_ZONES:
            return True
        try:
            read_event(line, _ANY_ZONE)
        except Invalid:
            return True
        return False

    def _send_rest(self) -> None:
        """Send the remaining records; a small input as one request."""
        rest = sorted(record for lane in self._lanes for record in lane.records)
        if self._requests == 0 and len(rest) <= RECORDS and sum(lane.size for lane in self._lanes) <= BODY:
            first, *others = self._lanes
            first.records = rest
            for lane in others:
                lane.records = []
        for lane in self._lanes:
            if lane.records and self._failure is None:
                self._dispatch(lane)

    def _dispatch(self, lane: _Lane) -> None:
        """Send the records of the lane, once its previous request has been answered."""
        self._absorb(lane)
        if self._failure is None:
            lane.sent, lane.records, lane.size = lane.records, [], 0
            lane.answer = _start(self._api, [line for _, line in lane.sent])
            self._requests += 1

    def _absorb_all(self) -> None:
        for lane in self._lanes:
            self._absorb(lane)

    def _absorb(self, lane: _Lane) -> None:
        """Wait for the lane's answer, and count its results."""
        answer, lane.answer = lane.answer, None
        if answer is None:
            return
        try:
            answered = answer.result()
        except StoreError as error:
            self._failure = self._failure or error
            self._lost += [seq for seq, _ in lane.sent]
            return
        self._repeated += len(lane.sent) if answered.repeated else 0
        for (seq, line), result in zip(lane.sent, answered.results, strict=True):
            if result.verdict is None:
                self._reject(seq, Invalid(result.reason, field=result.field), line)
            else:
                self._kinds[result.verdict] += 1

    def _reject(self, seq: int, error: Invalid, line: bytes) -> None:
        self._kinds[_REJECTED] += 1
        self._reasons[reason_kind(error.message)] += 1
        self._on_reject(make_reject(seq, error, line))


_REJECTED = "rejected"
_ANY_ZONE = Zones(load_zone("UTC"), load_zone("UTC"))


def _start(api: Api, lines: list[bytes]) -> Future[Answer]:
    """Start the call in a thread that does not keep the process alive."""
    answer: Future[Answer] = Future()

    def call() -> None:
        try:
            answer.set_result(api.ingest(lines))
        except BaseException as error:  # noqa: BLE001 - the caller of `result` gets it
            answer.set_exception(error)

    Thread(target=call, daemon=True).start()
    return answer
