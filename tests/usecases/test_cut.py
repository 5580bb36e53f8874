"""A busy day is cut into tasks by entity, and computed in pieces: never more than fits, and always the same values."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from pik.engine import DuckEngine
from pik.errors import StoreError
from pik.inputs import blocks
from pik.model.batch import Frame, frame_of
from pik.model.entity_range import EVERY_ENTITY, EntityRange
from pik.model.metric import Definition, Per
from pik.model.run import Run, RunRequest, RunState, TaskState
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog import gathering, segment_writer
from pik.rawlog.selection import SegmentFrames, Selection
from pik.runtime import SILENT
from pik.runtime.storage import scratch
from pik.stores import open_store
from pik.usecases.metrics.definitions import apply
from pik.usecases.replay.cut import entity_ranges
from pik.usecases.replay.execute import Pace, run_locally
from pik.usecases.replay.plan import TASK_SIZE, TaskSize, plan_replay, start
from pik.usecases.replay.promote import promote
from pik.usecases.replay.tasks import execute_task
from tests.support.corrections import moved
from tests.support.stores import current, event, ingest, request

ENGINE = DuckEngine(threads=1)
METRICS = [
    Definition(name="kinds", value="count(DISTINCT payload->>'v')"),
    Definition(name="total", value="sum((payload->>'v')::DECIMAL(18, 2))", where="event_type = 'paid'"),
    Definition(name="users", value="count(DISTINCT entity_id)", per=Per.ALL),
    Definition(name="all_events", value="count(*)", bucket="7d", per=Per.ALL),
]
ENTITIES = ["", "a", "aé", "b", "c", "d", "é", "z", "\U0001f600"]


def frames_of_segments(segments: Sequence[Sequence[str]], per_frame: int) -> list[SegmentFrames]:
    """Segments of these entities, with frames of so many deliveries of 10 bytes."""
    found = []
    for entities in segments:
        ordered = sorted(entities)
        some = [ordered[n : n + per_frame] for n in range(0, len(ordered), per_frame)]
        found.append(SegmentFrames(cast(Any, None), [frame_of(n, 10 * len(each), each) for n, each in enumerate(some)]))
    return found


def read_for(entity_range: EntityRange, frames: Sequence[Frame]) -> int:
    return sum(frame.length for frame in frames if entity_range.meets(frame.first, frame.last))


names = st.sampled_from(ENTITIES[1:])


@given(st.lists(st.lists(names, min_size=1, max_size=30), max_size=8), st.integers(1, 8), st.integers(1, 200))
def test_ranges_have_every_entity_once_and_read_at_most_twice_what_there_is(
    segments: list[list[str]], per_frame: int, size: int
) -> None:
    needed = frames_of_segments(segments, per_frame)
    selection = cast(Selection, SimpleNamespace(needed=lambda *, whole_days: iter(needed)))
    cut = entity_ranges(selection, 1_000_000, size)
    ranges = [one.entities for one in cut]
    for entity in ENTITIES:
        assert sum(entity in one for one in ranges) == 1
    assert ranges[0].first == ranges[-1].end == ""
    assert all(left.end == right.first and right.first for left, right in pairwise(ranges))
    frames = [frame for one in needed for frame in one.frames]
    read = [read_for(one, frames) for one in ranges]
    assert read == [one.size for one in cut]
    assert sum(read) <= 2 * sum(frame.length for frame in frames)
    if per_frame == 1:  # a range ends as soon as it has enough
        largest = {entity: sum(each.count(entity) for each in segments) for entity in ENTITIES}
        assert all(of_one <= size + 10 * max(largest.values()) for of_one in read)


def test_one_entity_with_most_of_a_day_is_a_task_and_the_others_are_cut_around_it() -> None:
    needed = frames_of_segments([["a", "b", *["m"] * 500, "x", "y"] for _ in range(4)], 1)
    selection = cast(Selection, SimpleNamespace(needed=lambda *, whole_days: iter(needed)))
    ranges = [one.entities for one in entity_ranges(selection, 8, 1 << 30)]
    assert ranges == [EntityRange("", "m"), EntityRange("m", "x"), EntityRange("x", "")]
    assert [one.entities for one in entity_ranges(selection, 1 << 30, 1 << 30)] == [EVERY_ENTITY]


@st.composite
def batches(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    each = st.builds(
        event,
        st.integers(0, 9),
        names,
        st.builds("{:02}T{:02}:00".format, st.integers(1, 3), st.integers(0, 23)),
        kind=st.sampled_from(["paid", "seen"]),
    )
    keyed = st.builds(lambda one, key: {**one, "idempotency_key": key} if key else one, each, st.sampled_from(" kl"))
    return draw(st.lists(st.lists(keyed, min_size=1, max_size=12), min_size=1, max_size=4))


EXAMPLE = [event(n % 3, entity, f"01T0{n}:00") for n, entity in enumerate("aaaaabbb")]
SIZES = st.sampled_from([1, 1 << 30])


def check_cut(
    inputs: list[list[dict[str, Any]]],
    deliveries: int,
    is_moved: bool,
    kind: str | None,
    backwards: bool,
    together: int,
) -> None:
    """Frames of two lines, pieces of one segment, shares of a few, tasks from the last one on, values that are current
    and become null, corrections."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_writer, "FRAME", 500)
        store = open_store(f"{name}/store", create=True)
        apply(store.metrics, ENGINE, METRICS, 1)
        for events in [[event(5, "a", "04T05:00")], *inputs]:
            ingest(store, Path(name), events, again=True)
        executed(store, request(), TASK_SIZE)
        if is_moved:
            moved(store, "04", "02")
        asked = request(event_type=kind)
        whole = executed(store, asked, TASK_SIZE)
        patch.setattr(gathering, "PIECE_BYTES", 1)
        cut = executed(
            store, asked, TaskSize(deliveries=deliveries, named=1, raw=400, together=together), backwards=backwards
        )
        assert written(store, cut) == written(store, whole)
        assert [getattr(cut, name) for name in COUNTS] == [getattr(whole, name) for name in COUNTS]


