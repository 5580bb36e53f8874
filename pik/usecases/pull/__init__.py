"""Copying a window of a store into a store of its own."""
