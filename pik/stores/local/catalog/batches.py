"""Recording batches in index.db: the claims that make an event the first of its id, and the rebuilding from raw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pik.model.batch import Batch, Chunk, Counts, Origin
from pik.ports.index import Rebuild
from pik.stores.common import conflicting
from pik.stores.local.catalog.claims import Claims, add_lags, add_names, add_rejects
from pik.stores.local.catalog.index import LocalIndex, batch_of, find_batch, origin_key
from pik.stores.local.catalog.rebuild import REBUILDING, rebuilding
from pik.stores.local.lock import holding
from pik.stores.local.sqlite import Database


@dataclass(slots=True)
class LocalBatches:
    """Writes index.db."""

    database: Database
    locks: Path

    def find(self, origin: Origin) -> Batch | None:
        return find_batch(self.database.read(), self.locks, origin)

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        with holding(self.locks, REBUILDING, shared=True), holding(self.locks, name):
            self.database.reconnect()  # a rebuild may have replaced the file
            yield

    def open(self, origin: Origin, batch_id: str, started_at: int) -> Batch:
        with self.database.write() as connection:
            connection.execute(
                "INSERT INTO batch (batch_id, name, content, options, again, origin, complete, attempt, read, accepted,"
                " exact, conflict, rejected, started_at, next_seq, offset, prefix_digest, reasons, lags, sources)"
                " VALUES (?, ?, ?, ?, ?, ?, 0, 1, 0, 0, 0, 0, 0, ?, 1, 0, '', '{}', '{}', '{}')"
                " ON CONFLICT (batch_id) DO UPDATE SET attempt = attempt + 1",
                (
                    batch_id,
                    origin.name,
                    origin.content,
                    msgspec.json.encode(origin.options).decode(),
                    origin.again,
                    origin_key(origin),
                    started_at,
                ),
            )
            return batch_of(connection, self.locks, batch_id)

    def record(self, chunk: Chunk, *, refuse_conflicts: bool = False) -> Counts:
        with self.database.write() as connection:
            next_seq, reasons, lags, sources = connection.execute(
                "SELECT next_seq, reasons, lags, sources FROM batch WHERE batch_id = ?", (chunk.batch_id,)
            ).fetchone()
            if chunk.last_seq < next_seq:
                return Counts()  # recorded already
            claims = Claims(connection)
            recorded_at = claims.add(chunk.arrivals)
            if refuse_conflicts and claims.counts["conflict"]:
                raise conflicting(chunk.first_seq, chunk.last_seq, claims.counts["conflict"])
            if chunk.rejects:
                add_rejects(connection, chunk.batch_id, chunk.rejects)
            rejected = chunk.rejects.records if chunk.rejects else 0
            counts = Counts(read=chunk.read, rejected=rejected, **claims.counts)
            connection.execute(
                "UPDATE batch SET read = read + ?, accepted = accepted + ?, exact = exact + ?, conflict = conflict + ?,"
                " rejected = rejected + ?, next_seq = ?, offset = ?, prefix_digest = ?, reasons = ?,"
                " lags = ?, sources = ?, recorded_at = max(recorded_at, ?) WHERE batch_id = ?",
                (
                    *counts.astuple(),
                    chunk.last_seq + 1,
                    chunk.offset,
                    chunk.prefix_digest,
                    add_names(reasons, chunk.reasons),
                    add_lags(lags, chunk.lags),
                    add_names(sources, chunk.sources),
                    recorded_at if chunk.arrivals else 0,
                    chunk.batch_id,
                ),
            )
            return counts

    def expect_ready(self) -> None:
        with holding(self.locks, REBUILDING, shared=True):
            pass

    def take(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, str]:  # noqa: ARG002 - no detour
        self.open(batch.origin, batch.batch_id, batch.started_at)
        self.record(chunk)
        self.finish(batch.batch_id, batch.finished_at or batch.started_at)
        index = LocalIndex(self.database, self.locks)
        return {seq: kind for arrived in chunk.arrivals for seq, kind in index.skipped(arrived.segment).items()}

    def finish(self, batch_id: str, finished_at: int) -> Batch:
        with self.database.write() as connection:
            connection.execute(
                "UPDATE batch SET complete = 1, finished_at = coalesce(finished_at, ?) WHERE batch_id = ?",
                (finished_at, batch_id),
            )
            return batch_of(connection, self.locks, batch_id)

    @contextmanager
    def together(self) -> Iterator[None]:
        with self.database.write():
            yield

    @contextmanager
    def rebuild(self) -> Iterator[Rebuild]:
        with rebuilding(self.database.path, self.locks) as rebuild:
            self.database.reconnect()  # another rebuild may have replaced the file, or somebody removed it
            yield rebuild
        self.database.reconnect()
