"""The group of things.py as a module of its own."""

from tests.cli.things import group as commands

__all__ = ["commands"]
