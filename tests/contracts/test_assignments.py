"""The contract of pik.ports.buffer.Assignments."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pik.model.ids import TIME_DIGITS, buffered_id
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.usecases.care.rebuild import rebuild_index

REQUESTS = [buffered_id(10**18, f"request {number}") for number in range(60)]
UNTIL = 2**33


def test_a_request_stays_with_the_batch_that_was_first_until_it_is_moved(store: Store) -> None:
    assignments = store.assignments
    assert assignments.assign(REQUESTS[:2], "A", UNTIL) == ["A", "A"]
    assert assignments.assign(REQUESTS[1:3], "B", UNTIL) == ["A", "B"]
    assert assignments.assign(REQUESTS[:3], "A", UNTIL) == ["A", "A", "B"], "an answer may have been lost"
    assert not assignments.move(REQUESTS[2], "A", "C")
    assert assignments.move(REQUESTS[1], "A", "C")
    assert assignments.move(REQUESTS[1], "A", "C"), "as above"
    found = [assignments.batch_of(request[TIME_DIGITS:]) for request in REQUESTS[:4]]
    assert found == ["A", "C", "B", None]


def test_of_several_batches_at_once_one_has_each_request(store: Store) -> None:
    names = ["A", "B", "C", "D"]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: store.assignments.assign(REQUESTS, name, UNTIL), names))
    assert all(answer == answers[0] for answer in answers)


def test_assignments_survive_a_rebuild_of_the_index(store: Store) -> None:
    store.assignments.assign(REQUESTS, "A", UNTIL)
    rebuild_index(store, SILENT)
    assert store.assignments.assign(REQUESTS, "B", UNTIL) == ["A"] * len(REQUESTS)
