"""Recording API requests in a deployed store: in two generations of the index while a rebuild fills the second one.

Both generations are right by themselves: in each of them a claim decides which delivery of an event counts, and what
claims is listed before. A request is recorded in the first one, as ever, and then in the second one. Of an event that
another delivery has claimed in the first one, it first sees to it that the same delivery has the claim in the second:

    a request that writes to both     it is copied, if its writer has not come so far, or has died
    any other                         only the claim is written: the rebuild lists the delivery
    any other, and the second         the rebuild did not find the delivery any more, so this one may claim
    generation is filled

The verdict is that of the second generation. All requests write to that one, whether they know only the new pointer, or
the old one too; those that knew only the first one have ended before the rebuild reads what they wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pik.model.batch import Batch, BatchState, Chunk, Verdict
from pik.runtime import exhaust
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.deliveries import claims_of, rows_of
from pik.stores.aws.catalog.generation import Target
from pik.stores.aws.catalog.layout import BatchItem, ClaimItem, Listed, RequestItem
from pik.stores.aws.catalog.recording import Recording, header_of
from pik.stores.aws.catalog.requests import Requests, is_single
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Key, KeyItem, Table


@dataclass(frozen=True, slots=True)
class RequestRecorder:
    """Records requests in the generations that are to be written."""

    table: Table
    raw: AwsRaw
    target: Target
    exceptions: Mapping[int, Sequence[KeyItem]]
    """By generation, what is to be written with the batch, so that the totals count it."""
    listed_days: set[Key[KeyItem]] = field(default_factory=set)
    """The keys of items of days that are known to be there."""

    def record_single(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, Verdict]:
        """Record a request with one event and nothing else; return its duplicates."""
        first, second = self.target.first, self.target.second
        recorded = Requests(self.table, first, self.listed_days).record(
            batch, chunk, copies, self.exceptions[first], made=second
        )
        if second:
            if recorded.duplicates:
                self._carry_claims([recorded.claim])
            requests = Requests(self.table, second, self.listed_days)
            also, recorded_at = self.exceptions[second], recorded.recorded_at
            recorded = requests.record(batch, chunk, copies, also, made=second, recorded_at=recorded_at)
        return recorded.duplicates

    def record_array(self, batch: Batch, chunk: Chunk) -> dict[int, Verdict]:
        """Record another request as a file's chunk. One that fails on its way is not taken up again: its sender sends
        it again."""
        first, second = self.target.first, self.target.second
        finished_at = batch.finished_at or batch.started_at
        begun = replace(batch, state=BatchState.INTERRUPTED, finished_at=finished_at, next_seq=1)
        item = codec.batch_item(first, begun)
        self.table.write_many(self.exceptions[first])
        recording = Recording(self.table, self.raw, first, batch.batch_id, self.listed_days)
        if not second:
            return dict(recording.record_new(item, chunk).verdicts)
        item["made"] = second
        again = Recording(self.table, self.raw, second, batch.batch_id, self.listed_days)
        self.table.write_many(self.exceptions[second])
        header, rows = header_of(chunk, 0), rows_of(chunk.arrivals)
        pending = again.begin(layout.moved(item, second), header, rows)
        recorded = recording.record_new(item, chunk)
        if duplicates := [row for row in rows if row.seq in recorded.verdicts]:
            claims = claims_of(self.table, first, batch.batch_id, header.segments).look_up(duplicates)
            self._carry_claims(claim for claim in claims.values() if claim["batch"] != batch.batch_id)
        return dict(again.complete(pending, header, rows, recorded.item["recorded_at"]).verdicts)

    def _carry_claims(self, claims: Iterable[ClaimItem]) -> None:
        """Write these claims of the first generation into the second one, unless it has others of their events."""
        first, second = self.target.first, self.target.second
        wanted = {layout.claim_key(second, claim["sk"]): claim for claim in claims}
        there = self.table.get_many(wanted)
        missing = [claim for key, claim in wanted.items() if key not in there]
        of_batch = self.table.get_many(dict.fromkeys(layout.batch_key(first, claim["batch"]) for claim in missing))
        both = {batch["sk"]: batch for batch in of_batch.values() if batch.get("made") == second}
        self._copy(filter(is_single, both.values()))
        brought: list[ClaimItem] = []
        for claim in missing:
            if claim["batch"] in both:
                brought.append(layout.moved(claim, second))
            elif not self.target.is_filled:
                brought.append({**layout.moved(claim, second), "brought": True})
        exhaust(self.table.insert_many(brought))

    def _copy(self, batches: Iterable[BatchItem]) -> None:
        """Copy requests with one event into the second generation, unless they are there."""
        listed: dict[Key[RequestItem], BatchItem] = {Key((one["listed"], one["listed_as"])): one for one in batches}
        items: list[Mapping[str, Any]] = []
        for key, listing in self.table.get_many(listed).items():
            day = layout.day_number(key[0].split("/")[2])
            batch, of_day = listed[Key(key)], layout.day_item(self.target.first, day, Listed.REQUEST)
            # Its id may be smaller than those of batches that are summed up.
            items += [layout.exception_item(self.target.first, batch["sk"]), listing, batch, of_day]
        copies = [layout.moved(item, self.target.second) for item in items]
        exhaust(self.table.insert_many({(copy["pk"], copy["sk"]): copy for copy in copies}.values()))
