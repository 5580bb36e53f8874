"""How records are read: by options, else by a named mapping, else as pik.toml says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

from pik.errors import Invalid, UsageError
from pik.inputs.named_mappings import find_mapping, mapping_for
from pik.model.named_mapping import NONE, IngestDefaults, NamedMapping
from pik.rawlog.reading import Reading


def resolve_reading(
    defaults: IngestDefaults, given: Reading, name: str | None, note: Callable[[str], None] = lambda _: None
) -> Reading:
    """Return how records are read: by the options that are `given`, and where they leave something open, by the mapping
    of that name. Without a name, it is the mapping of pik.toml for the file, of which `note` is told, else [ingest].

    Raises UsageError, at once or when the name of a file is known.
    """
    own = defaults.mappings
    if name is not None and name != NONE:
        return _by_mapping(given, find_mapping(name, own))
    plain = without_mapping(defaults, given)
    plain.record_mapping()  # complains now rather than in a worker
    if name == NONE or not any(mapping.files for mapping in own.values()):
        return plain
    known: dict[str, Reading] = {}

    def by_file(file: str) -> Reading:
        mapping = mapping_for(file, own.values())
        if mapping is None:
            return plain
        if mapping.name not in known:
            known[mapping.name] = _by_mapping(given, mapping)
            note(f"mapping {mapping} reads {PurePosixPath(file).name}")
        return known[mapping.name]

    return replace(plain, by_file=by_file)


def without_mapping(defaults: IngestDefaults, given: Reading) -> Reading:
    """Return how records are read by options and, where they leave something open, by [ingest]."""
    return replace(given, mapping={**defaults.fields, **given.mapping}, times=given.times.over(defaults.times))


def _by_mapping(given: Reading, mapping: NamedMapping) -> Reading:
    """Return how records are read by options and, where they leave something open, by a mapping. Raises UsageError."""
    try:
        layout = mapping.layout_under(given.layout)
    except Invalid as error:
        raise UsageError(f"the options do not go with mapping {mapping}: {error.message}", hint=error.hint) from None
    fields = {**mapping.fields, **given.mapping}
    reading = replace(given, mapping=fields, times=given.times.over(mapping.times), layout=layout, named=str(mapping))
    reading.record_mapping()
    return reading
