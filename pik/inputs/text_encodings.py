"""Which encoding a text may be in that is not UTF-8: by its bytes, and by what they are in each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

_ACCENTS = "cp1252", "cp1250"
"""Encodings of languages in which letters beyond ASCII stand between others."""

_SCRIPTS = {
    "cp1251": r"Ѐ-ӿ№«»“”„–—",
    "koi8_r": r"Ѐ-ӿ",
    "cp1253": r"Ͱ-Ͽ«»“”–—",
    "cp932": r"\u2010-\u2312\u3000-\u30ff\u4e00-\u9fff\uff01-\uff60",
    "euc_kr": r"\u2010-\u2312\u3000-\u30ff\uac00-\ud7a3\uff01-\uff60",
    "gb18030": r"\u2010-\u2312\u3000-\u3020\u4e00-\u9fff\uff01-\uff60",
    "big5": r"\u2010-\u2312\u3000-\u3020\u4e00-\u9fff\uff01-\uff60",
}
"""Encodings of other scripts, with the characters that nearly all of a text beyond ASCII are."""

_OF_TWO_BYTES = "cp932", "euc_kr", "gb18030", "big5"

_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""What no text has, but compressed and encrypted data does; of NUL there may be runs."""

_CONTROL_BEYOND = re.compile(rb"[\x80-\x9f]")

_IN_A_ROW = re.compile(rb"[\x80-\xff]{3,}")
_BEYOND = re.compile(rb"[\x80-\xff]")
_WORD = re.compile(r"\w+")
_TURNED = re.compile(r"[а-яёα-ώ][А-ЯЁΑ-Ω]")  # small letters before capitals: read in another encoding
_AMONG_LETTERS = re.compile(r"[a-zA-Z][^\x00-\x7f]|[^\x00-\x7f][a-zA-Z]")
"""What a letter with an accent and the next one look like where both are read as one character."""

_NEARLY_ALL, _SHOWN = 0.95, 4


def readings(lines: Sequence[bytes]) -> list[tuple[str, str]]:
    """Return the encodings that these lines may be in, and what the first one is in each, differently; none if they are
    not text."""
    data = b"\n".join(lines)
    if _CONTROL.search(data):
        return []
    in_a_row = sum(len(run) for run in _IN_A_ROW.findall(data)) > len(_BEYOND.findall(data)) / 2
    scripts = tuple(_SCRIPTS) if in_a_row else _OF_TWO_BYTES
    found = dict[str, str]()
    for name, text in _decoded(data, (*scripts, *_ACCENTS)):
        if name in _ACCENTS or (_is_plausible(name, text) and (in_a_row or not _AMONG_LETTERS.search(text))):
            if name in _ACCENTS and found.keys() & _SCRIPTS.keys():
                continue  # a script fits
            if text not in found.values():
                found[name] = text
    if not found and not _CONTROL_BEYOND.search(data):
        found["latin1"] = data.decode("latin1")
    return [(name, text.partition("\n")[0]) for name, text in list(found.items())[:_SHOWN]]


def _decoded(data: bytes, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        with suppress(UnicodeDecodeError):
            yield name, data.decode(name)


def _is_plausible(name: str, text: str) -> bool:
    beyond = [one for one in text if not one.isascii()]
    fit = re.findall(f"[{_SCRIPTS[name]}]", text)
    words = _WORD.findall(text)
    return len(fit) >= _NEARLY_ALL * len(beyond) and 5 * sum(map(bool, map(_TURNED.search, words))) <= len(words)
