"""Computes metrics with DuckDB: one scan of raw, grouped by bucket and entity, for all metrics at once."""

from pik.engine.duck import DuckEngine

__all__ = ["DuckEngine"]
