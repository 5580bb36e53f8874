"""What `import pik` offers: the use cases of the command line as methods, their results as rows and frames."""

from __future__ import annotations

from pik.api.explanation import Explanation, NotRead
from pik.api.inspect import Lag
from pik.api.numbers import Diff
from pik.api.opened import PikWarning
from pik.api.repair import Promotion, Replay, Run
from pik.api.results import Result
from pik.api.rows import Aggregate, Cause, CauseEvent, Delivery, Difference, Event, Ingested, LagBar, LagGroup
from pik.api.store import Store
from pik.api.store import open_ as open  # noqa: A004 - pik.open, as gzip.open
from pik.api.times import Instant

__all__ = [
    "Aggregate",
    "Cause",
    "CauseEvent",
    "Delivery",
    "Diff",
    "Difference",
    "Event",
    "Explanation",
    "Ingested",
    "Instant",
    "Lag",
    "LagBar",
    "LagGroup",
    "NotRead",
    "PikWarning",
    "Promotion",
    "Replay",
    "Result",
    "Run",
    "Store",
    "open",
]
