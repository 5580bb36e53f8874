"""Columns of what is missing, damaged or wrong, and of the values in question."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from pik.cli.buckets import shown_bucket
from pik.cli.document import Column
from pik.cli.values import Bucket, Entity, Shown, words
from pik.model.metric import ALL_ENTITIES

if TYPE_CHECKING:
    from pik.usecases.care.verify_findings import Problem

PROBLEMS = (
    Column(
        "kind",
        str,
        "`missing`, `modified`, `unreadable` (it is there and could not be read), `index differs`, `unknown object`,"
        " `state damaged`, `aggregate differs`; in `pik pull` also `expired`; in `pik verify` also `not proven` (raw"
        " has lost inputs of a current value; damage of raw), `incomplete` (raw has lost what was recorded after a"
        " current value was computed) and `not provable` (what it counted is not certain; not damage)",
    ),
    Column(
        "what",
        str,
        "the object, the batch, the part of the index, or the aggregate",
        text=lambda one: f"{one.what} of {one.value.entity_id}" if one.value and one.value.entity_id else None,
        wrap=True,
    ),
    Column("detail", str, wrap=True, advice=True),
    Column("day", str | None, "the affected day", drop=8),
    Column(
        "entities",
        list[str] | None,
        "the affected ones: names, or ranges with numbers of deliveries; null: all, or none",
        text=lambda one: words(Entity(ALL_ENTITIES)) if one.value and one.value.entity_id == ALL_ENTITIES else None,
        wrap=True,
        drop=7,
    ),
)
"""Columns of what is missing, damaged or wrong, wherever it is listed."""


def _of_value(name: str) -> Callable[[Problem], object]:
    return lambda problem: None if problem.value is None else getattr(problem.value, name)


def _lost_events(problem: Problem) -> Shown | None:
    ids, value = problem.lost_events, problem.value
    if not ids:
        return Shown(None, f"among {value.candidates:,}") if value is not None and value.candidates else None
    return Shown(list(ids), ids[0] if len(ids) == 1 else f"{len(ids):,}: {ids[0]}, …")


IN_QUESTION = (
    Column("metric", str | None, "of a value in question", get=_of_value("metric"), detail=True),
    Column(
        "entity_id",
        str | None,
        "null: of all entities, or not of a value",
        get=_of_value("entity_id"),
        detail=True,
    ),
    Column("run_id", str | None, "of the run that computed it", get=_of_value("run_id"), detail=True),
    Column(
        "bucket",
        Bucket | None,
        "its start",
        get=lambda one: None if one.value is None else shown_bucket(one.value.metric, one.value.bucket),
        drop=2,
        rare=True,
    ),
    Column("recorded", Decimal | None, "the value as it was computed", get=_of_value("recorded"), drop=4, rare=True),
    Column(
        "remaining",
        Decimal | None,
        "what raw still gives of what it knew; null: nothing, or it is incomplete",
        get=_of_value("remaining"),
        drop=5,
        rare=True,
    ),
    Column(
        "difference",
        Decimal | None,
        "remaining - recorded; null: it is incomplete",
        get=_of_value("difference"),
        drop=3,
        rare=True,
    ),
    Column(
        "lost_candidates",
        int | None,
        "how many lost deliveries the value may have counted, or if it is incomplete may lack",
        get=_of_value("candidates"),
        detail=True,
    ),
    Column(
        "lost_events",
        list[str] | None,
        "the ids of the deliveries that are lost, of an object, of those that the value counted, or of those that an"
        " incomplete one lacks; null: none, or it is not known which",
        get=_lost_events,
        wrap=True,
        drop=9,
        rare=True,
    ),
)
"""Columns of values in question."""
