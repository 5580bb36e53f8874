"""What `pik explain` shows: both sides, the causes of the difference, and the events behind them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from pik.cli.commands.numbers.disputed import DISPUTED
from pik.cli.commands.numbers.not_read import NOT_READ, partial_text, proven_text
from pik.cli.commands.numbers.passed_over import PASSED_OVER
from pik.cli.commands.numbers.tried import EXPECTED, TRIED
from pik.cli.document import NEXT, Column, Field, Object, Rows, Schema, or_null
from pik.cli.values import Bucket, Count, Entity, EventId, Instant, Json, words

if TYPE_CHECKING:
    from pik.model.aggregate import Computed
    from pik.model.metric import Metric
    from pik.usecases.metrics.explain_events import CauseEvent
    from pik.usecases.metrics.explanation import Explanation, Share


def _pin(metric: Metric) -> str:
    return f"{metric.name}@{metric.version or 'file'}"


def _definition(metric: Metric) -> dict[str, object]:
    definition = metric.definition
    shown = {name: getattr(definition, name) for name in ("value", "where", "bucket", "timezone")}
    return {"metric": _pin(metric), **shown}


def _redefined(found: Explanation) -> list[dict[str, object]]:
    """Return the definitions of both sides where they differ."""
    left = found.left.knowledge
    if left is None or left.metric.definition == found.metric.definition:
        return []
    return [_definition(left.metric), _definition(found.metric)]


def _redefined_text(found: Explanation) -> str:
    given = [{name: text for name, text in one.items() if text or name != "timezone"} for one in _redefined(found)]
    return words(given)


def _of(side: str, path: str) -> Callable[[Explanation | Share], object]:
    """Return what finds a part of a side, null where there is none."""

    def part(found: Explanation | Share) -> object:
        at: object = getattr(found, side)
        for name in path.split("."):
            at = at and getattr(at, name)
        return at or None

    return part


def _promotion(side: str, name: str) -> Callable[[Explanation], object]:
    """Return what finds a part of a side's promotion, null where the last that happened was a rollback."""
    part, kind = _of(side, f"promotion.{name}"), _of(side, "promotion.kind")
    return lambda found: part(found) if kind(found) == "promote" else None


def _value(computed: Computed | None) -> Decimal | None:
    return None if computed is None else computed.value


def _change(row: tuple[CauseEvent, dict[str, Any]]) -> str:
    change = row[0].change
    return "~" if change.before and change.after else "+" if change.after else "-"


def _json(row: tuple[CauseEvent, dict[str, Any]]) -> bytes | None:
    return _encode(row[1]) if row[1] else None


def _text(row: tuple[CauseEvent, dict[str, Any]]) -> str | None:
    return ", ".join(_plain(value) for value in row[1].values()) if row[1] else None


def _plain(value: object) -> str:
    """Return JSON, of a text without the quotes around it and in it."""
    text: str = _encode(value).decode()
    return text[1:-1].replace('\\"', '"') if isinstance(value, str) else text


_encode = msgspec.json.Encoder(decimal_format="number").encode

