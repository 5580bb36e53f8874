"""Reading many lines at once says what reading each of them by itself does."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from pik.errors import Invalid
from pik.model.delivery import raw_line, stamp
from pik.model.event import read_event_slowly, read_rows
from pik.model.zone import NO_ZONES, Zones
from tests.model.test_event import ZONES, event_texts
from tests.model.test_identity import line
from tests.support.model import texts

NOW = 1_800_000_000_000_000_000
STAMP = stamp(NOW, "B")

OFTEN = st.builds(
    line,
    event_time=st.sampled_from(["2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00+00:00", "2026-01-01T03:00:00+03:00"]),
    received_time=st.sampled_from([None, "2026-01-01T00:00:01Z", "2026-01-01T00:00:01.000+0000"]),
    idempotency_key=st.sampled_from([None, "k", "\u00e9"]),
    payload=texts.payload_texts,
)


@given(st.lists(st.one_of(texts.nearly_json(event_texts()), event_texts().map(str.encode), OFTEN), max_size=12), ZONES)
@example(
    [line(payload=payload) for payload in ('{"a":1}', '{"a":1.0}', '{"a":12345678901234567890}', '{"a":1,"a":2}')],
    NO_ZONES,
)
@example([line(payload='{"a":' + "[" * 100 + "]" * 100 + "}"), line()], NO_ZONES)
@example([line(payload="1"), line()], NO_ZONES)
@example([line(event_time="2026-02-30"), line(), line(source="")], NO_ZONES)
@example([line(), b"", line(trace=1)], NO_ZONES)
def test_lines_read_together_are_what_each_is_by_itself(lines: list[bytes], zones: Zones) -> None:
    rows = read_rows(lines, 7, NOW, STAMP, zones)
    if rows is None:
        return
    for number, raw in enumerate(lines):
        event = read_event_slowly(raw, zones)
        received = NOW if event.received_time is None else event.received_time
        assert rows.lines[number] == raw_line(event, 7 + number, STAMP)
        assert (rows.entity_ids[number], rows.sources[number]) == (event.entity_id, event.source)
        assert (rows.times[number], rows.lags[number]) == (event.event_time, received - event.event_time)
        assert rows.event_ids[number] == event.event_id
        assert rows.contents[number] == (None if event.idempotency_key is None else event.content_hash)
    columns = (rows.lines, rows.entity_ids, rows.sources, rows.times, rows.lags, rows.event_ids, rows.contents)
    assert {len(column) for column in columns} == {len(lines)}


@given(st.lists(OFTEN, max_size=12))
@example([line(payload=payload) for payload in ('{"a":1.0}', '{"a":12345678901234567890}', '{"a":1,"a":2}')])
@example([line(payload='{"a":[[1.0,2e3],{"b":1.50}]}'), line(payload='{"a":1.0}'), line(payload="[]")])
@example([line(payload='{"a":1e400}')])
def test_valid_lines_in_the_usual_shape_are_read_together(lines: list[bytes]) -> None:
    try:
        for raw in lines:
            read_event_slowly(raw)
    except Invalid:
        return
    unusual = any(b"\r" in raw or "Infinity" in json.dumps(json.loads(raw)) for raw in lines)
    assert (read_rows(lines, 1, NOW, STAMP) is None) == unusual
