"""What `pik republish` shows: its plan, its outcome, lists and failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from pik.cli.document import TRUNCATED, Column, Field, Rows, Schema, or_null
from pik.cli.values import Count, EventId, Instant, Json, Moment
from pik.errors import command, number_of
from pik.model.instant import day_text
from pik.model.republish import Form, Republish, RepublishState
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.ports.target import Message
    from pik.usecases.republish.send import Plan

_FORMS = {Form.CLOUDEVENTS: "as CloudEvents", Form.ORIGINAL: "as their producers sent them"}
_STATES = (
    "`RUNNING`; `STOPPED`: not everything was sent yet; everything was sent: `COMPLETED`, or `PARTIAL` if some was"
    " refused; `CANCELLED`: given up"
)


_NAMED = 10
"""Sources and types that people are shown."""


def deliveries_text(republish: Republish) -> str:
    """Return what is sent and where to, in words: `12 events of 3 entities to TARGET`."""
    request = republish.request
    what = number_of(republish.events, "event")
    if request.as_received:
        what = number_of(republish.events, "delivery")
    entities = number_of(republish.entities, "entity")
    return f"{what} of {entities} to {request.target}, {_FORMS[request.form]}"


def progress_text(republish: Republish) -> str:
    """Return how far a republish is, in words: `STOPPED, 9 of 12 events of [FROM, TO) to TARGET, 1 refused`."""
    request = republish.request
    noun = "deliveries" if request.as_received else "events"
    done = f"{republish.taken:,} of " if republish.taken < republish.events else ""
    refused = f", {republish.refused:,} refused" if republish.refused else ""
    because = f", {republish.stopped_because}" if republish.state == RepublishState.CANCELLED else ""
    what = f"{done}{republish.events:,} {noun} of {request.window} to {request.target}"
    return f"{republish.state}, {what}{refused}{because}"


def reason_text(reason: str) -> str:
    """Return a reason in brackets, if there is one."""
    return f" ({reason})" if reason else ""


def plan_text(plan: Plan) -> str:
    """Return what a republish is about to do, in some lines."""
    extent = plan.ordered.extent
    lines = [
        f"send {deliveries_text(plan.republish)}",
        f"  {_days_text(plan)}, about {_bytes_text(extent.size)}",
        *([f"  {number_of(extent.moved, 'event')} at a corrected time"] if extent.moved else []),
        *([f"  without {number_of(extent.taken_out, 'event')} that corrections took out"] if extent.taken_out else []),
        f"  sources: {_counts_text(extent.sources)}",
        f"  types: {_counts_text(extent.types)}",
        "  each at least once; a consumer drops what it has already by event_id",
    ]
    return "\n".join(lines)


def _counts_text(counts: Mapping[str, int]) -> str:
    """Return the most frequent names with their counts, and how many names there are besides."""
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    named = [f"{name or '(others)'} {count:,}" for name, count in most[:_NAMED]]
    return ", ".join(named + ([f"and {len(most) - _NAMED:,} more"] if len(most) > _NAMED else []))


def _days_text(plan: Plan) -> str:
    days = sorted(plan.ordered.extent.days)
    of = day_text(days[0]) if len(days) == 1 else f"{day_text(days[0])} to {day_text(days[-1])}"
    return f"{number_of(len(days), 'day')} ({of})"


def _bytes_text(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


_corrections = or_null("corrections_until")

_ASKED = (
    Field("target", str, "without what may be secret in its URL", get="request.target"),
    Field("as", str, "`cloudevents` or `original`", get="request.form"),
    Field("window", Window, get="request.window"),
    Field("entities", list[str] | None, "as requested; null: all", get="request.entities"),
    Field("source", str | None, get="request.source"),
    Field("type", str | None, get="request.event_type"),
    Field("where", str | None, get="request.where"),
    Field("as_received", bool, "whether every delivery is sent, and not only what counts", get="request.as_received"),
    Field("reason", str | None, get="request.reason"),
    Field("actor", str),
    Field("known_until", Instant, "the last recording that is sent, also when it is resumed later"),
    Field("corrections_until", Instant | None, "the last correction that holds; null: none", get=_corrections),
    Field("events", Count, "messages: events, or with `as_received` deliveries"),
    Field("moved", Count, "those whose time a correction moved"),
    Field("taken_out", Count, "other events that would be selected, if corrections had not taken them out"),
    Field("entity_count", Count, get="entities"),
)
"""What was asked for, and what that comes to."""

_DONE = (
    Field("state", str, _STATES),
    Field("taken", Count, "messages that the target took"),
    Field("refused", Count, "messages that it did not take"),
    Field("attempts", int),
    Field("rate", float | None, "messages per second at most, in the last attempt; null: no limit"),
    Field("stop_after_failures", int, "in the last attempt", get="stop_after"),
    Field("stopped_because", str | None, "why the last attempt ended early, or who cancelled it and why"),
    Field("created_at", Instant),
    Field("finished_at", Instant | None, "when the last attempt ended, or it was cancelled"),
)


def _next(republish: Republish) -> str | None:
    if not republish.can_be_resumed:
        return None
    going_on = command("republish", "resume", republish.republish_id)
    if not republish.refused:
        return going_on
    return f"{command('republish', 'show', republish.republish_id)}\n{going_on}"


def _of_plan(field: Field) -> Field:
    return Field(field.name, field.kind, field.about, get=lambda plan: field.value(plan.republish))


def _attributes(message: Message) -> Json:
    return Json(msgspec.json.encode(dict(message.attributes)))


def _body(message: Message) -> Json:
    return Json(message.body)


PLANNED = Schema(
    "pik republish --dry-run",
    *map(_of_plan, _ASKED),
    Field(
        "events_by_source",
        dict[str, int],
        "the empty name: all others",
        get="ordered.extent.sources",
        text=lambda plan: _counts_text(plan.ordered.extent.sources),
    ),
    Field(
        "events_by_type",
        dict[str, int],
        "likewise",
        get="ordered.extent.types",
        text=lambda plan: _counts_text(plan.ordered.extent.types),
    ),
    Field("days", int, "days with events", get=lambda plan: len(plan.ordered.extent.days)),
    Field("first_event", Instant, get="ordered.extent.first"),
    Field("last_event", Instant, get="ordered.extent.last"),
    Field("bytes", Count, "of their raw lines: about what is sent", get="ordered.extent.size"),
    Rows(
        "messages",
        "the first ones, as they would be sent",
        Column("entity_id", str, drop=1),
        Column("event_id", EventId, drop=2),
        Column("content_type", str, detail=True),
        Column(
            "attributes",
            Json,
            "an object: headers or message attributes; `REPUBLISH-ID` stands for the id, which it has when it begins",
            get=_attributes,
            detail=True,
        ),
        Column("body", Json, get=_body, wrap=True),
        get=lambda plan: plan.sample,
    ),
    Field("dry_run", bool, "true"),
)


OUTCOME = Schema(
    "pik republish, pik republish resume, pik republish cancel",
    Field("republish_id", str),
    *_ASKED,
    *_DONE,
    Field("next", str | None, get=_next),
)

SHOWN = Schema(
    "pik republish show",
    Field("republish_id", str),
    *_ASKED,
    *_DONE,
    Field("sending", bool, "whether a process is sending it"),
    Field("next", str | None, get=_next),
    Rows(
        "failures",
        "what was refused and not taken since, by batch and seq",
        Column("event_id", EventId, get="place.event_id"),
        Column("entity_id", str, get="place.entity_id", cut=24),
        Column("event_time", Instant, get="place.event_time", drop=2),
        Column("batch_id", str, get="place.batch_id", detail=True),
        Column("seq", int, get="place.seq", detail=True),
        Column("at", Moment, "when it was refused", drop=1),
        Column("reason", str, wrap=True),
        empty="nothing was refused",
    ),
    TRUNCATED,
)


def _subject(republish: Republish) -> str:
    return f"{progress_text(republish)}, by {republish.actor}{reason_text(republish.request.reason)}"


LIST = Schema(
    "pik republish list",
    Rows(
        "republishes",
        "newest first",
        Column("republish_id", str),
        Column("created_at", Moment),
        Column(
            "subject",
            str,
            "state, messages, target, window, actor and reason in words, for people",
            get=_subject,
            wrap=True,
        ),
        Column("state", str, _STATES, detail=True),
        Column("target", str, get="request.target", detail=True),
        Column("as", str, get="request.form", detail=True),
        Column("window", Window, get="request.window", detail=True),
        Column("events", Count, "messages: events, or deliveries", detail=True),
        Column("taken", Count, "by the target", detail=True),
        Column("refused", Count, detail=True),
        Column("actor", str, detail=True),
        Column("reason", str | None, get="request.reason", detail=True),
        Column("finished_at", Moment | None, "when the last attempt ended, or it was cancelled", detail=True),
        empty="nothing was sent again yet",
    ),
    TRUNCATED,
)
