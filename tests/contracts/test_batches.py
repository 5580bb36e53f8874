"""The contract of Batches: who is first counts, once, whatever is repeated."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pik.errors import Busy, ConflictFound
from pik.model.batch import BatchState, Counts, Verdict
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.stores import open_store
from tests.support.aws.clock import later
from tests.support.contracts.chunks import BATCH, OTHER, Sent, chunk, counts, origin


def opened(store: Store, batch_id: str = BATCH, content: str = "c") -> None:
    store.batches.open(origin(content), batch_id, 1)


def kinds(store: Store, *sent: Sent) -> dict[Sent, list[tuple[str, str, int]]]:
    """Each event's deliveries: (kind, batch, seq)."""
    return {
        each: [(place.kind, place.batch_id, place.seq) for place in store.index.deliveries(each.event_id.hex())]
        for each in sent
    }


def test_a_batch_begins_empty(store: Store) -> None:
    with store.batches.writing("c"):
        batch = store.batches.open(origin(), BATCH, 7)
        assert (batch.batch_id, batch.origin, batch.attempt, batch.state) == (BATCH, origin(), 1, BatchState.RUNNING)
        assert (batch.next_seq, batch.offset, batch.counts) == (1, 0, Counts())
        assert (batch.started_at, batch.finished_at, batch.first_event, batch.last_event) == (7, None, None, None)
        assert store.batches.find(origin()) == batch


def test_a_batch_is_found_by_content_and_options_and_not_by_names(store: Store) -> None:
    opened(store)
    for same in (origin(name="another name"), origin(options=(*origin().options, ("mapping", "shop (pik.toml)")))):
        found = store.batches.find(same)
        assert found is not None
        assert found.batch_id == BATCH
    for other in (origin("d"), origin(options=(("a", "b"),)), origin(again=True)):
        assert store.batches.find(other) is None


def test_the_newest_batch_of_an_origin_is_found(store: Store) -> None:
    opened(store, OTHER)
    opened(store, BATCH)  # the later one, though its id is smaller
    found = store.batches.find(origin())
    assert found is not None
    assert found.batch_id == BATCH


def test_batches_of_a_content_are_found_newest_first_whatever_their_options(store: Store) -> None:
    of_content = {BATCH: origin(), OTHER: origin(options=(("timezone", "UTC"),)), f"{BATCH[:-1]}Y": origin(again=True)}
    for batch_id, of in of_content.items():
        store.batches.open(of, batch_id, 1)
    for longer in ("c,", "c-", "cd", "b"):
        opened(store, f"{BATCH[:-1]}{longer[-1].upper().translate(str.maketrans(',-', 'VW'))}", longer)
    found = [(batch.batch_id, batch.origin) for batch in store.batches.of_content("c")]
    assert found == list(reversed(of_content.items()))
    assert list(store.batches.of_content("none")) == []


def test_taking_over_a_batch_is_another_attempt_and_changes_nothing_else(store: Store) -> None:
    opened(store)
    store.batches.record(chunk([Sent("a"), None]))
    with store.batches.writing("c"):
        first = store.batches.find(origin())
        again = store.batches.open(origin(name="moved"), BATCH, 99)
        assert first is not None
        assert again == replace(first, attempt=2)


def test_promise_4_the_first_of_an_event_is_accepted_and_each_other_is_a_duplicate(store: Store) -> None:
    opened(store)
    opened(store, OTHER, "d")
    a, b = Sent("a"), Sent("b", day=1)
    assert store.batches.record(chunk([a, None, b, a])) == counts(4, 2, exact=1)
    assert store.batches.record(chunk([b, a, a], batch_id=OTHER)) == counts(3, 0, exact=3)
    assert kinds(store, a, b) == {
        a: [
            (Verdict.ACCEPTED, BATCH, 1),
            (Verdict.EXACT, BATCH, 4),
            (Verdict.EXACT, OTHER, 2),
            (Verdict.EXACT, OTHER, 3),
        ],
        b: [(Verdict.ACCEPTED, BATCH, 3), (Verdict.EXACT, OTHER, 1)],
    }


