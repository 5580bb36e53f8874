"""When raw expires: as S3 counts it."""

from __future__ import annotations

import pytest

from pik.model.instant import parse_instant
from pik.model.retention import expired


@pytest.mark.parametrize(
    ("created", "days", "due"),
    [
        (
            "2026-01-01T10:30:00Z",
            3,
            "2026-01-05T00:00:00Z",
        ),  # the example of the S3 User Guide, "Lifecycle rules: days"
        ("2026-01-01T00:00:00Z", 1, "2026-01-02T00:00:00Z"),
        ("2026-01-01T00:00:00.000000001Z", 1, "2026-01-03T00:00:00Z"),
        ("1969-12-30T23:00:00Z", 1, "1970-01-01T00:00:00Z"),
    ],
)
def test_days_are_rounded_up_to_the_next_midnight(created: str, days: int, due: str) -> None:
    at, end = parse_instant(created), parse_instant(due)
    assert not expired(at, days, end - 1)
    assert expired(at, days, end)
    assert not expired(at, None, end)
