"""The name of a source, by the name of a file."""

from __future__ import annotations

import re

_SHORT = 2
"""So few characters name nothing."""

_NUMBERED = {"part", "data", "chunk", "shard", "file", "output", "batch"}
"""Names of files that writers number."""

_DATE = r"(?<![0-9])20\d\d-?[01]\d-?[0-3]\d"
_RANDOM = "[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|(?<![0-9a-z])[0-9a-f]{32}(?![0-9a-z])"
_SHARD = r"[-_]\d+-of-\d+"


def source_named(file: str) -> tuple[str, str]:
    """Return the name of the file, or of the nearest folder or archive around it where a writer numbered the file,
    without its ending and without a date or a number at its end, and whose name it is."""
    last, *around = [part.split(".")[0] for part in reversed(re.split(r"[\\/:]", file))]
    own, *others = [_unnumbered(one) for one in (last, *around) if "=" not in one]
    for name, whose in ((own, "the file's name"), *((one, "the name of what it is in") for one in others)):
        if len(name) > _SHORT and name.lower() not in _NUMBERED:
            return name, whose
    return (own, "the file's name") if own else ("input", "there is no name to take it from")


def _unnumbered(name: str) -> str:
    """Return a name without a date, a number or a random id at its end."""
    stem = re.sub(rf"{_DATE}.*|{_RANDOM}.*|{_SHARD}.*", "", name)
    plain = re.sub(r"([-_ +][-_ +0-9T]*|[0-9]{2}[-_ 0-9T]*)$", "", stem)  # one digit may be of the name
    kept = stem if 0 < len(plain) <= _SHORT else plain
    return re.sub(r"[^A-Za-z0-9_-]+", "-", kept).strip("-_")