def test_promise_4_a_key_that_comes_again_is_exact_or_a_conflict_whatever_its_day(store: Store) -> None:
    opened(store)
    k, later, other = Sent("k", 3, "x"), Sent("k", 1, "x"), Sent("k", 0, "y")
    assert store.batches.record(chunk([k, later, other, k])) == counts(4, 1, exact=2, conflict=1)
    assert kinds(store, k)[k] == [
        (Verdict.ACCEPTED, BATCH, 1),
        (Verdict.EXACT, BATCH, 2),
        (Verdict.CONFLICT, BATCH, 3),
        (Verdict.EXACT, BATCH, 4),
    ]


def test_promise_4_the_order_of_seqs_decides_over_that_of_days(store: Store) -> None:
    """Segments of a chunk come by day; the key that came first is accepted all the same."""
    opened(store)
    store.batches.record(chunk([Sent("k", 9, "x"), Sent("k", 1, "y")]))
    assert [place.kind for place in store.index.deliveries(Sent("k", 9, "x").event_id.hex())] == [
        Verdict.ACCEPTED,
        Verdict.CONFLICT,
    ]
    assert store.index.deliveries(Sent("k", 9, "x").event_id.hex())[0].seq == 1


def test_batches_are_written_together(store: Store) -> None:
    with store.batches.together():
        opened(store)
        opened(store, OTHER, "d")
    with store.batches.together():
        store.batches.record(chunk([Sent("a"), Sent("b")]))
        store.batches.record(chunk([Sent("b"), Sent("c")], batch_id=OTHER))
    with store.batches.together():
        store.batches.finish(BATCH, 8)
        store.batches.finish(OTHER, 9)
    assert [(batch.batch_id, batch.state) for batch in store.index.batches()] == [
        (OTHER, BatchState.COMPLETE),
        (BATCH, BatchState.COMPLETE),
    ]
    assert [batch.counts for batch in store.index.batches()] == [counts(2, 1, exact=1), counts(2, 2)]


def test_progress_is_recorded_with_the_deliveries(store: Store) -> None:
    opened(store)
    store.batches.record(chunk([Sent("a", 2), None, Sent("a", 2)], reasons={"bad": 1}))
    store.batches.record(chunk([Sent("b"), None], first_seq=4, number=2, reasons={"worse": 1}))
    batch = store.batches.find(origin())
    assert batch is not None
    assert (batch.next_seq, batch.offset, batch.prefix_digest) == (6, 500, "digest 2")
    assert batch.counts == counts(5, 2, exact=1)
    assert (batch.reasons, batch.lags, batch.sources) == ({"bad": 1, "worse": 1}, {10: 3}, {"s": 3})
    assert batch.times == {"event_time epoch": 3}
    assert batch.first_event == 4
    assert batch.last_event == 2 * 86_400_000_000_000 + 3


def test_recording_a_chunk_again_changes_nothing(store: Store) -> None:
    opened(store)
    first = chunk([Sent("a"), None, Sent("k", 0, "x"), Sent("a")])
    store.batches.record(first)
    store.batches.record(chunk([Sent("b")], first_seq=5, number=2))
    before = everything(store)
    assert store.batches.record(first) == Counts()
    assert everything(store) == before


def everything(store: Store) -> object:
    segments = list(store.index.segments(ALL_TIME))
    return (
        store.index.totals(),
        segments,
        [store.index.skipped(segment) for segment in segments],
        list(store.index.batches()),
        [store.index.rejects(batch.batch_id) for batch in store.index.batches()],
        [store.index.deliveries(event_id) for event_id in store.index.locate("", limit=1000)],
    )


def test_a_chunk_without_deliveries(store: Store) -> None:
    opened(store)
    assert store.batches.record(chunk([None, None])) == counts(2, 0)
    assert store.index.totals().segments == 0
    assert [file.records for file in store.index.rejects(BATCH)] == [2]


