"""Names that may have been meant where one matches nothing: entities, sources and types of events."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from unicodedata import normalize

import msgspec

from pik.errors import Damaged
from pik.model.batch import Frame, Segment
from pik.model.delivery import Filter, entity_mark
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.objects import frame_lines, frames_of

_FRAMES_SEARCHED = 32
"""Frames that are read, at most, for a hint."""

_BATCHES_SEARCHED = 50
"""The newest batches, whose sources are looked at."""


_ALIKE, _ENTITIES_ALIKE = 0.6, 0.75
"""How alike names are that may be misspelt (difflib's ratio): there are few sources and types, and many entities."""


class _Names(msgspec.Struct):
    """The names in a raw line."""

    source: str
    event_type: str
    entity_id: str


@dataclass(slots=True)
class _Sample:
    """Names of some events."""

    sources: set[str] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    entities: set[str] = field(default_factory=set)


def meant_sources(store: Store, source: str | None) -> str:
    """Return the question whether another source was meant, of those of the newest batches; empty if none is near."""
    if source is None:
        return ""
    return _question("--source", source, {name for one in _newest(store) for name in one})


def meant_names(store: Store, wanted: Filter) -> str:
    """Return the questions whether another source or type was meant; empty if none is near."""
    text = meant_sources(store, wanted.source)
    if wanted.event_type is not None:
        text += _question("--type", wanted.event_type, _sample(store, wanted.window).types)
    return text


def _newest(store: Store) -> Iterator[Collection[str]]:
    return (one.sources for one in islice(store.index.batches(), _BATCHES_SEARCHED))


def _question(option: str, name: str, known: Collection[str]) -> str:
    near = [] if name in known else _misspelt(name, known, _ALIKE)
    return f"; did you mean {' or '.join(f'{option} {one}' for one in near)}?" if near else ""


def _misspelt(name: str, known: Collection[str], ratio: float) -> list[str]:
    """Return the names that are written nearly so. Those with other digits are other things, not misspelt ones."""
    by_letters = {one.lower(): one for one in sorted(known) if _digits(one) == _digits(name)}
    return [by_letters[one] for one in get_close_matches(name.lower(), by_letters, n=2, cutoff=ratio)]


def _digits(name: str) -> str:
    return re.sub(r"\D", "", name)


def _sample(store: Store, window: Window) -> _Sample:
    """Return the names in some frames of the window."""
    found = _Sample()
    segments = store.index.segments(window)
    for segment, frame in islice(((one, frame) for one in segments for frame in one.frames), _FRAMES_SEARCHED):
        for line in _lines(store, segment, frame):
            try:
                names = msgspec.json.decode(line, type=_Names)
            except msgspec.MsgspecError:
                continue  # this is a search for a hint
            found.sources.add(names.source)
            found.types.add(names.event_type)
            found.entities.add(names.entity_id)
    return found


def _lines(store: Store, segment: Segment, frame: Frame) -> list[bytes]:
    """Return the lines of a frame; none of a damaged one, since this is a search for a hint."""
    try:
        return frame_lines(store.raw, segment, frame)
    except Damaged:
        return []


def did_you_mean(store: Store, entities: Sequence[str], window: Window = ALL_TIME, *, before: str = "") -> str:
    """Return the question whether entities of similar names were meant, after `before`, or that a list or a pattern is
    taken for a name; otherwise an empty text."""
    similar = [found for entity in entities for found in _similar_names(store, entity, window)]
    if not similar and not store.deployed:
        known = _sample(store, window).entities if entities else set()
        unknown = [entity for entity in entities if entity not in known]
        similar = [found for entity in unknown for found in _misspelt(entity, known, _ENTITIES_ALIKE)]
    if not similar:
        listed = next((one for one in entities if set(one) & set(",*%")), None)
        return f"{before}{listed!r} is looked for as one entity, as it stands" if listed else ""
    forms = {normalize("NFC", entity) for entity in entities} & {normalize("NFC", one) for one in similar}
    note = " (its letters look the same, and are in another Unicode form)" if forms else ""
    return f"{before}did you mean {' or '.join(map(repr, similar))}?{note}"


def _similar_names(store: Store, entity: str, window: Window) -> list[str]:
    """Return entities with events in the days of the window whose names differ from this one only in case, in white
    space around them, or in the Unicode form of their letters. The index is asked once, and few frames are read."""
    bare = entity.strip()
    forms = {bare, bare.lower(), bare.upper(), bare.title(), bare.capitalize(), f"{bare} ", f" {bare}"}
    forms |= {normalize("NFC", bare), normalize("NFD", bare)}
    marks = {form: entity_mark(form) for form in sorted(forms - {entity, ""})}
    frames = (
        (segment, frame)
        for segment in store.index.segments(window, entities=list(marks))
        for frame in frames_of(segment, list(marks))
    )
    found: list[str] = []
    for segment, frame in islice(frames, _FRAMES_SEARCHED):
        lines = _lines(store, segment, frame)
        found += [form for form, mark in marks.items() if form not in found and any(mark in line for line in lines)]
    return found
