"""Reading files of rejects."""

from __future__ import annotations

import msgspec

from pik.model.batch import Reject
from pik.ports.raw import Raw
from pik.rawlog.frames import damaged, unpacked


def read_rejects(raw: Raw, key: str) -> list[Reject]:
    """Return the records of a file of rejects, by seq. Raises Damaged."""
    try:
        rejects = list(map(_decode_reject, unpacked(key, raw.read(key))))
    except msgspec.MsgspecError as error:
        raise damaged(key, str(error)) from None
    if not rejects:
        raise damaged(key, "it holds no record")
    return rejects


_decode_reject = msgspec.json.Decoder(Reject).decode
