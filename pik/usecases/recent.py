"""Words for recent things: `latest`, or `-1`, is the newest batch, run, promotion, correction or republish; `-2` is the
one before."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import islice

from pik.errors import NotFound, command, number_of
from pik.model.run import PromotionKind
from pik.ports.store import Store


class Recent(StrEnum):
    """What a word stands for: the id of a batch, a run, a correction or a republish; with PROMOTED, of a run that was
    promoted, the one whose promotion is newest first; promotions that moved nothing are none."""

    BATCH = "batch"
    RUN = "run"
    PROMOTED = "promoted run"
    CORRECTION = "correction"
    REPUBLISH = "republish"


_LISTS = {
    Recent.BATCH: command("batches"),
    Recent.RUN: command("runs", "list"),
    Recent.PROMOTED: command("history"),
    Recent.CORRECTION: command("corrections", "list"),
    Recent.REPUBLISH: command("republish", "list"),
}


def find_recent(store: Store, kind: Recent, word: str) -> str:
    """Return the id that a word stands for; only what is newer is looked at. Raises NotFound if there are not so
    many."""
    number = 1 if word.lower() == "latest" else int(word[1:])
    found = list(islice(_newest_first(store, kind), number))
    if len(found) == number:
        return found[-1]
    there = f"there are only {number_of(len(found), kind)}" if len(found) > 1 else f"there is only 1 {kind}"
    raise NotFound(
        f"{word}: {there if found else f'there is no {kind} in this store'}",
        hint=f"a {kind}'s id, or its beginning: {_LISTS[kind]}",
    )


def _newest_first(store: Store, kind: Recent) -> Iterator[str]:
    match kind:
        case Recent.BATCH:
            return (one.batch_id for one in store.index.batches())
        case Recent.RUN:
            return (one.run_id for one in store.runs.newest_first())
        case Recent.CORRECTION:
            return (one.correction_id for one in reversed(store.corrections.recorded()))
        case Recent.REPUBLISH:
            return (one.republish_id for one in store.republishes.newest_first())
    promotions = (one for one in store.promotions.newest_first() if one.kind == PromotionKind.PROMOTE)
    return _unique(one.run_id for one in promotions if one.moved)


def _unique(ids: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for one in ids:
        if one not in seen:
            seen.add(one)
            yield one
