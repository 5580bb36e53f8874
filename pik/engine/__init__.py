"""The engine: DuckDB evaluates metric definitions over raw. Importing this is cheap; the first call imports DuckDB."""

from __future__ import annotations

from pik.engine.duck import DuckEngine

__all__ = ["DuckEngine"]
