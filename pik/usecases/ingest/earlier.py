"""What the store has of an input already: its batch, or one of the same content that was read in another way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    here = options_of(origin)
    for batch in holding_content(store, origin):
        there = options_of(batch.origin)
        if there != here:
            names = differing(there, here)
            return ReadOtherwise(batch.batch_id, {name: (there.get(name), here.get(name)) for name in names})
    return None


def holding_content(store: Store, origin: Origin) -> Iterator[Batch]:
    """Yield the batches of events of a file's content, newest first, that are not withdrawn. Of what came as a stream
    or through the API there are none: what these hold is not known by its digest."""
    for batch in store.batches.of_content(origin.content) if ":" not in origin.content else ():
        has_events = batch.counts.read > batch.counts.rejected
        if has_events and batch.batch_id not in corrected_until(store).withdrawn:
            yield batch


def others_of_content(store: Store, batch: Batch) -> Iterator[Batch]:
    """Yield the other batches of events of a batch's content, newest first, that are not withdrawn."""
    return (one for one in holding_content(store, batch.origin) if one.batch_id != batch.batch_id)


def differing(*options: Mapping[str, str]) -> list[str]:
    """Return the names of those options that are not the same in all of these."""
    names = set[str]().union(*options)
    return sorted(name for name in names if len({one.get(name) for one in options}) > 1)


def options_of(origin: Origin) -> dict[str, str]:
    """Return the options that change what is recorded."""
    return {name: value for name, value in origin.options if name != "mapping"}
