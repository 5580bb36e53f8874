"""Copying a window of a store into another store."""