CUT = given(batches(), st.integers(1, 12), st.booleans(), st.sampled_from(["paid", None]), st.booleans(), SIZES)
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
test_promise_6_a_replay_cut_by_entity_and_by_bytes_has_every_value_of_one_that_is_not = settings(
    max_examples=1, phases=PHASES
)(CUT(example([EXAMPLE], 1, False, None, True, 1)(check_cut)))
test_promise_6_a_replay_cut_anyhow_has_every_value_of_one_that_is_not = pytest.mark.slow(
    settings(max_examples=30, phases=PHASES)(CUT(check_cut))
)

COUNTS = ["new", "changed", "unchanged", "removed"]


def executed(store: Store, asked: RunRequest, size: TaskSize, *, backwards: bool = False) -> Run:
    """A run, promoted if it is the first one."""
    plan = plan_replay(store, ENGINE, asked, 1, size=size)
    run, tasks = start(store, plan), list(plan.tasks)
    for task in reversed(tasks if backwards else []):
        execute_task(store, ENGINE, task)
        store.runs.mark(task, TaskState.DONE)
    run = run_locally(store, ENGINE, run.run_id, Pace(workers=0), SILENT)
    assert run.state == RunState.COMPLETED, run.failures
    if not current(store):
        promote(store, run.run_id, 2, "")
    return run


def written(store: Store, run: Run) -> list[Any]:
    """All that a run wrote, with the digests of what it counted."""
    return [change.written.computed for change in store.aggregates.changes(run.run_id)]


MEGABYTE = 1 << 20


@dataclass
class Downloads:
    """Raw of a store whose objects have to be downloaded, onto a disk of so many bytes."""

    raw: Raw
    disk: Path
    size: int
    most: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    @property
    def free(self) -> int:
        used = sum(path.stat().st_size for path in self.disk.rglob("*") if path.is_file())
        self.most = max(self.most, used)
        return self.size - used

    @contextmanager
    def files(self, keys: Sequence[str]) -> Iterator[list[Path]]:
        with scratch() as directory, self.raw.files(keys) as paths:
            copies = [directory / f"{number}.ndjson.zst" for number in range(len(paths))]
            for path, copy in zip(paths, copies, strict=True):
                if self.free < path.stat().st_size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                copyfile(path, copy)
            assert self.free >= 0
            yield copies
            assert self.free >= 0


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A day of 2 MB of raw, most of it of one entity, in segments of some 100 KB."""
    monkeypatch.setattr(blocks, "BLOCK", 100_000)
    monkeypatch.setattr(blocks, "FIRST_READ", 50_000)
    chance = random.Random(15)
    events = [
        {
            **event(n % 7, "giant" if n % 3 else f"user-{n % 40:02}", f"01T{n % 24:02}:{n % 60:02}"),
            "payload": {"v": n % 7, "noise": chance.randbytes(700).hex()},
        }
        for n in range(2800)
    ]
    store = open_store(str(tmp_path / "store"), create=True)
    apply(store.metrics, ENGINE, METRICS, 1)
    ingest(store, tmp_path, events)
    return store


@pytest.mark.parametrize(
    ("together", "is_shared"), [(MEGABYTE // 2, True), pytest.param(TASK_SIZE.together, False, marks=pytest.mark.slow)]
)
def test_a_busy_day_is_replayed_in_a_megabyte_of_scratch_space(
    busy: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int, is_shared: bool
) -> None:
    """Its raw does not fit, nor does that of its largest entity, nor that of a bucket over all entities."""
    whole = executed(busy, request(), TASK_SIZE)
    assert busy.index.totals().raw_bytes > 2 * MEGABYTE
    disk = tmp_path / "scratch"
    disk.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    downloads = Downloads(busy.raw, disk, MEGABYTE)
    deployed = replace(busy, raw=cast(Raw, downloads))
    with pytest.raises(StoreError, match="No space left on device"):
        executed(deployed, request(), TASK_SIZE)
    monkeypatch.setattr(gathering, "disk_usage", lambda _path: SimpleNamespace(free=downloads.free))
    size = TaskSize(deliveries=500, raw=MEGABYTE // 4, together=together)
    assert any(not task.share.is_all for task in plan_replay(busy, ENGINE, request(), 1, size=size).tasks) == is_shared
    cut = executed(deployed, request(), size)
    assert cut.tasks > whole.tasks
    assert written(busy, cut) == written(busy, whole)
    assert [getattr(cut, name) for name in COUNTS] == [0, 0, whole.new, 0]
    assert downloads.most > MEGABYTE // 4
    assert not list((tmp_path / "store").glob("partials/*"))
