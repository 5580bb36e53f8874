"""How the records of an input are read: their layout, their mapping, and how their times are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from pik.errors import InputError, UsageError
from pik.inputs.mapping import RecordMapping
from pik.inputs.opened import OpenedInput
from pik.model.layout import AUTO, WRITTEN_AS_JSON, Layout
from pik.model.times import AS_EVENTS, Times


@dataclass(frozen=True, slots=True)
class Reading:
    """How records are read. `mapping` has expressions for fields of events, none where records are events already;
    `stop` means that no record may be invalid, `mixed` that the first ones may all be; `times` says how times are
    written, `layout` how records lie in the input, `file` is its path, and `seen` what the mapping sees of that, as
    options. `named` is the named mapping that says some of it. With `by_file`, an input is read as that returns for its
    path instead."""

    max_line: int
    stop: bool = False
    mapping: Mapping[str, str] = field(default_factory=dict)
    times: Times = AS_EVENTS
    mixed: bool = False
    layout: Layout = AUTO
    file: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)
    named: str = ""
    by_file: Callable[[str], Reading] | None = None

    @property
    def is_mapped(self) -> bool:
        """Whether records are mapped, whatever their format is."""
        return bool(self.mapping) or self.times.need_mapping

    def record_mapping(self, noted: list[str] | None = None) -> RecordMapping | None:
        """Return the compiled mapping, if records are mapped: those that were not written as JSON always are. `noted`
        gets how times were read. Raises UsageError."""
        if not self.is_mapped and self.layout.format in (None, *WRITTEN_AS_JSON):
            return None
        return RecordMapping(self.mapping, self.times, noted, self.named)

    def of(self, opened: OpenedInput) -> Reading:
        """Return how this input is read, its layout recognized. Raises InputError where it cannot be, and UsageError
        where the mapping fits none of its first records, or without one no field of an event is in them, unless they
        may be of another kind."""
        chosen = self if self.by_file is None else opened.chosen(self.by_file)
        layout = chosen.layout
        try:
            layout = opened.recognize(layout, mapped=chosen.is_mapped)
            return chosen._fitting(opened, layout)
        except (InputError, UsageError) as error:
            if chosen.named:
                raise type(error)(f"mapping {chosen.named}: {error.message}", hint=error.hint) from None
            known = opened.known_mapping(layout)
            if known is None:
                raise
            hint = f"--mapping {known} reads such records; otherwise: {error.hint}"
            raise type(error)(error.message, hint=hint) from None

    def _fitting(self, opened: OpenedInput, layout: Layout) -> Reading:
        """Return how an input of that layout is read, whose first records the mapping fits. Raises as `of` does."""
        reading = replace(self, layout=layout, file=opened.file)
        mapping = reading.record_mapping()
        if mapping is not None and mapping.uses_place:
            reading = replace(reading, seen=mapping.seen_of(reading.file))
        if mapping is not None and mapping.parents:
            if layout.records is None:
                hint = "--records PATH says where the records are in their documents"
                raise UsageError("parent() is for records that lie in others", hint=hint)
            reading = replace(reading, layout=replace(layout, parents=mapping.parents))
        if layout.records is not None and not self.mixed:
            opened.expect_records(reading.layout, self.max_line)
        if mapping is not None and not self.mixed:
            opened.expect_fields(reading.layout, mapping)
        if mapping is None and not self.mixed:
            opened.expect_events(reading.layout)
        return reading
