"""Buffered ingest: what a request is on its way through the queue."""

from __future__ import annotations

import zlib

import msgspec

from pik.errors import Invalid
from pik.model.ids import buffered_id

MAX_MESSAGE = 1 << 20
"""Most bytes of a message that SQS takes."""


class BufferedRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request whose events are recorded later.

    `received_at` is when the API received it, in nanoseconds; `request_id` is the API's id of it. The others are as
    `record_request` takes them.
    """

    request_id: str
    received_at: int
    body: bytes
    as_lines: bool = False
    timezone: str | None = None
    actor: str = ""

    @property
    def id(self) -> str:
        """The id by which it is recorded, whenever and however often it is delivered."""
        return buffered_id(self.received_at, self.request_id)

    def message(self) -> str:
        """Return it as the text of a message: JSON with the body compressed, and in base64, as it may be any bytes."""
        return _encode(msgspec.structs.replace(self, body=zlib.compress(self.body))).decode()


def read_message(text: str) -> BufferedRequest:
    """Return the request of a message. Raises Invalid for any other text."""
    try:
        packed = _decode(text)
        return msgspec.structs.replace(packed, body=zlib.decompress(packed.body))
    except (msgspec.MsgspecError, zlib.error) as error:
        raise Invalid(f"the message is not a buffered request: {error}") from None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(BufferedRequest).decode
