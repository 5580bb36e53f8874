"""Commands that pik suggests: they look in the store that the user named on the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from functools import cache

Advice = Callable[[str], str]
"""Makes a text that may suggest commands ready to be read and pasted."""


def with_store(text: str, store: str | None, names: Iterable[str]) -> str:
    """The text with `--store STORE` in each command of pik that it suggests, unless that names a store itself.

    `names` are pik's commands. Without a `store` the text is as it was: PIK_STORE, pik.toml and the default hold
    for what is pasted, too. Quoted words are data, whatever is in them, and help is the same for every store.
    """
    if store is None:
        return text
    return _suggestion(tuple(names)).sub(
        lambda found: f"pik --store {shlex.quote(store)} " if found["pik"] else found[0], text
    )


@cache
def _suggestion(names: tuple[str, ...]) -> re.Pattern[str]:
    quoted = r"""(?<![^\s(=])(?:'[^']*'|"[^"]*")+"""
    another = r"(?:(?!\bpik ).)*?"
    own = rf"(?!{another}--store\b)(?!\w+(?: \w+)* --help\b)"
    return re.compile(rf"{quoted}|(?P<pik>\bpik )(?=(?:{'|'.join(names)})\b){own}", re.DOTALL)
