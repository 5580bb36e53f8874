"""What is set about clusters that functions run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Cluster:
    """`[cluster]` of pik.toml: how many tasks run at a time (None: what the cluster says that it can), the archive of
    `pik cluster pack` that executors run from (None: their Python has pik), and settings of Spark."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    parallelism: int | None = None
    archive: str | None = None
    spark: Mapping[str, str] = field(default_factory=dict)
