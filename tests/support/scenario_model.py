"""What counts under a scenario, in plain Python: deliveries in a list, and the rules of docs/investigating.md.

Times are seconds since DAY_ONE, the day before clocks are set forward in Berlin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from pik.model.event import read_event
from pik.model.instant import DAY, SECOND, format_instant, parse_instant
from pik.model.metric import Definition
from pik.model.window import Window

if TYPE_CHECKING:
    from tests.support.corrected_model import RecordedCorrection

DAY_ONE = parse_instant("2026-03-28T00:00:00Z")
DAYS = 4
ENTITIES = ("a", "b")
DAY_SECONDS = 86400


@dataclass(frozen=True)
class Sent:
    """An event as a producer sends it."""

    entity: str
    source: str
    at: int
    value: int
    key: str | None

    @property
    def identity(self) -> tuple[object, ...]:
        return (self.entity, self.source, self.key) if self.key else (self.entity, self.source, self.at, self.value)

    @property
    def content(self) -> tuple[int, int]:
        return self.at, self.value

    @property
    def line(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "source": self.source,
            "event_type": "paid",
            "entity_id": self.entity,
            "event_time": format_instant(DAY_ONE + self.at * SECOND),
            "payload": {"v": self.value},
        }
        return {**made, "idempotency_key": self.key} if self.key else made

    @cached_property
    def event_id(self) -> str:
        return read_event(json.dumps(self.line).encode()).event_id.hex()


TIMES = st.builds(
    lambda day, second: day * DAY_SECONDS + second,
    st.integers(0, DAYS - 1),
    st.sampled_from([0, 12 * 3600, DAY_SECONDS - 1]),
)
SENT = st.builds(
    Sent,
    entity=st.sampled_from(ENTITIES),
    source=st.sampled_from(["web", "app"]),
    at=TIMES,
    value=st.integers(0, 3),
    key=st.sampled_from([None, None, "k", "l"]),
)
BATCHES = st.lists(st.lists(SENT, min_size=1, max_size=6), min_size=2, max_size=4)


@dataclass(eq=False)
class Arrival:
    """A delivery. What is `lost` is in the index, and not in raw."""

    sent: Sent
    batch: int
    seq: int
    recorded_at: int
    lost: bool = False
    number: int = -1

    @property
    def order(self) -> tuple[int, int, int]:
        return self.recorded_at, self.batch, self.seq


@dataclass(frozen=True)
class Chosen:
    """A selection: all of these hold. `where` is a bound of the value, exclusive."""

    source: str | None = None
    entity: str | None = None
    batch: int | None = None
    start: int | None = None
    end: int | None = None
    where: int | None = None

    def hits(self, one: Arrival, at: int) -> bool:
        """Whether it selects a delivery that happened at that time."""
        sent = one.sent
        return (
            self.source in (None, sent.source)
            and self.entity in (None, sent.entity)
            and self.batch in (None, one.batch)
            and (self.start is None or at >= self.start)
            and (self.end is None or at < self.end)
            and (self.where is None or sent.value < self.where)
        )

    def text(self, ids: Sequence[str]) -> str:
        pairs: dict[str, str | None] = {
            "source": self.source,
            "entity": self.entity,
            "batch": None if self.batch is None else ids[self.batch],
            "from": None if self.start is None else format_instant(DAY_ONE + self.start * SECOND),
            "to": None if self.end is None else format_instant(DAY_ONE + self.end * SECOND),
            "where": None if self.where is None else f"(payload->>'v')::BIGINT < {self.where}",
        }
        return ",".join(f"{name}={value}" for name, value in pairs.items() if value is not None)


@dataclass(frozen=True)
class Assumed:
    """An assumption, as the model knows it: `number` is that of a batch, an event or a delivery."""

    kind: str
    number: int = 0
    chosen: Chosen = Chosen()
    word: str = ""
    events: tuple[Sent, ...] = ()


_BEGIN = st.sampled_from([0, DAY_SECONDS, 2 * DAY_SECONDS - 1])
CHOSEN = st.builds(
    Chosen,
    source=st.sampled_from([None, "web", "app"]),
    entity=st.sampled_from([None, *ENTITIES]),
    batch=st.sampled_from([None, None, 0, 1]),
    start=st.one_of(st.none(), _BEGIN),
    end=st.one_of(st.none(), st.sampled_from([2 * DAY_SECONDS, 3 * DAY_SECONDS])),
    where=st.sampled_from([None, None, 1, 2]),
).filter(lambda chosen: chosen != Chosen())
SHIFTS = {"-1h": -3600, "1d": 86400, "-1s": -1, "1w": 604800, "-36h": -129600, "26h": 93600}
ZONES = ("Europe/Berlin", "Asia/Kolkata", "America/New_York")
FORMULAS: dict[str, Callable[[list[int]], int]] = {
    "count(*)": len,
    "sum((payload->>'v')::BIGINT)": sum,
    "max((payload->>'v')::BIGINT)": max,
}

ASSUMED = st.one_of(
    st.builds(Assumed, st.just("without"), st.integers(0, 5)),
    st.builds(Assumed, st.just("without-selected"), chosen=CHOSEN),
    st.builds(Assumed, st.just("without-batch"), st.integers(0, 3)),
    st.builds(Assumed, st.just("with"), events=st.lists(SENT, min_size=1, max_size=3).map(tuple)),
    st.builds(Assumed, st.just("delivery"), st.integers(0, 9)),
    st.builds(
        Assumed,
        st.just("conflicts"),
        chosen=st.one_of(st.just(Chosen()), CHOSEN),
        word=st.sampled_from(["first", "last", "last"]),
    ),
    st.builds(Assumed, st.just("shift"), chosen=CHOSEN, word=st.sampled_from(list(SHIFTS))),
    st.builds(Assumed, st.just("zone"), chosen=CHOSEN, word=st.sampled_from(ZONES)),
    st.builds(Assumed, st.just("duplicates")),
    st.builds(Assumed, st.just("corrections")),
    st.builds(Assumed, st.just("definition"), word=st.sampled_from(list(FORMULAS))),
)

Values = dict[tuple[int, str], tuple[Decimal, int]]
"""A bucket's start and an entity, and the value and its number of inputs."""


