"""The error about an id of another kind than the command takes: what it names, and the command for that."""

from __future__ import annotations

from contextlib import suppress

from pik.errors import PikError, command
from pik.ports.store import Store
from pik.usecases.other_ids import other_kind

_SHOWN = {
    "batch": ("batches",),
    "run": ("runs", "show"),
    "correction": ("corrections", "show"),
    "republish": ("republish", "show"),
    "dead letter": ("dlq", "show"),
    "event": ("show",),
}
"""The command that shows one of the kind."""

_VERBS = {
    ("rollback", "correction"): ("corrections", "revoke"),
    ("rollback", "republish"): ("republish", "cancel"),
    ("revoke", "run"): ("rollback",),
    ("cancel", "run"): ("runs", "cancel"),
    ("cancel", "republish"): ("republish", "cancel"),
    ("cancel", "correction"): ("corrections", "revoke"),
    ("resume", "run"): ("runs", "resume"),
    ("resume", "republish"): ("republish", "resume"),
    ("resume", "dead letter"): ("dlq", "redrive"),
    ("redrive", "run"): ("runs", "resume"),
}
"""The command that does to one of the kind what the last word of another command does to its own."""


def say_other_kind(error: PikError, store: Store, command_path: str) -> None:
    """Change an error about an id that was not found, if the store has something else of that id. Whatever fails on the
    way leaves it as it is."""
    assert error.sought is not None
    sought, typed = error.sought
    with suppress(PikError):
        found = other_kind(store, typed, sought)
        if found is not None:
            kind, typed = found
            error.message = f"{typed} is the id of {_article(kind)}, not of {_article(sought)}"
            error.hint = _hint(command_path.split()[-1], kind, typed)


def _hint(verb: str, kind: str, one: str) -> str:
    if kind == "batch" and verb in ("rollback", "revoke", "cancel"):
        without = command("correct", "--assume", f"without-batch={one}", "--reason", "REASON", "--dry-run")
        return f"what a correction that takes a batch out would do: {without}"
    return command(*_VERBS.get((verb, kind), _SHOWN[kind]), one)


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "event" else f"a {kind}"
