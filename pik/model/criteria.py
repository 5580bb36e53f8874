"""Criteria that select deliveries, and how they are typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from pik.errors import Invalid
from pik.model.ids import is_recent
from pik.model.instant import parse_instant
from pik.model.pairs import read_pairs, typed_pairs
from pik.model.window import ALL_TIME, Window


@dataclass(frozen=True, slots=True)
class Criteria:
    """Selects deliveries by the time and content that `events` and `show` print; None: no restriction. `batch` is a
    batch's id or its beginning, `received` a window of arrival (received time, else ingest time), `where` a SQL
    condition on an event."""

    source: str | None = None
    event_type: str | None = None
    entity: str | None = None
    batch: str | None = None
    window: Window = ALL_TIME
    received: Window = ALL_TIME
    where: str | None = None

    @property
    def condition(self) -> str | None:
        """The SQL condition on an event of `received` and `where` together."""
        arrival = "epoch_ns(coalesce(received_time, ingest_time))"
        # SQL sees these times in whole microseconds: an arrival within that of the start is in.
        bounds = [f"{arrival} >= {self.received.start // 1000 * 1000}"] if self.received.from_text else []
        bounds += [f"{arrival} < {self.received.end}"] if self.received.to_text else []
        if not bounds:
            return self.where
        arrived = " AND ".join(bounds)  # the condition may fail for deliveries of which this does not hold
        return arrived if self.where is None else f"CASE WHEN {arrived} THEN ({self.where}\n) END"

    def __str__(self) -> str:
        """Return them as they are typed, times resolved."""
        pairs = {
            "source": self.source,
            "type": self.event_type,
            "entity": self.entity,
            "batch": self.batch,
            "from": self.window.from_text,
            "to": self.window.to_text,
            "received-from": self.received.from_text,
            "received-to": self.received.to_text,
        }
        typed = typed_pairs((name, text) for name, text in pairs.items() if text is not None)
        return ",".join(typed + ([f"where={self.where}"] if self.where is not None else []))


KEYS = ("source", "type", "entity", "batch", "from", "to", "received-from", "received-to", "where")
KEYS_HINT = "source=, type=, entity=, batch=, from=, to=, received-from=, received-to= and last where=SQL"
_TEXTS = tuple(field.name for field in fields(Criteria) if field.name not in ("window", "received"))
_NAMES = {"event_type": "type"}


def read_criteria(text: str) -> Criteria:
    """Return the criteria that `KEY=VALUE[,KEY=VALUE…]` describes: source, type, entity, batch, from, to and, as the
    last one, where. A value with a comma is quoted as in CSV. Raises Invalid."""
    return criteria_of(dict(read_pairs(text, KEYS, "a selection", KEYS_HINT)))


def criteria_of(given: Mapping[str, str]) -> Criteria:
    """Return the criteria among pairs that were read. Raises Invalid."""
    read_batch(given.get("batch", ""))
    texts = {name: given.get(_NAMES.get(name, name)) for name in _TEXTS}
    return Criteria(**texts, window=_window(given, ""), received=_window(given, "received-"))


def _window(given: Mapping[str, str], prefix: str) -> Window:
    """Return the window of `from` and `to`, each with this prefix. Raises Invalid."""
    start, end = (
        _written(name, given[name]) if name in given else default
        for name, default in ((f"{prefix}from", ALL_TIME.start), (f"{prefix}to", ALL_TIME.end))
    )
    if start >= end:
        raise Invalid(f"its window is empty: {prefix}from is included, {prefix}to is not, and must be later")
    return Window(start, end)


def read_batch(text: str) -> str:
    """Return the id of a batch, or its beginning. Raises Invalid for a word such as `latest`."""
    if is_recent(text):
        raise Invalid("a batch is named by its id, since assumptions are recorded as typed", hint="pik batches")
    return text


def _written(name: str, text: str) -> int:
    """Return the instant of a time. Words such as `yesterday` are refused: a selection is recorded as it is typed."""
    try:
        return parse_instant(text, date_only=True)
    except Invalid as error:
        raise Invalid(f"{name}: {error.message}", hint=f"written out, in UTC: {name}=2026-01-31T10:00:00Z") from None