def test_a_chunk_of_blank_lines_advances_the_batch(store: Store) -> None:
    opened(store)
    blank = replace(chunk([None]), read=0, rejects=None, reasons={})
    assert store.batches.record(blank) == Counts()
    batch = store.batches.find(origin())
    assert batch is not None
    assert batch.next_seq == 2


def test_refusing_conflicts_records_nothing_of_the_chunk(store: Store) -> None:
    opened(store)
    store.batches.record(chunk([Sent("k", 0, "x")]))
    before = everything(store)
    with pytest.raises(ConflictFound, match=r"records 2 to 4 hold .*\(conflicts: 1\)"):
        store.batches.record(chunk([Sent("a"), None, Sent("k", 0, "y")], first_seq=2, number=2), refuse_conflicts=True)
    assert everything(store) == before
    exact = chunk([Sent("a"), None, Sent("k", 0, "x")], first_seq=2, number=3)
    assert store.batches.record(exact, refuse_conflicts=True) == counts(3, 1, exact=1)


def test_the_segments_of_a_chunk_have_one_recorded_at_later_than_every_one_before(store: Store) -> None:
    opened(store)
    for number in range(1, 6):
        store.batches.record(chunk([Sent(str(number), day) for day in (2, 0, 1)], first_seq=number * 3, number=number))
    segments = sorted(store.index.segments(ALL_TIME), key=lambda segment: segment.recorded_at)
    assert len({segment.recorded_at for segment in segments}) == 5
    assert [segment.key.rpartition("-")[2] for segment in segments] == [
        f"{number}.ndjson.zst" for number in range(1, 6) for _ in range(3)
    ]


def test_finishing_is_final_and_may_be_repeated(store: Store) -> None:
    opened(store)
    store.batches.record(chunk([Sent("a")]))
    done = store.batches.finish(BATCH, 50)
    assert (done.state, done.finished_at, done.counts) == (BatchState.COMPLETE, 50, counts(1, 1))
    assert store.batches.finish(BATCH, 60) == done


def test_a_batch_is_running_while_its_writer_lives_and_interrupted_after(store: Store) -> None:
    with store.batches.writing("c"):
        opened(store)
        assert [batch.state for batch in store.index.batches()] == [BatchState.RUNNING]
    assert [batch.state for batch in store.index.batches()] == [BatchState.INTERRUPTED]


def test_only_one_writes_batches_of_a_name(store: Store) -> None:
    with store.batches.writing("c"):
        with pytest.raises(Busy), store.batches.writing("c"):
            pass
        with store.batches.writing("d"):
            pass
    with store.batches.writing("c"):
        pass


