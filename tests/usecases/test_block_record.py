"""Which of a batch's blocks the index can have recorded, by their block records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pik.rawlog.sealed_records import ATTEMPT, BlockLine, recorded_blocks


def block(attempt: int, number: int, first_seq: int, last_seq: int) -> BlockLine:
    return BlockLine(
        format=2,
        batch_id="01J00000000000000000000000",
        number=(attempt - 1) * ATTEMPT + number,
        first_seq=first_seq,
        last_seq=last_seq,
        offset=last_seq,
        prefix_digest="",
    )


def test_what_follows_a_gap_does_not_count() -> None:
    first, second, third = (block(1, n, 10 * n - 9, 10 * n) for n in (1, 2, 3))
    assert recorded_blocks([third, first, second]) == [first, second, third]
    assert recorded_blocks([third, first]) == [first]
    assert recorded_blocks([second, third]) == []
    assert recorded_blocks([]) == []


def test_an_attempt_replaces_what_earlier_ones_have_from_where_it_began() -> None:
    first, unrecorded = block(1, 1, 1, 10), block(1, 2, 11, 20)
    again, last = block(2, 1, 11, 15), block(3, 1, 16, 30)
    assert recorded_blocks([first, unrecorded]) == [first, unrecorded]
    assert recorded_blocks([first, unrecorded, again]) == [first, again]
    assert recorded_blocks([first, unrecorded, again, last]) == [first, again, last]


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=6), st.permutations(range(40)))
def test_promise_1_nothing_that_the_index_has_recorded_is_left_out(
    attempts: list[tuple[int, bool]], order: list[int]
) -> None:
    """Each attempt records some blocks, and may die between a block's record and the index."""
    made: list[BlockLine] = []
    recorded: list[BlockLine] = []
    for attempt, (count, ahead) in enumerate(attempts, 1):
        for number in range(1, count + 1):
            seq = recorded[-1].last_seq + 1 if recorded else 1
            made.append(block(attempt, number, seq, seq + number + attempt % 2))
            if number < count or not ahead:
                recorded.append(made[-1])
    found = recorded_blocks(made[place] for place in order if place < len(made))
    assert found[: len(recorded)] == recorded
    assert [one.first_seq for one in found[1:]] == [one.last_seq + 1 for one in found[:-1]]
