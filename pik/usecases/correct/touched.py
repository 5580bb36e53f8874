"""The times at which corrections may change what counts: of the deliveries that they list, and of those that count in
the place of a withdrawn batch, wherever any correction moves these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pik.model.correction import Correction, CorrectionKind
from pik.model.window import ALL_TIME, Window
from pik.ports.index import batch_of
from pik.ports.store import Store


def touched(store: Store, corrections: Sequence[Correction]) -> Window:
    """Return the window of all times that these corrections are about, as received and as corrected; of a revocation,
    those of what it revokes."""
    log = {one.correction_id: one for one in store.corrections.recorded()}
    windows = list(_received(store, log, corrections))
    if not windows:
        return ALL_TIME
    days = [window.days for window in windows]
    lists = (listed for one in log.values() if one.kind.moves for listed in one.lists)
    moved = [listed for listed in lists if any(first <= listed.day <= last for first, last in days)]
    return around([*windows, *(Window(one.first_event, one.last_event + 1) for one in moved)])


def withdrawal(store: Store, batch_id: str) -> Window:
    """Return the same for the withdrawal of a batch that is not recorded."""
    draft = Correction(
        format=store.format_version,
        correction_id="",
        kind=CorrectionKind.WITHOUT_BATCH,
        recorded_at=0,
        reason="",
        batch_id=batch_id,
        events=0,
    )
    return touched(store, [draft])


def around(windows: Sequence[Window]) -> Window:
    """Return the window that covers these."""
    return Window(min(one.start for one in windows), max(one.end for one in windows))


def _received(store: Store, log: dict[str, Correction], corrections: Iterable[Correction]) -> Iterator[Window]:
    """Yield windows of the days on which the deliveries were received, each of which covers whole days or a batch."""
    for one in corrections:
        yield from (Window.of_day(listed.day) for listed in one.lists)
        if one.batch_id:
            yield from _of_batch(store, one.batch_id)
        if one.kind is CorrectionKind.WITHOUT:  # a delivery that came later may count since a batch is withdrawn
            for other in log.values():
                if other.batch_id:
                    yield from _heirs(store, other.batch_id)
        if one.revokes in log:
            yield from _received(store, log, [log[one.revokes]])


def _of_batch(store: Store, batch_id: str) -> Iterator[Window]:
    batch = batch_of(store.index, batch_id)
    if batch.first_event is not None and batch.last_event is not None:
        yield Window(batch.first_event, batch.last_event + 1)
        yield from _heirs(store, batch_id)


def _heirs(store: Store, batch_id: str) -> Iterator[Window]:
    """Yield the days of the deliveries of which one counts in the place of the batch's."""
    days = {one.day for deliveries in store.repeats.repeated_from(batch_id) for one in deliveries}
    yield from map(Window.of_day, sorted(days))
