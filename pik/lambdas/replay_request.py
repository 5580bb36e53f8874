"""The body of `POST /replay`: what it may have, and in what words it is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.json_schema import WithJsonSchema

from pik.errors import Invalid, UsageError
from pik.model.event import MAX_STRING, check_name
from pik.model.instant import parse_local
from pik.model.run import RunRequest
from pik.model.scenario import COUNTED_DUPLICATES
from pik.model.typed_times import local_instant
from pik.model.zone import load_zone


def _name(text: str, info: ValidationInfo) -> str:
    check_name(str(info.field_name), text)
    return text


def _instant(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        raise Invalid(f"{info.field_name} is not a string", field=str(info.field_name))
    zone = info.data.get("timezone")
    try:
        if zone is None and parse_local(value, date_only=True)[1] is None and len(value) > len("2026-01-31"):
            raise Invalid(f"{value} has no offset from UTC: end it with Z if it is in UTC, or give a timezone")
        return local_instant(value, None if zone is None else load_zone(zone))
    except Invalid as error:
        hint = f": {error.hint}" if error.hint else ""
        raise Invalid(f"{info.field_name} {error.message}{hint}", field=str(info.field_name)) from None


def _zone(name: Any) -> Any:
    if name is not None and not isinstance(name, str):
        raise Invalid("timezone is not a string", field="timezone")
    try:
        return None if name is None else load_zone(name).name
    except UsageError as error:
        raise Invalid(f"timezone {error.message}: {error.hint}", field="timezone") from None


_Name = Annotated[
    str,
    AfterValidator(_name),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_STRING,
            "pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$",
            "description": f"At most {MAX_STRING} bytes of UTF-8, without control characters",
        }
    ),
]

_LOCAL = r"^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?$"
_WHEN = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "date"},
        {"type": "string", "pattern": _LOCAL},
    ]
}

_Instant = Annotated[
    int,
    BeforeValidator(_instant),
    WithJsonSchema(
        {
            **_WHEN,
            "description": "A time with an offset; with `timezone` also one without; or a date, which is its midnight",
        }
    ),
]


class ReplayRequest(BaseModel):
    """The body of `POST /replay`."""

    # Its own validators raise Invalid, which pydantic lets pass.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    # pydantic reads fields in this order, and the zone is needed for the times.
    timezone: Annotated[str | None, BeforeValidator(_zone)] = Field(
        None, description="The IANA zone of a date and of a time without an offset, such as Europe/Berlin"
    )
    entity_id: _Name
    start_time: _Instant
    end_time: _Instant
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Replay no more than about so many events. Buckets stay whole, so the window is cut where buckets"
        " end; the first is always replayed",
    )
    assume: list[Literal["duplicates=counted"]] = Field(
        [], description="duplicates=counted: as if nothing removed duplicates; such a run must not be promoted"
    )
    metrics: list[str] = Field([], description="Only these; empty: all that are not retired")
    reason: str = ""
    dry_run: bool = Field(False, description="Only count")

    @classmethod
    def parse(cls, body: bytes) -> ReplayRequest:
        """Return the request of a body. Raises Invalid."""
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise _invalid(error) from None
        if request.start_time >= request.end_time:
            raise Invalid("end_time is not after start_time", field="end_time")
        return request

    def run_request(self) -> RunRequest:
        """Return what the run is planned for."""
        return RunRequest(
            start=self.start_time,
            end=self.end_time,
            entities=(self.entity_id,),
            metrics=tuple(sorted(set(self.metrics))),
            assumed=tuple(dict.fromkeys(self.assume)),
            reason=self.reason,
        )


_PROBLEMS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of a replay",
    "string_type": "is not a string",
    "int_type": "is not an integer",
    "bool_type": "is not true or false",
    "list_type": "is not an array",
    "greater_than_equal": "is not positive",
    "literal_error": f"has something other than {COUNTED_DUPLICATES}: a replay writes only what is true",
}
"""What is wrong with a field, by the type of pydantic's error."""


def _invalid(error: ValidationError) -> Invalid:
    """Return the first problem in our own words."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    if not field:
        return Invalid("the body is not a JSON object")
    return Invalid(f"{field} {_PROBLEMS.get(first['type'], 'is not valid')}", field=field)
