"""One value of a recorded side: its version, what that was computed from, and who made it current."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from pik.errors import NotFound
from pik.model.aggregate import Aggregate, Computed
from pik.model.instant import display_instant
from pik.model.metric import Metric
from pik.model.run import PromotionKind
from pik.model.window import Window
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.usecases.metrics.chain import Knowledge, knowledge_of, value_of
from pik.usecases.metrics.definitions import Scales, pinned
from pik.usecases.metrics.file_numbers import FileNumbers
from pik.usecases.metrics.sides import RecordedSide
from pik.usecases.metrics.winners import Winners


@dataclass(frozen=True, slots=True)
class SideValue:
    """What a side has recorded of one value: its version (of a file: its number), and what that was computed from
    (None: that is not known). `promotion` is the last one of the run that wrote it. `name` is how the side is named;
    `origin` is why its inputs are not known, or why there is no version. `proven` says whether the deliveries that it
    counted are exactly those that raw still holds of what it knew."""

    name: str
    version: Aggregate | None
    knowledge: Knowledge | None = None
    promotion: Promotion | None = None
    origin: str = ""
    proven: bool = False
    is_file: bool = False

    @property
    def computed(self) -> Computed | None:
        """The value as it was computed."""
        return None if self.version is None else self.version.computed

    @property
    def run_id(self) -> str:
        """The run that wrote the version; empty where none did."""
        return "" if self.version is None else self.version.run_id

    @property
    def is_outside(self) -> bool:
        """Whether the value came from outside: it was imported, or the side is a file, which may lack it."""
        return self.is_file or (self.version is not None and self.knowledge is None)

    @property
    def value(self) -> Decimal:
        """The value; 0 where there is none."""
        return value_of(self.computed)


def side_value(
    store: Store, winners: Winners, side: RecordedSide | FileNumbers, metric: Metric, bucket: int, entity: str
) -> SideValue:
    """Return what the side has of the metric's bucket (its start, nanoseconds) of an entity."""
    window = Window(bucket, bucket + 1)
    if isinstance(side, FileNumbers):
        numbers = side.current(metric.name, window)
        number = next((one for one in numbers if one.computed.entity_id == entity), None)
        origin = f"what {side.name} was computed from is not known"
        return SideValue(f"file:{side.name}", number, origin=origin, is_file=True)
    version = next(side.named(metric.name, window, (entity,)), None)
    if version is None:
        promotion, origin = _without(store, side, metric, window, entity)
        return SideValue(str(side), None, promotion=promotion, origin=origin)
    shown, promotion = Scales(store.metrics).shown(version), _promotion(store, version.run_id, side.at)
    if version.is_imported:
        return SideValue(str(side), shown, promotion=promotion, origin=_imported(store, version))
    made_by = pinned(store.metrics, f"{metric.name}@{version.metric_version}")
    return SideValue(str(side), shown, knowledge_of(version, made_by, side, winners), promotion)


def _promotion(store: Store, run_id: str, at: int | None) -> Promotion | None:
    """Return the last promotion of the run, until that time."""
    return next((one for one in _moves(store, run_id, at) if one.kind == PromotionKind.PROMOTE), None)


def _moves(store: Store, run_id: str, at: int | None) -> Iterator[Promotion]:
    for one in store.promotions.newest_first():
        if one.run_id == run_id and (at is None or one.at <= at):
            yield one


def _without(
    store: Store, side: RecordedSide, metric: Metric, window: Window, entity: str
) -> tuple[Promotion | None, str]:
    """Return why a side has no version, and the rollback to blame for it, if there is one."""
    if side.run is not None:
        return None, f"run {side.run.run_id} wrote no value of it"
    runs = [version.run_id for version in store.aggregates.versions(metric.name, window, (entity,))]
    at = "" if side.at is None else f" by {display_instant(side.at)}"
    if not runs:
        return None, "no run has computed it"
    moves = [move for run_id in runs for move in _moves(store, run_id, side.at)]
    last = max(moves, key=lambda one: one.at, default=None)
    if last is None:
        return None, f"run {runs[-1]} computed it, and was not promoted{at}"
    by = f" by {last.actor}" if last.actor else ""
    if last.kind == PromotionKind.ROLLBACK:
        return (
            last,
            f"run {last.run_id} was rolled back{by} at {display_instant(last.at)}, and nothing was current before",
        )
    return last, f"run {last.run_id} was promoted{by} at {display_instant(last.at)}, but not this value of it"


def _imported(store: Store, version: Aggregate) -> str:
    """Return which run imported the value, who asked for that, and from which file."""
    try:
        file = store.runs.get(version.run_id).request.file
    except NotFound:  # a copy has no runs
        file = None
    name = file.name if file else "a file"
    by = f" for {version.actor}" if version.actor else ""
    return f"run {version.run_id} imported it{by} from {name} (SHA-256 {version.file_digest})"