WRITER = """
import sys
from pik.stores import open_store
with open_store(sys.argv[1]).batches.writing("c"):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_the_right_to_write_ends_with_the_process_that_has_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, store.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    opened(store)
    assert [batch.state for batch in store.index.batches()] == [BatchState.RUNNING]
    with pytest.raises(Busy), store.batches.writing("c"):
        pass
    writer.kill()
    writer.wait()
    if store.deployed:  # which cannot see it die
        later(monkeypatch)
    assert [batch.state for batch in store.index.batches()] == [BatchState.INTERRUPTED]
    with store.batches.writing("c"):
        pass


def test_promise_4_many_writers_at_once(store: Store) -> None:
    """Each event is accepted once, whoever records it first, and readers see whole chunks."""

    def write(number: int) -> Counts:
        mine = open_store(store.url)
        batch_id = f"01J0000000000000000000000{number}"
        mine.batches.open(origin(f"{number}"), batch_id, 1)
        total = Counts()
        for part in range(10):
            sent = [Sent(str(event), event % 3) for event in range(part * 5, part * 5 + 10)]
            sent += [Sent(f"k{part}", number % 3, f"{number % 2}")]
            total += mine.batches.record(chunk(sent, batch_id=batch_id, first_seq=part * 11 + 1, number=part + 1))
        return total

    stop = threading.Event()

    def look() -> None:
        mine = open_store(store.url)
        while not stop.is_set():
            for batch in mine.index.batches():
                assert batch.counts.read % 11 == 0
                assert batch.counts.read == batch.counts.accepted + batch.counts.duplicates
            totals = mine.index.totals()
            assert totals.deliveries % 11 == 0

    with ThreadPoolExecutor(5) as threads:
        looking = threads.submit(look)
        written = list(threads.map(write, range(4)))
        stop.set()
        looking.result()
    assert sum(each.read for each in written) == 440 == store.index.totals().deliveries
    assert sum(each.accepted for each in written) == 55 + 10 == store.index.totals().events
    assert len(store.index.locate("", limit=1000)) == 65


EVENTS = st.one_of(
    st.builds(Sent, st.sampled_from("abc"), st.integers(0, 1)),
    st.builds(Sent, st.sampled_from("kl"), st.integers(0, 2), st.sampled_from("xy")),
    st.none(),
)


RECORDED = given(
    st.lists(st.tuples(st.integers(0, 1), st.lists(EVENTS, min_size=1, max_size=6), st.booleans()), max_size=6)
)


def check_model(new_store: Callable[[], Store], steps: list[tuple[int, list[Sent | None], bool]]) -> None:
    store = new_store()
    first: dict[bytes, Sent] = {}
    expected: dict[bytes, list[tuple[str, str, int]]] = defaultdict(list)
    following = {BATCH: 1, OTHER: 1}
    opened(store)
    opened(store, OTHER, "d")
    for number, (which, sent, refuse) in enumerate(steps, 1):
        batch_id = (BATCH, OTHER)[which]
        made = chunk(sent, batch_id=batch_id, first_seq=following[batch_id], number=number)
        found: list[tuple[bytes, str, int]] = []
        claimed = dict(first)
        for seq, each in enumerate(sent, following[batch_id]):
            if each is None:
                continue
            earlier = claimed.setdefault(each.event_id, each)
            is_first = earlier is each and not any(event_id == each.event_id for event_id, _, _ in found)
            is_first = is_first and each.event_id not in first
            found.append(
                (
                    each.event_id,
                    Verdict.ACCEPTED if is_first else Verdict.EXACT if earlier.says == each.says else Verdict.CONFLICT,
                    seq,
                )
            )
        if refuse and any(kind == Verdict.CONFLICT for _, kind, _ in found):
            with pytest.raises(ConflictFound):
                store.batches.record(made, refuse_conflicts=True)
            continue
        got = store.batches.record(made, refuse_conflicts=refuse)
        assert store.batches.record(made) == Counts()
        of_kind = [kind for _, kind, _ in found]
        assert got == Counts(
            len(sent),
            of_kind.count(Verdict.ACCEPTED),
            of_kind.count(Verdict.EXACT),
            of_kind.count(Verdict.CONFLICT),
            len(sent) - len(found),
        )
        first, following[batch_id] = claimed, following[batch_id] + len(sent)
        for event_id, kind, seq in found:
            expected[event_id].append((kind, batch_id, seq))
    for event_id, deliveries in expected.items():
        order = sorted(deliveries, key=lambda one: (one[0] != Verdict.ACCEPTED, one[1], one[2]))
        assert [(place.kind, place.batch_id, place.seq) for place in store.index.deliveries(event_id.hex())] == order
    assert store.index.totals().events == len(expected)
    assert store.index.totals().deliveries == sum(map(len, expected.values()))


def against_model(kind: str, examples: int) -> Any:
    checked = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples)
    return pytest.mark.parametrize("kind", [kind])(checked(RECORDED(check_model)))


test_promise_4_against_a_model = against_model("local", 25)
test_promise_4_against_a_model_in_a_stack = against_model("aws", 8)
test_promise_4_against_a_model_in_a_stack_for_long = pytest.mark.slow(against_model("aws", 50))
