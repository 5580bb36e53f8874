"""What the store has of an input already: its batch, or one of the same content that was read in another way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pik.model.batch import Batch, Origin
from pik.ports.store import Store
from pik.rawlog.corrected import corrected_until


def find_ingested(store: Store, origin: Origin) -> Batch | None:
    """Return the newest batch of this origin, if any that is not withdrawn."""
    found = store.batches.find(origin)
    return None if found is None or found.batch_id in corrected_until(store).withdrawn else found


@dataclass(frozen=True, slots=True)
class ReadOtherwise:
    """A batch of the same content as an input. `differing` are the options in which they differ, with their values for
    the batch and for the input; None: not given."""

    batch_id: str
    differing: Mapping[str, tuple[str | None, str | None]]


def find_read_otherwise(store: Store, origin: Origin) -> ReadOtherwise | None:
    """Return the newest batch of events of the same content that was read with other options, if any that is not
    withdrawn.

    A file is known by its digest. What a stream holds is not known before it was read, so of one there is none.
    """
    if ":" in origin.content:  # of a stream: no digest
        return None
    here = _options(origin)
    for batch in store.batches.of_content(origin.content):
        there = _options(batch.origin)
        has_events = batch.counts.read > batch.counts.rejected
        if there != here and has_events and batch.batch_id not in corrected_until(store).withdrawn:
            names = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
            return ReadOtherwise(batch.batch_id, {name: (there.get(name), here.get(name)) for name in names})
    return None


def _options(origin: Origin) -> dict[str, str]:
    """Return the options that change what is recorded."""
    return {name: value for name, value in origin.options if name != "mapping"}
