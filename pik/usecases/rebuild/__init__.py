"""Rebuilding the index from raw."""
