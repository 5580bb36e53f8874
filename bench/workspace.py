"""The inputs and stores that the cases share, each made when the first case asks for it."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path

from bench.documents import write_document
from bench.gen_events import Summary, generate
from bench.measure import run
from bench.tables import write_table

DEFAULT_ROWS = 1_000_000
# An exact sum beside the built-in event_count.
METRIC = """\
name = "value_sum"
description = "the exact sum of payload.value"
value = "sum((payload->>'$.value')::DECIMAL(18,6))"
bucket = "1d"
"""
# One of three beside the built-in event_count.
ONE_OF_FOUR = """\
[[metric]]
name = "{name}"
value = "{name}((payload->>'$.n')::DECIMAL(18,2))"
"""

# One value for each day, of all events together.
OVER_ALL = """\
name = "all_events"
value = "count(*)"
per = "all"
"""

_EVENT = '{"source":"s","event_type":"t","entity_id":"e%d","event_time":"%sT12:00:00Z","payload":{"n":%d}}\n'


class Workspace:
    """A directory: inputs stay from run to run, stores and outputs are made anew."""

    def __init__(self, root: Path, rows: int, pik: Sequence[str], say: Callable[[str], None]) -> None:
        self.rows = rows
        self._pik = tuple(pik)
        self._say = say
        self._inputs = root / "inputs"
        self._scratch = root / "scratch"
        self._made: dict[str, Path] = {}
        self.clean()
        self._inputs.mkdir(parents=True, exist_ok=True)

    def clean(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def events(self, lines: int | None = None, *, seed: int = 7, one_day: bool = False, exact: bool = False) -> Path:
        lines = lines or self.rows
        path = self._inputs / f"events-{lines}-{seed}{'-day' * one_day}{'-exact' * exact}.jsonl"
        summary = path.with_suffix(".json")  # is written last, so that an interrupted input is made again
        plain = lines == self.rows and seed == 7 and not (one_day or exact)
        ids = _ids(path) if plain else None
        if not summary.exists() or (ids and not ids.exists()):
            self._say(f"making {path.name} ...")
            summary.unlink(missing_ok=True)
            made = generate(lines, path, ids=ids, seed=seed, one_day=one_day, exact=exact)
            summary.write_text(json.dumps(asdict(made)))
        return path

    def table(self, ending: str) -> Path:
        """The plain input as rows of a table, with a number that no two share, as jsonl, csv or parquet."""
        path = self._inputs / f"table-{self.rows}.{ending}"
        if not path.exists():
            self._say(f"making {path.name} ...")
            made = path.with_suffix(".part")
            write_table(self.events(), made, ending)
            made.rename(path)
        return path

    def records(self, number: int, *, as_lines: bool) -> Path:
        """So many records of CloudTrail, as JSON lines or in one document."""
        path = self._inputs / f"cloudtrail-{number}.{'jsonl' if as_lines else 'json'}"
        if not path.exists():
            self._say(f"making {path.name} ...")
            made = path.with_suffix(".part")
            write_document(number, made, as_lines=as_lines)
            made.rename(path)
        return path

    def days(self, number: int) -> Path:
        """A file of one event a day, on so many days."""
        path = self._inputs / f"days-{number}.jsonl"
        first = date(1980, 1, 1)
        lines = (_EVENT % (number, first + timedelta(days=number), number) for number in range(number))
        path.write_text("".join(lines))
        return path

    def entities(self, number: int) -> Path:
        """A file of one event of each of so many entities, all on one day."""
        path = self._inputs / f"entities-{number}.jsonl"
        with path.open("w") as file:
            file.writelines(_EVENT % (line, date(2026, 1, 1), line) for line in range(number))
        return path

    def tiny(self, number: int, lines: int = 3) -> Path:
        """A directory of so many files, with so many events each."""
        directory = self._inputs / f"tiny-{number}-{lines}"
        directory.mkdir(exist_ok=True)
        for name in range(number):
            events = (_EVENT % (line, date(2026, 1, 1 + name % 28), lines * name + line) for line in range(lines))
            (directory / f"{name:05}.jsonl").write_text("".join(events))
        return directory

    def joined(self, directory: Path) -> Path:
        """All files of a directory in one."""
        path = directory.with_suffix(".jsonl")
        with path.open("wb") as file:
            for part in sorted(directory.iterdir()):
                file.write(part.read_bytes())
        return path

    def events_with_id(self) -> Path:
        """The plain input with an id in front of each line, for peers that cannot compute one."""
        return _ids(self.events())

    def summary(self, events: Path) -> Summary:
        return Summary(**json.loads(events.with_suffix(".json").read_text()))

    def pik(self, *args: str | Path, store: Path | None = None) -> tuple[str, ...]:
        """The command line of a pik command."""
        return (*self._pik, *(("--store", str(store)) if store else ()), *map(str, args))

    def path(self, name: str) -> Path:
        """Where an output of this name goes."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        return self._scratch / name

    def new_store(self, store: Path) -> None:
        """Create an empty store, in the place of what is there."""
        remove(store)
        self._run("init", store=store)

    def ingested(self, *, exact: bool = False) -> Path:
        """A store with all events and the metric, without any aggregate."""

        def fill(store: Path) -> None:
            definition = self.path("value_sum.toml")
            definition.write_text(METRIC)
            self._run("ingest", self.events(exact=exact), store=store)
            self._run("metrics", "apply", definition, store=store)

        return self._store("ingested" + "-exact" * exact, fill)

    def only_ingested(self, lines: int) -> Path:
        """A store with the events of a file of so many lines, and nothing else."""

        def fill(store: Path) -> None:
            self._run("ingest", self.events(lines), store=store)

        return self._store(f"only-ingested-{lines}", fill)

    def aggregated(self, *, exact: bool = False) -> Path:
        """The same with all aggregates computed and current."""

        def fill(store: Path) -> None:
            copy(self.ingested(exact=exact), store)
            self._run("replay", "--all", "--promote", "--yes", "--reason", "bench", store=store)

        return self._store("aggregated" + "-exact" * exact, fill)

    def late(self) -> Path:
        """The same after a hundredth as many events of another seed have come."""

        def fill(store: Path) -> None:
            copy(self.aggregated(), store)
            self._run("ingest", self.events(self.rows // 100, seed=8), store=store)

        return self._store("late", fill)

    def differing(self) -> Path:
        """The store with all aggregates current after one late event came on each of 30 days, so that one value of each
        bucket differs."""

        def fill(store: Path) -> None:
            copy(self.aggregated(), store)
            late = self.path("one-a-day.jsonl")
            days = (date(2026, 1, 1) + timedelta(days=number) for number in range(30))
            late.write_text("".join(_EVENT.replace('"n"', '"value"') % (0, day, 1) for day in days))
            self._run("ingest", late, store=store)

        return self._store("differing", fill)

    def corrected(self, assumption: str, name: str) -> Path:
        """The store with all aggregates current after a correction was recorded."""

        def fill(store: Path) -> None:
            copy(self.aggregated(), store)
            self._run("correct", "--assume", assumption, "--reason", "bench", "--yes", store=store)

        return self._store(name, fill)

    def differing_like(self, name: str) -> Path:
        """The store with all aggregates current after one late event came for each count that differs in that one."""

        def fill(store: Path) -> None:
            copy(self.aggregated(), store)
            argv = self.pik(
                "diff", "aggregates", "--metric", "event_count", "--format", "jsonl", store=self._made[name]
            )
            rows = map(json.loads, run(argv, sample=False, codes=(0, 1)).stdout.splitlines())
            late = self.path("late.jsonl")
            with late.open("w") as file:
                for row in rows:
                    if "bucket" in row:
                        event = {"source": "s", "event_type": "t", "entity_id": row["entity_id"]}
                        event |= {"event_time": row["bucket"], "payload": {"value": 1}}
                        file.write(json.dumps(event) + "\n")
            self._run("ingest", late, store=store)

        return self._store(f"differing-like-{name}", fill)

    def one_bucket(self) -> Path:
        """A store with all events on one day, whose count over all entities is current, after late events came."""

        def fill(store: Path) -> None:
            definition = self.path("all_events.toml")
            definition.write_text(OVER_ALL)
            self._run("ingest", self.events(one_day=True), store=store)
            self._run("metrics", "apply", definition, store=store)
            self._run("replay", "--all", "--metric", "all_events", "--promote", "--yes", "--reason", "b", store=store)
            self._run("ingest", self.events(self.rows // 100, seed=8, one_day=True), store=store)

        return self._store("one-bucket", fill)

    def many_entities(self, number: int) -> Path:
        """A store with one event of each of so many entities, and four metrics whose aggregates are all current."""

        def fill(store: Path) -> None:
            definitions = self.path("four.toml")
            definitions.write_text("".join(ONE_OF_FOUR.format(name=name) for name in ("sum", "max", "min")))
            self._run("ingest", self.entities(number), store=store)
            self._run("metrics", "apply", definitions, store=store)
            self._run("replay", "--all", "--promote", "--yes", "--reason", "bench", store=store)

        return self._store(f"entities-{number}", fill)

    def grown(self, files: int) -> Path:
        """A store with that many files ingested, one after another; file number N has the seed 100 + N."""

        def fill(store: Path) -> None:
            for number in range(1, files + 1):
                self._run("ingest", self.events(seed=100 + number), store=store)

        return self._store(f"grown-{files}", fill)

    def _store(self, name: str, fill: Callable[[Path], None]) -> Path:
        if name not in self._made:
            store = self.path(name)
            self._say(f"making the store {name} ...")
            self.new_store(store)
            fill(store)
            self._made[name] = store
        return self._made[name]

    def _run(self, *args: str | Path, store: Path) -> None:
        run(self.pik(*args, store=store), sample=False)


def _ids(events: Path) -> Path:
    return events.with_name(f"{events.stem}-ids.jsonl")


def remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    remove(target)
    shutil.copytree(source, target)
