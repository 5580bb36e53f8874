"""Knowing the numbers: definitions, current values, computing from raw, comparing."""
