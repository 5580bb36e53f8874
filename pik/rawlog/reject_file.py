"""Reading files of rejects."""

from __future__ import annotations

import msgspec
import zstandard

from pik.model.batch import Reject
from pik.ports.raw import Raw
from pik.rawlog.frames import damaged


def read_rejects(raw: Raw, key: str) -> list[Reject]:
    """The records of a file of rejects, by seq. Raises Damaged."""
    try:
        rejects = _decode_rejects(zstandard.ZstdDecompressor().decompress(raw.read(key)))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise damaged(key, str(error)) from None
    if not rejects:
        raise damaged(key, "it holds no record")
    return rejects


_decode_rejects = msgspec.json.Decoder(Reject).decode_lines
