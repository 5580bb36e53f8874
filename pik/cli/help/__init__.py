"""Typer's help and usage errors in our words."""
