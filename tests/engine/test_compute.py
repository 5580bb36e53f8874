"""What the engine computes: exact, whatever the order and the number of threads, and from the deliveries that count."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine, duck, sandbox
from pik.model.aggregate import NO_INPUTS, Computed
from pik.model.calendar import UTC_DAYS, FixedBuckets
from pik.model.instant import DAY, HOUR, SECOND, parse_instant
from pik.model.metric import Definition
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Inputs, TouchedBucket
from tests.support.raw_files import BATCH, compute, event, frame, metric, raw, raw_lines, rows

DAY_ONE = parse_instant("2026-01-01T00:00:00Z")


def values(found: list[Computed]) -> list[Decimal | None]:
    return [one.value for one in found]


def test_a_count_shows_its_parts(tmp_path: Path) -> None:
    events = [
        event(entity_id=name, event_time=f"2026-01-0{day}T12:00:00Z") for day in (2, 1) for name in ("b", "a", "a")
    ]
    ids = dict.fromkeys(("a", "b"), 0)
    distinct = [event({"n": n}, entity_id=name) for n, name in enumerate(("b", "a", "a"))]
    for one, line in zip(distinct, raw_lines(distinct), strict=True):
        ids[one["entity_id"]] ^= int(line[13:45], 16)
    found = compute(raw(tmp_path / "r.zst", distinct), metric(name="n"))
    hashes = {name: f"{xored:032x}" for name, xored in ids.items()}  # an event without a key is its content
    assert found == [
        Computed("n", DAY_ONE, "a", Decimal(2), 2, hashes["a"], hashes["a"]),
        Computed("n", DAY_ONE, "b", Decimal(1), 1, hashes["b"], hashes["b"]),
    ]
    days = compute(raw(tmp_path / "days.zst", events), metric())
    assert [(one.bucket, one.entity_id, one.inputs) for one in days] == [
        (DAY_ONE, "a", 2),
        (DAY_ONE, "b", 1),
        (DAY_ONE + DAY, "a", 2),
        (DAY_ONE + DAY, "b", 1),
    ]
    assert days[0].input_ids == NO_INPUTS, "one event delivered twice, and neither told to be skipped"


def test_numbers_of_twenty_digits_are_exact(tmp_path: Path) -> None:
    numbers = ["123456789012345678.123456", "9007199254740993", "0.1", "0.2", "-12345678901234567890", "1e-6", "4.50"]
    texts = [f'{{"v":{number}}}' for number in numbers] + ['{"v":"99999999999999999999.000001"}', '{"v":1,"v":2.5}']
    head = b'{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":'
    found = compute(
        raw(tmp_path / "r.zst", [head + text.encode() + b"}" for text in texts]),
        metric("sum((payload->>'$.v')::DECIMAL(38, 6))", name="arrow_text"),
        metric("max((payload->>'v')::DECIMAL(38, 6))", name="max"),
        metric("count(*)", where="JSON_TYPE(payload->'$.v') = 'VARCHAR'", name="texts"),
        metric("count(*) FILTER (WHERE json_type(\"payload\", '$.v') IN ('DOUBLE', 'UBIGINT'))", name="numbers"),
    )
    exact = sum(map(Decimal, numbers), Decimal("99999999999999999999.000001")) + Decimal("2.5")
    assert {one.metric: one.value for one in found} == {
        "arrow_text": exact,
        "max": Decimal("99999999999999999999.000001"),
        "texts": 1,
        "numbers": len(texts) - 1,
    }


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_sum_is_the_same_in_any_order_and_on_any_number_of_threads(tmp_path: Path, count: int) -> None:
    """Decimals that floating point would add to something else each time."""
    chance = random.Random(7)
    numbers = [f"{chance.randrange(-(10**14), 10**14)}.{chance.randrange(10**6):06}" for _ in range(count)]
    line = raw_lines([event({"v": "NUMBER"})])[0]
    expected = sum(map(Decimal, numbers))
    total = metric("sum((payload->>'$.v')::DECIMAL(38, 6))")
    results = []
    for number, threads in enumerate((1, 2, 2)):
        chance.shuffle(numbers)
        lines = [line.replace(b"NUMBER", text.encode()) for text in numbers]
        files = []
        for at in range(0, len(lines), 20_000):
            files.append(tmp_path / f"{number}-{at}.zst")
            files[-1].write_bytes(frame(lines[at : at + 10_000]) + frame(lines[at + 10_000 : at + 20_000]))
        results += values(compute(Inputs(files, len(lines)), total, threads=threads))
    assert results == [expected] * 3


@pytest.mark.parametrize(
    ("bucket", "time", "start"),
    [
        ("1d", "1969-12-31T23:59:59.999999999Z", "1969-12-31T00:00:00Z"),
        ("1d", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("1d", "2026-01-01T23:59:59.999999999Z", "2026-01-01T00:00:00Z"),
        ("1d", "2026-01-02T02:00:00+03:00", "2026-01-01T00:00:00Z"),
        ("7d", "1969-12-31T00:00:00Z", "1969-12-25T00:00:00Z"),
        ("7d", "1970-01-07T23:59:59.999999999Z", "1970-01-01T00:00:00Z"),
        ("1h", "2026-01-01T00:59:59.999999999Z", "2026-01-01T00:00:00Z"),
        ("15m", "1969-12-31T23:44:59.999999999Z", "1969-12-31T23:30:00Z"),
        ("1s", "2026-01-01T00:00:00.999999999Z", "2026-01-01T00:00:00Z"),
        ("1s", "1969-12-31T23:59:59.000000001Z", "1969-12-31T23:59:59Z"),
        ("1d", "1677-09-22T00:00:00Z", "1677-09-22T00:00:00Z"),
        ("1h", "2262-04-10T23:59:59.999999999Z", "2262-04-10T23:00:00Z"),
    ],
)
def test_buckets_are_floors(tmp_path: Path, bucket: str, time: str, start: str) -> None:
    found = compute(raw(tmp_path / "r.zst", [event(event_time=time)]), metric(bucket=bucket))
    assert [one.bucket for one in found] == [parse_instant(start)]


def test_a_window_is_half_open_to_the_nanosecond(tmp_path: Path) -> None:
    times = ["00:59:59.999999999", "01:00:00", "01:59:59.999999999", "02:00:00"]
    inputs = raw(tmp_path / "r.zst", [event(event_time=f"2026-01-01T{time}Z") for time in times])
    window = Window(DAY_ONE + HOUR, DAY_ONE + 2 * HOUR)
    assert [(one.bucket, one.inputs) for one in compute(inputs, metric(bucket="1h"), window=window)] == [
        (window.start, 2)
    ]
    ragged = Window(window.start + 1, window.end - 1)
    assert list(DuckEngine().touched(inputs, FixedBuckets(HOUR), ragged)) == []
    assert list(DuckEngine().touched(inputs, FixedBuckets(HOUR), Window(window.start, window.end - 1))) == [
        TouchedBucket(window.start, "e", 1)
    ]


def test_skipped_deliveries_do_not_count(tmp_path: Path) -> None:
    first = raw(tmp_path / "1.zst", [event({"n": n}) for n in range(5)])
    again = raw(tmp_path / "2.zst", [event({"n": n}) for n in range(5)], batch="01J00000000000000000000002")
    skip = tmp_path / "skip.csv"
    skip.write_text("".join(f"01J00000000000000000000002,{seq}\n" for seq in (1, 2, 3, 4, 5, 5)) + f"{BATCH},9\n")
    both = Inputs([*first.files, *again.files], 10)
    assert compute(Inputs(both.files, 10, skip), metric()) == compute(first, metric())
    assert values(compute(both, metric())) == [Decimal(10)]
    assert [one.events for one in DuckEngine().touched(Inputs(both.files, 10, skip), UTC_DAYS, ALL_TIME)] == [5]


def test_entities_choose_and_nothing_in_a_name_is_sql(tmp_path: Path) -> None:
    names = ["a", "a' OR '1'='1", "%", '"); DROP TABLE grouped; --', "naïve", "𝄞", "a\\", "$1", "?"]
    inputs = raw(tmp_path / "r.zst", [event(entity_id=name) for name in names])
    for name in names:
        assert [one.entity_id for one in compute(inputs, metric(), entities=[name])] == [name]
        assert [one.entity_id for one in DuckEngine().touched(inputs, UTC_DAYS, ALL_TIME, entities=[name])] == [name]
    assert compute(inputs, metric(), entities=["' OR true --"]) == []
    many = [f"other{n}" for n in range(20_000)] + ["%", "%"]
    assert [one.entity_id for one in compute(inputs, metric(), entities=many)] == ["%"]


def test_order_is_metric_then_bucket_then_the_bytes_of_the_entity(tmp_path: Path) -> None:
    names = ["b", "a", "Z", "é", "\uffff", "𝄞", "ab", "a b"]
    events = [event(entity_id=name, event_time=f"19{year}-01-01T00:00:00Z") for year in (70, 69) for name in names]
    found = compute(raw(tmp_path / "r.zst", events), metric(name="b"), metric(name="a"))
    keys = [(one.metric, one.bucket, one.entity_id.encode()) for one in found]
    assert keys == sorted(keys)
    assert len(keys) == 32


def test_where_keeps_only_what_is_true(tmp_path: Path) -> None:
    payloads = [{"v": 1}, {"v": 5}, {"v": None}, {}, {"v": 7}]
    inputs = raw(tmp_path / "r.zst", [event(payload, entity_id=f"e{n}") for n, payload in enumerate(payloads)])
    above = metric("sum((payload->>'$.v')::INTEGER)", "(payload->>'$.v')::INTEGER > 3", name="above")
    rest = metric(where="NOT (payload->>'$.v')::INTEGER > 3", name="rest")
    found = compute(inputs, above, rest)
    assert [(one.metric, one.entity_id, one.value) for one in found] == [
        ("above", "e1", Decimal(5)),
        ("above", "e4", Decimal(7)),
        ("rest", "e0", Decimal(1)),
    ]


def test_what_where_leaves_out_cannot_make_a_metric_fail(tmp_path: Path) -> None:
    """Nor can deliveries outside of the window, of other entities, or skipped."""
    events = [
        event({"v": "12.50"}),
        event({"v": "free"}, event_type="gift"),
        event({"v": "late"}, event_time="2026-01-02T00:00:00Z"),
        event({"v": "other"}, entity_id="f"),
        event({"v": "duplicate"}),
    ]
    skip = tmp_path / "skip.csv"
    skip.write_text(f"{BATCH},5\n")
    inputs = Inputs(raw(tmp_path / "r.zst", events).files, 5, skip)
    window = Window(DAY_ONE, DAY_ONE + DAY)
    number = "(payload->>'$.v')::DECIMAL(9, 2)"
    found = compute(
        inputs,
        metric(f"sum({number})", "event_type = 't'", name="a"),
        metric(f"sum({number}) FILTER (WHERE event_type = 't')", name="b"),
        metric(where=f"event_type = 't' AND CASE WHEN event_type = 't' THEN {number} > 1 END", name="c"),
        window=window,
        entities=["e"],
    )
    assert [(one.value, one.inputs) for one in found] == [
        (Decimal("12.50"), 1),
        (Decimal("12.50"), 2),
        (Decimal(1), 1),
    ]


def test_every_column_is_there_with_its_type(tmp_path: Path) -> None:
    one = event(
        {"a": "x"}, received_time="2026-01-01T00:00:02.5Z", idempotency_key="k", trace={"id": "t-1"}, source="s"
    )
    inputs = raw(tmp_path / "r.zst", [one])
    wheres = [
        "event_id SIMILAR TO '[0-9a-f]{32}' AND content_hash SIMILAR TO '[0-9a-f]{32}' AND event_id <> content_hash",
        "source = 's' AND event_type = 't' AND entity_id = 'e' AND idempotency_key = 'k'",
        "epoch_us(received_time) - epoch_us(event_time) = 2500000 AND ingest_time = TIMESTAMP '2026-02-01'",
        f"batch_id = '{BATCH}' AND seq = 1",
        "extra->>'$.trace.id' = 't-1' AND payload->>'$.a' = 'x'",
    ]
    found = compute(inputs, *(metric(where=where, name=f"m{n}") for n, where in enumerate(wheres)))
    assert [one.metric for one in found] == [f"m{n}" for n in range(len(wheres))]
    bare = raw(tmp_path / "bare.zst", [event()])
    assert compute(bare, metric(where="received_time IS NULL AND idempotency_key IS NULL AND extra IS NULL"))


def test_times_are_cut_to_microseconds_not_rounded(tmp_path: Path) -> None:
    inputs = raw(tmp_path / "r.zst", [event(event_time="2026-01-01T23:59:59.999999999Z")])
    found = compute(inputs, metric("max(epoch_us(event_time))"))
    assert values(found) == [Decimal((DAY_ONE + DAY - SECOND) // 1000 + 999_999)]


def test_a_bucket_whose_events_have_no_such_value_has_none(tmp_path: Path) -> None:
    inputs = raw(tmp_path / "r.zst", [event(), event({"v": None})])
    found = compute(
        inputs,
        metric("sum((payload->>'$.v')::INTEGER)", name="bare"),
        metric("coalesce(sum((payload->>'$.v')::INTEGER), 0)", name="zero"),
    )
    assert [(one.value, one.inputs) for one in found] == [(None, 2), (Decimal(0), 2)]


def test_distinct_and_whole_expressions(tmp_path: Path) -> None:
    inputs = raw(tmp_path / "r.zst", [event({"v": n % 3, "n": n}) for n in range(10)])
    number = "(payload->>'$.v')::INTEGER"
    found = compute(
        inputs,
        metric(f"sum(DISTINCT {number}) * 100 + count(DISTINCT payload->>'$.v')", name="a"),
        metric(f"CASE WHEN bool_and({number} < 3) THEN -sum({number}) END", name="b"),
        metric("(sum((payload->>'$.n')::INTEGER) / count(*))::DECIMAL(9, 2)", name="c"),
        metric(f"count_if({number} = 0) FILTER (WHERE (payload->>'$.n')::INTEGER > 0)", name="d"),
    )
    assert values(found) == [Decimal(303), Decimal(-9), Decimal("4.5"), Decimal(3)]


def test_no_files_and_no_metrics_are_nothing(tmp_path: Path) -> None:
    assert compute(Inputs([], 0), metric()) == []
    assert compute(raw(tmp_path / "r.zst", [event()])) == []
    assert list(DuckEngine().touched(Inputs([], 0), UTC_DAYS, ALL_TIME)) == []


def test_file_names_are_names_not_patterns(tmp_path: Path) -> None:
    odd = tmp_path / "it's [a]*?"
    odd.mkdir()
    assert values(compute(raw(odd / "r?.zst", [event()]), metric())) == [Decimal(1)]


def test_touched_counts_the_events_that_match(tmp_path: Path) -> None:
    events = [
        event({"n": n}, source=source, event_type=kind, entity_id=entity)
        for n, (source, kind, entity) in enumerate(
            [("web", "a", "x"), ("app", "a", "x"), ("web", "b", "y"), ("web", "a", "x")]
        )
    ]
    inputs = raw(tmp_path / "r.zst", events)
    engine = DuckEngine()
    assert list(engine.touched(inputs, UTC_DAYS, ALL_TIME)) == [
        TouchedBucket(DAY_ONE, "x", 3),
        TouchedBucket(DAY_ONE, "y", 1),
    ]
    assert list(engine.touched(inputs, UTC_DAYS, ALL_TIME, source="web", event_type="a")) == [
        TouchedBucket(DAY_ONE, "x", 2)
    ]
    assert list(engine.touched(inputs, UTC_DAYS, ALL_TIME, source="' OR true --")) == []


def many_entities(path: Path, count: int) -> Inputs:
    """Events of as many entities, in files of 50,000."""
    line = raw_lines([event({"n": 7}, entity_id="ENTITY")])[0]
    files = []
    for at in range(0, count, 50_000):
        files.append(path / f"{at}.zst")
        files[-1].write_bytes(frame([line.replace(b"ENTITY", b"%0200d" % (at + n)) for n in range(50_000)]))
    return Inputs(files, count)


def test_promise_8_groups_that_do_not_fit_into_memory_go_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MEMORY_MB", 120)  # at 180 these stay in memory
    found = compute(many_entities(tmp_path, 200_000), metric(), threads=1)
    assert len(found) == 200_000
    assert {one.inputs for one in found} == {1}


def test_promise_8_where_many_threads_need_too_much_memory_a_single_one_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MEMORY_MB", 100)
    monkeypatch.setattr(sandbox, "GROUPS_MB", 0)
    monkeypatch.setattr(sandbox, "THREAD_MB", 25)  # each of the threads reads with 32 MiB
    begun: list[int] = []

    def counted(files: Sequence[Path], threads: int, parts: int) -> Any:
        begun.append(threads)
        return sandbox.session(files, threads, parts)

    monkeypatch.setattr(duck, "session", counted)
    number = "(payload->>'$.n')::DECIMAL(18, 2)"
    texts = ("count(*)", f"sum({number})", f"max({number})", f"min({number})")
    four = [Definition(name=f"m{number}", value=text) for number, text in enumerate(texts)]
    engine, inputs = DuckEngine(threads=16), many_entities(tmp_path, 200_000)
    counts: Counter[tuple[str, Decimal | None, int | None]] = Counter()
    for one in rows(engine, inputs, four, ALL_TIME):
        counts[one.metric, one.value, one.inputs] += 1
    assert begun == [4, 1]
    assert counts == {("m0", Decimal(1), 1): 200_000} | {(f"m{n}", Decimal(7), 1): 200_000 for n in (1, 2, 3)}


def test_processes_share_what_one_may_use(tmp_path: Path) -> None:
    assert sandbox.threads_for(16, 1) == 3
    assert sandbox.threads_for(1, 1) == 1
    assert [sandbox.threads_for(16, parts) for parts in (2, 4, 9)] == [1, 1, 1]
    assert list(rows(DuckEngine().shared(2), many_entities(tmp_path, 50_000), [metric()], ALL_TIME))


def test_metrics_with_one_condition_count_their_lines_once(tmp_path: Path) -> None:
    events = [event({"n": n}, entity_id=f"e{n % 3}") for n in range(9)]
    odd = "(payload->>'$.n')::BIGINT % 2 = 1"
    metrics = [
        Definition(name="a", value="count(*)"),
        Definition(name="b", value="count(*)", where=odd),
        Definition(name="c", value="sum((payload->>'$.n')::BIGINT)"),
        Definition(name="d", value="sum((payload->>'$.n')::BIGINT)", where=odd),
        Definition(name="e", value="max(seq)"),
    ]
    inputs = raw(tmp_path / "r.zst", events)
    engine = DuckEngine(threads=1)
    apart = [row for each in metrics for row in rows(engine, inputs, [each], ALL_TIME)]
    assert list(rows(engine, inputs, metrics, ALL_TIME)) == apart
    counted = {(row.metric, row.input_contents) for row in apart if row.entity_id == "e1"}
    assert len({contents for _, contents in counted}) == 3  # of all, of the odd ones, and of places in batches


SLOW_QUERY = """
import sys
from pathlib import Path
from pik.engine import DuckEngine
from pik.model.metric import Definition
from pik.model.window import ALL_TIME
from pik.ports.engine import Inputs

slow = Definition(
    name="slow", value="sum(list_sum(list_transform((payload->'$.v')::VARCHAR[], lambda x: (x::BIGINT + seq) % 7)))"
)
print("computing", flush=True)
try:
    for _ in range(1000):
        with DuckEngine().computation(Inputs([Path(sys.argv[1])], 2_000), [slow], ALL_TIME) as computation:
            list(computation.rows())
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_is_an_interrupt_not_a_failure(tmp_path: Path) -> None:
    raw(tmp_path / "r.zst", [event({"n": n, "v": list(range(500))}) for n in range(2_000)])
    command = [sys.executable, "-c", SLOW_QUERY, str(tmp_path / "r.zst")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1)  # into the query; wherever the signal arrives, the answer is the same
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