@dataclass
class State:
    """What a scenario comes to before its assumed moves: the known deliveries of each event, those that count, the
    events that are out (`recorded_out`: by recorded corrections), and the time of each delivery."""

    events: dict[tuple[object, ...], list[Arrival]]
    counting: dict[tuple[object, ...], list[Arrival]]
    out: set[tuple[object, ...]]
    recorded_out: frozenset[tuple[object, ...]]
    times: dict[int, int]


@dataclass
class Model:
    """All deliveries of a store, in recording order, and which of each event counts where that is not the first; and
    the log of corrections."""

    log: list[RecordedCorrection] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    winners: dict[tuple[object, ...], list[tuple[int, Arrival]]] = field(default_factory=dict)
    """Of events whose counting delivery was lost with the index: what counted since when."""

    def lose(self, batch: int, day: int) -> None:
        """Lose an object of raw."""
        for one in self.arrivals:
            one.lost = one.lost or (one.batch == batch and one.sent.at // DAY_SECONDS == day)

    def forget(self, at: int) -> None:
        """Rebuild the index from raw alone: of an event whose counting delivery is lost, the first one left counts."""
        for identity in {one.sent.identity for one in self.arrivals}:
            of_event = sorted(self.of_event(identity), key=lambda one: one.order)
            known = self.winners.get(identity, [(0, of_event[0])])
            left = [one for one in of_event if not one.lost]
            if not left:
                self.winners.pop(identity, None)
            elif known[-1][1].lost:
                self.winners[identity] = [*known, (at, left[0])]
        self.arrivals = [one for one in self.arrivals if not one.lost]

    def winner(self, identity: tuple[object, ...], corrected: int | None) -> Arrival | None:
        """What counted at that moment, or stands for it; None: the first that is known."""
        if identity not in self.winners:
            return None
        known = self.winners[identity]
        at = max(n for n, (since, _) in enumerate(known) if corrected is None or since <= corrected)
        winner = known[at][1]
        while winner not in self.arrivals and at + 1 < len(known):
            at += 1
            if known[at][1].sent.content != winner.sent.content:
                break
            winner = known[at][1]
        return winner

    def add(self, batch: int, events: Iterable[Sent], recorded_at: int) -> None:
        number = max((one.number for one in self.arrivals), default=-1)
        self.arrivals += [
            Arrival(sent, batch, seq, recorded_at, number=number + seq) for seq, sent in enumerate(events, 1)
        ]

    def of_event(self, identity: tuple[object, ...]) -> list[Arrival]:
        return [one for one in self.arrivals if one.sent.identity == identity]

    def values(
        self,
        formula: str,
        within: Window,
        entities: Sequence[str] = (),
        *,
        as_of: int | None = None,
        corrected: int | None = None,
        corrections_until: int | None = None,
        assumed: Sequence[Assumed] = (),
        moments: Sequence[int] | None = (),
    ) -> Values:
        formula = next((one.word for one in reversed(assumed) if one.kind == "definition"), formula)
        groups: dict[tuple[int, str], list[int]] = {}
        for sent, at in self.counted(as_of, assumed, corrected, corrections_until, moments=moments):
            instant = DAY_ONE + at * SECOND
            if instant in within and (not entities or sent.entity in entities):
                groups.setdefault((instant - instant % DAY, sent.entity), []).append(sent.value)
        return {key: (Decimal(FORMULAS[formula](found)), len(found)) for key, found in groups.items()}

    def counted(
        self,
        as_of: int | None,
        assumed: Sequence[Assumed],
        corrected: int | None = None,
        corrections_until: int | None = None,
        *,
        moments: Sequence[int] | None = (),
    ) -> list[tuple[Sent, int]]:
        """What counts, and at which time; `corrected`: until when the index had been rebuilt, `corrections_until`:
        until when corrections were recorded (None: until as_of). Exact copies count in the place of what is lost,
        unless that alone was known at one of the `moments`; None: none does."""
        state = self.state(as_of, assumed, corrected, corrections_until)
        if moments is not None and not any(one.kind == "duplicates" for one in assumed):
            state.counting = {
                identity: [self._copy(each, state, moments) if each.lost else each for each in found]
                for identity, found in state.counting.items()
            }
        left = [each for found in state.counting.values() for each in found if not each.lost]
        left = [each for each in left if each.sent.identity not in state.out]
        out = [one.chosen for one in assumed if one.kind == "without-selected"]
        left = [each for each in left if not any(chosen.hits(each, state.times[each.number]) for chosen in out)]
        counted = [(each.sent, _moved(each, state.times[each.number], assumed)) for each in left]
        for identity, sent in {
            sent.identity: sent for one in reversed(assumed) for sent in reversed(one.events)
        }.items():
            if identity not in state.events and identity not in state.recorded_out:
                counted.append((sent, sent.at))
        return counted

    def _copy(self, lost: Arrival, state: State, moments: Sequence[int]) -> Arrival:
        """The first exact copy that is left; the lost delivery itself where there is none. What verdicts tell exact
        copies from conflicts by is the delivery that the index accepts today."""
        identity, content = lost.sent.identity, lost.sent.content
        of_event = sorted(self.of_event(identity), key=lambda one: one.order)
        accepted = self.winners[identity][-1][1] if identity in self.winners else of_event[0]
        same = [one for one in state.events[identity] if not one.lost and one.sent.content == content]
        same = [one for one in same if state.times[one.number] == state.times[lost.number]]
        same = [one for one in same if not any(lost.recorded_at <= at < one.recorded_at for at in moments)]
        return same[0] if same and accepted.sent.content == content else lost

    def state(
        self,
        as_of: int | None,
        assumed: Sequence[Assumed],
        corrected: int | None = None,
        corrections_until: int | None = None,
    ) -> State:
        """The steps until the one that takes selected events out."""
        from tests.support.corrected_model import holding

        if any(one.kind == "corrections" for one in assumed):
            corrections_until = 0
        log = holding(self.log, as_of if corrections_until is None else corrections_until)
        withdrawn = {one.number for one in assumed if one.kind == "without-batch"} | {one.batch for one in log}
        known = [one for one in self.arrivals if one.batch not in withdrawn]
        known = [one for one in known if as_of is None or one.recorded_at <= as_of]
        known.sort(key=lambda one: one.order)
        events: dict[tuple[object, ...], list[Arrival]] = {}
        for one in known:
            events.setdefault(one.sent.identity, []).append(one)
        counting = {identity: found[:1] for identity, found in events.items()}
        for identity in counting.keys() & self.winners.keys():
            winner = self.winner(identity, as_of if corrected is None else corrected)
            counting[identity] = [one for one in events[identity] if one is winner]
        times = {one.number: one.sent.at for one in self.arrivals}
        for entry in log:
            times |= {number: at for number, at in entry.times.items() if number in times}
        chosen = {identity: one for entry in log for identity, one in entry.chosen.items()}
        counting |= {identity: [one] for identity, one in chosen.items() if one.batch not in withdrawn}
        out = set[tuple[object, ...]]().union(*(entry.out for entry in log))
        recorded_out = frozenset(out)
        for step in assumed:
            if step.kind == "duplicates":
                counting = {identity: list(found) for identity, found in events.items()}
            elif step.kind == "delivery":
                place = self.arrivals[step.number]
                counting[place.sent.identity] = [place]
            elif step.kind == "conflicts":
                for identity, found in events.items():
                    contents = {each.sent.content for each in self.of_event(identity)}
                    hit = any(step.chosen.hits(each, times[each.number]) for each in counting[identity])
                    if len(contents) > 1 and hit:
                        counting[identity] = [found[0 if step.word == "first" else -1]]
        for step in assumed:
            if step.kind == "without":
                out.add(self.arrivals[step.number].sent.identity)
        return State(events, counting, out, recorded_out, times)


def _moved(one: Arrival, at: int, assumed: Sequence[Assumed]) -> int:
    """Return when an assumption says that a delivery happened which is known to have happened at that time."""
    moved = at
    for each in assumed:
        if each.kind in ("shift", "zone") and each.chosen.hits(one, at):
            moved = moved_by(each, at)
    return moved


def moved_by(assumed: Assumed, at: int) -> int:
    """Return where an assumption moves a time."""
    if assumed.kind == "shift":
        return at + SHIFTS[assumed.word]
    local = datetime(2026, 3, 28, tzinfo=ZoneInfo(assumed.word)) + timedelta(seconds=at)
    return int((local.astimezone(UTC) - datetime(2026, 3, 28, tzinfo=UTC)).total_seconds())


def definition(formula: str, name: str = "m") -> Definition:
    return Definition(name=name, value=formula)


def written(
    model: Model, assumed: Sequence[Assumed], as_of: int | None, ids: Sequence[str], directory: Path
) -> tuple[list[Assumed], list[str]]:
    """Return those assumptions that this store allows, their numbers within what it has, and how they are typed."""
    arrivals, kept = model.arrivals, list[Assumed]()
    for one in assumed:
        limit = len(ids) if one.kind == "without-batch" else len(arrivals)
        chosen = one.chosen if one.chosen.batch is None else replace(one.chosen, batch=one.chosen.batch % len(ids))
        kept.append(replace(one, number=one.number % limit, chosen=chosen))
    withdrawn = {one.number for one in kept if one.kind == "without-batch"}
    known = [one for one in arrivals if one.batch not in withdrawn and (as_of is None or one.recorded_at <= as_of)]
    identities = {one.sent.identity for one in known}
    kept = [one for one in kept if one.kind != "delivery" or arrivals[one.number] in known]
    kept = [one for one in kept if one.kind != "with" or {sent.identity for sent in one.events} - identities]
    return kept, [_typed(one, number, arrivals, ids, directory) for number, one in enumerate(kept)]


def _typed(one: Assumed, number: int, arrivals: Sequence[Arrival], ids: Sequence[str], directory: Path) -> str:
    file = directory / f"assumed-{number}"
    place = arrivals[one.number % len(arrivals)]
    selected = one.chosen.text(ids)
    if one.kind == "with":
        file.write_text("".join(json.dumps(sent.line) + "\n" for sent in one.events))
    elif one.kind == "definition":
        file = file.with_suffix(".toml")
        file.write_text(f'name = "m"\nvalue = "{one.word}"\n')
    return {
        "without": f"without={place.sent.event_id}",
        "without-selected": f"without=selected,{selected}",
        "without-batch": f"without-batch={ids[one.number % len(ids)]}",
        "with": f"with=@{file}",
        "delivery": f"delivery={place.sent.event_id}:{ids[place.batch]}/{place.seq}",
        "conflicts": f"conflicts={one.word}" + (f",{selected}" if selected else ""),
        "shift": f"shift={one.word},{selected}",
        "zone": f"zone={one.word},{selected}",
        "duplicates": "duplicates=counted",
        "corrections": "corrections=none",
        "definition": f"definition=@{file}",
    }[one.kind]
