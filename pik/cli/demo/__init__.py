"""The incident that `pik demo` plays, and its data."""
