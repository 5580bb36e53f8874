"""pik, the Pipeline Investigation Kit: find out what arrived, what the numbers should be, and repair them.

    with pik.open("./store") as store:
        for row in store.diff(since="7d"):
            print(row.metric, row.entity_id, row.bucket, row.delta)

docs/python.md describes what is in here; everything else is subject to change.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from pik.api import Aggregate as Aggregate
    from pik.api import Cause as Cause
    from pik.api import CauseEvent as CauseEvent
    from pik.api import Delivery as Delivery
    from pik.api import Diff as Diff
    from pik.api import Difference as Difference
    from pik.api import Event as Event
    from pik.api import Explanation as Explanation
    from pik.api import Ingested as Ingested
    from pik.api import Instant as Instant
    from pik.api import Lag as Lag
    from pik.api import LagBar as LagBar
    from pik.api import LagGroup as LagGroup
    from pik.api import NotRead as NotRead
    from pik.api import PikWarning as PikWarning
    from pik.api import Promotion as Promotion
    from pik.api import Replay as Replay
    from pik.api import Result as Result
    from pik.api import Run as Run
    from pik.api import Store as Store
    from pik.api import open as open  # noqa: A004 - pik.open, as gzip.open
    from pik.errors import AlreadyExists as AlreadyExists
    from pik.errors import Ambiguous as Ambiguous
    from pik.errors import BeingRebuilt as BeingRebuilt
    from pik.errors import Busy as Busy
    from pik.errors import ConflictFound as ConflictFound
    from pik.errors import Damaged as Damaged
    from pik.errors import EngineError as EngineError
    from pik.errors import InputError as InputError
    from pik.errors import Invalid as Invalid
    from pik.errors import NoAccess as NoAccess
    from pik.errors import NotFound as NotFound
    from pik.errors import NotHeld as NotHeld
    from pik.errors import NothingSelected as NothingSelected
    from pik.errors import PikError as PikError
    from pik.errors import StoreError as StoreError
    from pik.errors import Unreadable as Unreadable
    from pik.errors import UsageError as UsageError

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        (
            *("Aggregate", "Cause", "CauseEvent", "Delivery", "Diff", "Difference", "Event", "Explanation", "Ingested"),
            *("Instant", "Lag", "LagBar", "LagGroup", "NotRead", "PikWarning", "Promotion", "Replay", "Result", "Run"),
            *("Store", "open"),
        ),
        "pik.api",
    ),
    **dict.fromkeys(
        (
            *("AlreadyExists", "Ambiguous", "BeingRebuilt", "Busy", "ConflictFound", "Damaged", "EngineError"),
            *("InputError", "Invalid", "NoAccess", "NotFound", "NotHeld", "NothingSelected", "PikError"),
            *("StoreError", "Unreadable", "UsageError"),
        ),
        "pik.errors",
    ),
}


def __getattr__(name: str) -> object:
    """Return what the API offers under this name, imported now: `import pik` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pik' has no attribute {name!r}")
    return getattr(_import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
