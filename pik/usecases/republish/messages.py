"""The messages of a republish: a delivery as a CloudEvent, or as the record that its producer sent, with stamps by
which a consumer can tell what it has already."""

from __future__ import annotations

import re
from urllib.parse import quote

import msgspec

from pik.model.delivery import Delivery
from pik.model.instant import format_instant
from pik.model.republish import Form, RepublishRequest
from pik.ports.target import DELIVERY, EVENT_ID, REPUBLISH_ID, Message
from pik.usecases.republish.order import SentDelivery

_encode = msgspec.json.encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_CONTENT_TYPES = {Form.CLOUDEVENTS: "application/cloudevents+json", Form.ORIGINAL: "application/json"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def message_of(republish_id: str, request: RepublishRequest, sent: SentDelivery) -> Message:
    """Return the message of a delivery."""
    place, delivery = sent.place, sent.delivery
    message_id = f"{republish_id}-{place.event_id}"
    attributes = {REPUBLISH_ID: republish_id, EVENT_ID: place.event_id}
    if request.as_received:
        message_id += f"-{place.batch_id}-{place.seq}"
        attributes[DELIVERY] = f"{place.batch_id}/{place.seq}"
    body = {Form.CLOUDEVENTS: _cloud_event, Form.ORIGINAL: _original}[request.form]
    return Message(
        message_id=message_id,
        event_id=place.event_id,
        source=delivery.source,
        event_type=delivery.event_type,
        entity_id=place.entity_id,
        event_time=place.event_time,
        body=body(republish_id, request, sent),
        content_type=_CONTENT_TYPES[request.form],
        attributes=attributes,
    )


def _cloud_event(republish_id: str, request: RepublishRequest, sent: SentDelivery) -> bytes:
    """Return the CloudEvent. Its names of extensions have letters and digits only, as the standard demands."""
    place, delivery = sent.place, sent.delivery
    event = {
        "specversion": "1.0",
        "id": place.event_id,
        "source": uri_reference(delivery.source),
        "type": delivery.event_type,
        "subject": place.entity_id,
        "time": format_instant(place.event_time),
        "datacontenttype": "application/json",
        "partitionkey": place.entity_id,
        "pikrepublishid": republish_id,
    }
    if delivery.idempotency_key is not None:
        event["idempotencykey"] = delivery.idempotency_key
    if place.event_time != delivery.event_instant:  # a correction moved it
        event["pikreceivedeventtime"] = format_instant(delivery.event_instant)
    if request.as_received:
        event |= {"pikdelivery": f"{place.batch_id}/{place.seq}", "pikverdict": sent.verdict}
    return b'%s,"data":%s}' % (_encode(event)[:-1], bytes(delivery.payload))


def uri_reference(source: str) -> str:
    """Return a source as a URI reference, as CloudEvents demand it: what cannot stand in one is percent-encoded, and
    decoding that gives the source."""
    colon = ":" if _SCHEME.match(source) else ""
    return quote(source, safe=f"/?@!$&'()*+,;=-._~{colon}")


def _original(_republish_id: str, _request: RepublishRequest, sent: SentDelivery) -> bytes:
    """Return the record that was mapped or, where none was, the event with its times as they were written and its
    unknown fields. A time that was corrected is not in it."""
    delivery = sent.delivery
    return bytes(delivery.original) or _event(delivery)


def _event(delivery: Delivery) -> bytes:
    fields = {
        "source": delivery.source,
        "event_type": delivery.event_type,
        "entity_id": delivery.entity_id,
        "event_time": delivery.event_time_original or format_instant(delivery.event_instant),
    }
    if delivery.received_time is not None:
        fields["received_time"] = delivery.received_time_original or delivery.received_time
    if delivery.idempotency_key is not None:
        fields["idempotency_key"] = delivery.idempotency_key
    extra = _encode(_decode_object(delivery.extra)) if bytes(delivery.extra) else b"{}"
    more = b"," + extra[1:-1] if extra != b"{}" else b""
    return b'%s%s,"payload":%s}' % (_encode(fields)[:-1], more, bytes(delivery.payload))
