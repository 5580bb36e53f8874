"""Files of a folder that only list the other ones: manifests and checksums, which exports write beside their data."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from pik.errors import InputError, StoreError
from pik.inputs.source import Source

_LARGEST = 1 << 20
"""Bytes of a file that is looked at, at most."""

_LOOKED_AT = 20
"""Files that are looked at, at most."""

_NAMES = 1000
"""Names that are looked for in a file, at most."""

_FILES = 2
"""Files of data, at least: of one alone, its records may say when it arrived."""

_NUMBERED = re.compile(r"[^\W_]*\d[^\W_]*")


def manifests(sources: Sequence[Source]) -> set[str]:
    """Return the names of those of a folder's files that name each of its files of data, which are numbered alike."""
    shapes = Counter(map(_shape, sources))
    data = dict.fromkeys(_file_name(one) for one in sources if shapes[_shape(one)] > 1)
    if len(data) < _FILES:
        return set()
    names = [name.encode(errors="surrogateescape") for name in islice(data, _NAMES)]
    others = (one for one in sources if shapes[_shape(one)] == 1 and (one.size or 0) <= _LARGEST)
    return {one.name for one in islice(others, _LOOKED_AT) if _has_all(one, names)}


def _shape(source: Source) -> str:
    """Return what is equal in the names of files that are numbered."""
    return _NUMBERED.sub("0", _file_name(source))


def _file_name(source: Source) -> str:
    return os.path.basename(source.path or source.name)


def _has_all(source: Source, names: Sequence[bytes]) -> bool:
    with suppress(InputError, StoreError), source.opener() as stored:
        text = stored.read(_LARGEST)
        return all(name in text for name in names)
    return False