EXPLANATION = Schema(
    "pik explain",
    Field("metric", str, "NAME@VERSION of the right side", get=lambda found: _pin(found.metric)),
    Field("entity_id", Entity | None, "null: the metric is over all entities"),
    Field("bucket", Bucket, "its start"),
    Field("bucket_end", Instant, get=lambda found: found.metric.buckets.end_of(found.bucket)),
    Field(
        "bucket_local",
        str | None,
        "`bucket` with the date or time in the metric's timezone; null: it has none",
        get=lambda found: found.metric.buckets.local_text(found.bucket),
    ),
    Field(
        "assumed", list[str] | None, "the scenario, resolved; null: what counts today", get=or_null("scenario.texts")
    ),
    Field(
        "left_side",
        str | None,
        "`current@TIME`, `run:ID` or `file:NAME`; null: current",
        get=lambda found: None if found.left.name == "current" else found.left.name,
    ),
    Field(
        "right_side", str | None, "`current`, `current@TIME` or `run:ID`; null: recomputed", get=_of("right", "name")
    ),
    Field(
        "current",
        Decimal | None,
        "the left side",
        get=lambda found: _value(found.left.computed),
        text=lambda found: "no value" if _value(found.left.computed) is None else None,
    ),
    Field(
        "recomputed",
        Decimal | None,
        "the right side",
        get=lambda found: _value(found.recomputed),
        text=lambda found: partial_text(found, _value(found.recomputed)),
    ),
    Field(
        "delta",
        Decimal,
        "recomputed - current, a missing value counted as 0: the sum of the shares",
        text=lambda found: partial_text(found, found.delta),
    ),
    NOT_READ,
    DISPUTED,
    PASSED_OVER,
    *EXPECTED,
    Field("run_id", str | None, "that wrote the left version", get=_of("left", "version.run_id")),
    Field("run_actor", str | None, "who asked for that run; null: not known", get=_of("left", "version.actor")),
    Field("run_reason", str | None, get=_of("left", "version.reason")),
    Field("promoted_at", Instant | None, "when that run was promoted", get=_promotion("left", "at")),
    Field("promoted_by", str | None, get=_promotion("left", "actor")),
    Field(
        "known_until",
        Instant | None,
        "of the left version; null: it was imported, or nothing was recorded yet",
        get=_of("left", "version.known_until"),
    ),
    Field("right_run_id", str | None, "that wrote the right version", get=_of("right", "version.run_id")),
    Field("right_run_actor", str | None, get=_of("right", "version.actor")),
    Field("right_promoted_at", Instant | None, get=_promotion("right", "at")),
    Field("right_promoted_by", str | None, get=_promotion("right", "actor")),
    Field("right_known_until", Instant | None, get=_of("right", "version.known_until")),
    Field(
        "proven",
        bool | None,
        "whether raw still holds exactly what the recorded versions counted, of what was known then; null: there is"
        " none",
        text=proven_text,
    ),
    Rows(
        "causes",
        "in the order in which they are applied",
        Column("cause", str),
        Column("share", Decimal, "by how much it changes the value"),
        Column("events", Count | None, "that count on one side of it only; null: not known"),
        Column("certainty", str, "`proven` or `inferred`", get=lambda one: "proven" if one.proven else "inferred"),
        Column("detail", str, wrap=True),
        Column("run_id", str | None, "whose version it is about", get=_of("side", "version.run_id"), detail=True),
        Column("actor", str | None, "who asked for that run", get=_of("side", "version.actor"), detail=True),
        Column(
            "promotion_id",
            str | None,
            "the last promotion of that run; of what was rolled back, the rollback",
            get=_of("side", "promotion.promotion_id"),
            detail=True,
        ),
        Column(
            "correction_id",
            str | None,
            "of the correction, its revocation, or the rebuild",
            get=_of("correction", "correction_id"),
            detail=True,
        ),
        get=lambda found: found.shares,
    ),
    Field(
        "lost",
        list[str] | None,
        "raw objects with frames that cannot be read; both sides are without those, but for exact copies elsewhere",
    ),
    Field(
        "definitions",
        Object(
            Field("metric", str),
            Field("value", str),
            Field("where", str | None),
            Field("bucket", str),
            Field("timezone", str | None),
            many=True,
        ),
        "of both sides, where they differ",
        get=_redefined,
        text=_redefined_text,
    ),
    Rows(
        "events",
        "by cause, then event_id",
        Column("cause", str, get=lambda row: row[0].cause),
        Column("event_id", EventId, get=lambda row: row[0].change.event_id),
        Column(
            "event_time",
            Instant | None,
            "in raw; null: it is only assumed",
            get=lambda row: row[0].delivery and row[0].delivery.event_instant,
        ),
        Column(
            "counted_at",
            Instant | None,
            "when it counts instead (after the change, of `-` before it) by corrections and assumptions; null: at its"
            " `event_time`",
            get=lambda row: row[0].counted_at,
            rare=True,
        ),
        Column("change", str, "`+` it counts then, `-` it does not any more, `~` at another time", get=_change),
        Column("batch_id", str, get=lambda row: row[0].change.batch_id, drop=1),
        Column("seq", int, get=lambda row: row[0].change.seq, drop=2),
        Column("values", Json | None, "by `--column`; null without it", get=_json, text=_text, rare=True),
        empty="no events behind any cause",
        only="with `--events`",
    ),
    *TRIED,
    NEXT,
)
