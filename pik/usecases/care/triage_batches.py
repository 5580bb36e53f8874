"""The check of a triage that looks for files which were ingested twice, read in two ways, so that each batch counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

from pik.errors import Damaged, command, number_of
from pik.model.batch import Batch
from pik.model.instant import DAY, day_text
from pik.model.visible import visible, visible_option
from pik.usecases.care.triage_findings import Finding, Scope
from pik.usecases.ingest.earlier import differing, holding_content, options_of
from pik.usecases.inspect.batch_standing import batch_standing

CHECK = "ingested twice"

RULE = "files that were ingested again with other options, where more than one of the batches counts"

_OPTIONS = 3
"""Options by which a finding tells batches apart, at most."""


class IngestedTwice:
    """Finds, batch by batch, the others of the same content. It remembers only contents that were found; a file costs
    one look at the batches of its content, what came through the API nothing."""

    def __init__(self, scope: Scope) -> None:
        self._scope, self._found = scope, set[str]()

    def with_batch(self, batch: Batch) -> Iterator[Finding]:
        """Yield the finding about a batch's content, once. Which parts of a file are records (--records) may well
        differ: batches of other parts are left apart."""
        origin = batch.origin
        if origin.content in self._found:
            return
        part = options_of(origin).get("records")
        every = [
            one for one in holding_content(self._scope.store, origin) if options_of(one.origin).get("records") == part
        ]
        if not _differ(every):
            return
        counting = {one.batch_id: events for one in every if (events := self._events(one))}
        found = [one for one in every if one.batch_id in counting]
        found.sort(key=attrgetter("started_at", "batch_id"))
        if _differ(found):
            self._found.add(origin.content)
            yield _finding(self._scope, found, counting)

    def _events(self, batch: Batch) -> int:
        """Return how many deliveries of a batch count, as far as its raw can be read."""
        try:
            standing = batch_standing(self._scope.store, batch)
        except Damaged as error:
            self._scope.failures[CHECK] = error.message
            standing = None
        moved = 0 if standing is None else standing.counted_duplicates - standing.taken_out
        return batch.counts.accepted + moved


def _differ(batches: Sequence[Batch]) -> bool:
    return bool(differing(*(options_of(batch.origin) for batch in batches)))


def _finding(scope: Scope, batches: Sequence[Batch], counting: Mapping[str, int]) -> Finding:
    """Return the finding about batches of one content, the oldest first, with how many of their deliveries count."""
    names = differing(*(options_of(batch.origin) for batch in batches))
    each = " and ".join(
        f"batch {one.batch_id} ({_read_with(one, names)}; {number_of(counting[one.batch_id], 'event')})"
        for one in batches
    )
    how_often = "twice" if len(batches) == 2 else f"{len(batches):,} times"
    days = [end // DAY for batch in batches for end in (batch.first_event, batch.last_event) if end is not None]
    window = ["--from", day_text(min(days)), "--to", day_text(max(days) + 1)] if days else []
    entities = [word for entity in scope.entities for word in ("--entity", entity)]
    oldest, newest = batches[0], batches[-1]
    return Finding(
        CHECK,
        f"{visible(newest.origin.name)} was ingested {how_often}, read with other options, and each counts: {each}",
        command("diff", "aggregates", "--assume", f"without-batch={oldest.batch_id}", *entities, *window),
        scope=newest.batch_id,
        since=newest.started_at,
        events=counting[newest.batch_id],
    )


def _read_with(batch: Batch, names: Sequence[str]) -> str:
    """Return how a batch was read, as far as these options say it."""
    options = options_of(batch.origin)
    shown = ", ".join(f"{name.replace('_', '-')} {visible_option(options.get(name))}" for name in names[:_OPTIONS])
    return shown + (", …" if len(names) > _OPTIONS else "")
