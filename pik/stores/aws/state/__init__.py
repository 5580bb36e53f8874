"""The state table: metric definitions, runs and aggregate versions."""
