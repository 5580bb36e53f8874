"""What an id names that was given where another kind of id is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pik.errors import NotFound
from pik.ports.store import Store

_ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_EVENT = re.compile(r"[0-9a-f]{32}")
_MESSAGE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The ids of dead letters on AWS are those of messages in SQS."""


def other_kind(store: Store, typed: str, sought: str) -> tuple[str, str] | None:
    """Return what this whole id names other than a `sought`, and the id as it is written: `batch`, `run`, `correction`,
    `republish`, `event` or `dead letter`; None: nothing in the store. Costs a few calls."""
    one = typed.upper() if _ULID.fullmatch(typed.upper()) else typed.lower()
    if _EVENT.fullmatch(one):
        kinds: Mapping[str, Callable[[Store, str], bool]] = {"event": _is_event}
    elif _MESSAGE.fullmatch(one):
        kinds = {"dead letter": _is_letter}
    elif _ULID.fullmatch(one):
        # A list of the letters of a queue hides them from others for a moment, and none has such an id.
        kinds = _KINDS if store.deployed else {**_KINDS, "dead letter": _is_letter}
    else:
        return None
    return next(((kind, one) for kind, is_one in kinds.items() if kind != sought and is_one(store, one)), None)


def _is_batch(store: Store, one: str) -> bool:
    return any(True for _ in store.index.batches(one))


def _is_run(store: Store, one: str) -> bool:
    try:
        store.runs.get(one)
    except NotFound:
        return False
    return True


def _is_correction(store: Store, one: str) -> bool:
    return any(each.correction_id == one for each in store.corrections.recorded())


def _is_republish(store: Store, one: str) -> bool:
    try:
        store.republishes.get(one)
    except NotFound:
        return False
    return True


def _is_event(store: Store, one: str) -> bool:
    return bool(store.index.locate(one))


def _is_letter(store: Store, one: str) -> bool:
    return any(each.letter_id == one for each in store.dead_letters.letters())


_KINDS: Mapping[str, Callable[[Store, str], bool]] = {
    "batch": _is_batch,
    "run": _is_run,
    "correction": _is_correction,
    "republish": _is_republish,
}
