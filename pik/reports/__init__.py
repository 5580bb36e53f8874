"""Adapters that draw a report as one file."""
