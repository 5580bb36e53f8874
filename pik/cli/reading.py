"""The options that say how records are read, of each command that reads a producer's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pik.cli.context import Context
from pik.cli.options import option
from pik.config import ingest_defaults
from pik.errors import Invalid, UsageError
from pik.model.event import MAX_LINE
from pik.model.layout import OPTIONS as LAYOUT_OPTIONS
from pik.model.layout import read_layout
from pik.model.times import OPTIONS as TIME_OPTIONS
from pik.model.times import read_times

if TYPE_CHECKING:
    from pik.rawlog.reading import Reading

_Described = TypeVar("_Described")


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How records lie in the files, and where they have the fields of an event. A command that takes a parameter of
    this type has these options."""

    input: Annotated[
        str | None,
        option(
            "--input FORMAT", "jsonl, json, csv, tsv, parquet, text, kcat, auto (default): what content and name say."
        ),
    ] = None
    records: Annotated[
        str | None,
        option("--records PATH", "JSON: where the records are in documents, such as Records[] or a[].b[]."),
    ] = None
    pattern: Annotated[
        str | None,
        option("--pattern REGEX", "Text: groups (?P<NAME>…) of a line, or common, combined, s3-access or alb."),
    ] = None
    delimiter: Annotated[
        str | None, option("--delimiter CHARACTER", "CSV: the character between cells, if not a comma.")
    ] = None
    columns: Annotated[
        str | None, option("--columns NAMES", "CSV without a header: the names of its columns (a,b,c).")
    ] = None
    null: Annotated[
        str | None, option("--null TEXT", "CSV: cells with exactly this text are missing ('' is the empty one).")
    ] = None
    quote: Annotated[
        str | None, option("--quote CHARACTER", "CSV: '\"' (default) encloses cells; none: it is a character.")
    ] = None
    escape: Annotated[
        str | None, option("--escape CHARACTER", "CSV: '\\', as databases write it (\\N, \\t), or none.")
    ] = None
    encoding: Annotated[
        str | None, option("--encoding NAME", "The encoding of the text: utf-16, cp1252. [default: utf-8]")
    ] = None
    mapping: Annotated[
        str | None,
        option(
            "--mapping NAME", "Use this mapping of pik.toml, or a shipped one (`pik mappings list`); none: use none."
        ),
    ] = None
    map: Annotated[
        list[str] | None,
        option("--map FIELD=JMESPATH", "Where FIELD is in the record (repeatable); payload=@ is the whole record."),
    ] = None
    time_format: Annotated[
        list[str] | None,
        option(
            "--time-format FORMAT",
            "rfc3339 (default), iso8601, epoch, epoch_ms, epoch_us, epoch_ns, auto, excel, java_date, other names, or a"
            " strptime format; FIELD=FORMAT of one field (repeatable).",
        ),
    ] = None
    timezone: Annotated[
        list[str] | None,
        option(
            "--timezone ZONE",
            "The IANA time zone of times without an offset (Europe/Berlin, UTC); FIELD=ZONE of one field (repeatable).",
        ),
    ] = None
    ambiguous: Annotated[
        str | None,
        option(
            "--ambiguous WHICH",
            "earlier, later: how to read local times that clocks showed twice. Otherwise they are rejected.",
        ),
    ] = None
    max_line: Annotated[int, option("--max-line BYTES", "Records longer than this are rejected.", min=1)] = MAX_LINE
    max_window: Annotated[
        int | None,
        option("--max-window BYTES", "Memory for zstd --long and large xz dictionaries. [default: 128 MiB]", min=1),
    ] = None

    def _values(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self, name.replace("-", "_")) for name in names}

    def words(self) -> list[str]:
        """Return the options that were given, as they are typed."""
        words: list[str] = []
        for one in fields(self):
            value = getattr(self, one.name)
            if value != one.default:
                for text in value if isinstance(value, list) else [str(value)]:
                    words += [f"--{one.name.replace('_', '-')}", text]
        return words

    def reading(
        self, cli: Context, *, on_invalid: str | None = None, note: Callable[[str], None] = lambda _: None
    ) -> Reading:
        """Return how records are read: by these options, else by a mapping, else by pik.toml, else as events; `note` is
        told of a mapping that is taken by itself. Raises UsageError."""
        from pik.usecases.ingest.reading import resolve_reading

        return resolve_reading(ingest_defaults(cli.settings), self.given(on_invalid), self.mapping, note)

    def given(self, on_invalid: str | None = None) -> Reading:
        """Return how records are read by these options alone, --mapping not included. Raises UsageError."""
        from pik.rawlog.reading import Reading

        return Reading(
            self.max_line,
            stop=on_invalid == "stop",
            mapping=self._expressions(),
            times=_read(read_times, self._values(TIME_OPTIONS)),
            mixed=on_invalid == "reject",
            layout=_read(read_layout, self._values(LAYOUT_OPTIONS)),
        )

    def _expressions(self) -> dict[str, str]:
        """Return the expressions of fields. Raises UsageError."""
        found = {}
        for text in self.map or ():
            name, equals, expression = text.partition("=")
            if not equals or not expression:
                raise UsageError(f"--map {text}: expected FIELD=JMESPATH", hint="--map entity_id=body.user.id")
            found[name.strip()] = expression
        return found


def _read(read: Callable[[dict[str, Any]], _Described], given: Mapping[str, Any]) -> _Described:
    """Return what options describe. Raises UsageError, which begins with the option's name."""
    try:
        return read({name: text for name, text in given.items() if text is not None})
    except Invalid as error:
        raise UsageError(f"--{error.message}", hint=error.hint) from None
