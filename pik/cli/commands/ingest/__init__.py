"""Bring events in."""
