"""Run commands on a store that is open already, and keep what they write as files: the documents of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pik.cli.buckets import show_buckets_of
from pik.cli.context import Context
from pik.config import Format
from pik.errors import PikError, StoreError, command

if TYPE_CHECKING:
    from pik.cli.document import Schema
    from pik.ports.store import Store
    from pik.usecases.bundle.contents import BundleRequest, Document

_ACTOR = "pik"
"""Who plans what no one carries out."""

_OF_A_RUN = "run_id"
"""The field that is another one each time: of the run that a dry run does not make."""


class Recorder(Context):
    """A command's context that has its store, which cannot change, and writes its result as JSON. `made` is what it
    shares with the commands on this store before and after it."""

    def __init__(self, outer: Context, store: Store, made: dict[object, Any]) -> None:
        super().__init__()
        self.store, self.made = store, made
        self.settings = replace(outer.settings, format=Format.JSON, display_zone=None, quiet=True, actor=_ACTOR)
        self.progress = outer.progress

    def open_store(self, url: str | None = None, *, create: bool = False) -> Store:  # noqa: ARG002 - as in Context
        """Return the store that it was made for."""
        show_buckets_of(self.store.metrics)
        return self.store

    def made_once(self, of: object, make: Callable[[], Any]) -> Any:
        """Return what this command, or one before it, made of that: the report, which is written twice."""
        if of not in self.made:
            self.made[of] = make()
        return self.made[of]

    def show(self, schema: Schema, source: Any = None, /, **given: Any) -> None:
        """Write the result, without what is another one each time."""
        super().show(schema.without(_OF_A_RUN), source, **given)

    def close(self) -> None:
        """Leave the progress to the command that this one is a part of."""


PAGE = "documents/report.html"


def document_commands(request: BundleRequest) -> dict[str, list[str]]:
    """Return the commands whose results a bundle holds, by the name of the member."""
    window = ["--from", request.window.from_text or "", "--to", request.window.to_text or ""]
    entities = [f"--entity={one}" for one in request.entities]
    metrics = [f"--metric={one}" for one in request.metrics]
    scope = [*window, *entities, *metrics]
    return {
        "triage": ["triage", *window, *entities],
        "diff": ["diff", "aggregates", *scope, "--stats"],
        "explanation": ["diff", "aggregates", *scope, "--explain"],
        "plan": ["replay", "--dry-run", *([] if entities else ["--all"]), *scope],
        "duplicates": ["duplicates", *window, *entities],
        "lag": ["lag", *window, *entities],
        "history": ["history"],
        "verify": ["verify"],
        "report": ["report", "--incident", request.incident, *scope, "--out", "-", "--as", "json"],
    }


def write_page(
    cli: Context, store: Store, request: BundleRequest, root: Path, made: dict[object, Any]
) -> list[Document]:
    """Write the report as a page for people, made of the same as its document; none, where the charts' libraries are
    not there."""
    words = [*document_commands(request)["report"][:-1], "html"]
    try:
        return [_run(cli, store, root, PAGE, words, made)]
    except PikError as error:
        (root / PAGE).unlink(missing_ok=True)
        cli.note(f"the bundle has no {PAGE}: {error.message}; {error.hint}")
        return []


def write_documents(
    cli: Context, store: Store, request: BundleRequest, root: Path, *, with_page: bool = False
) -> list[Document]:
    """Run the commands on the store, and write what each says below `root`; with the page for people, too."""
    from pik.usecases.bundle.contents import DOCUMENTS, Document

    documents, made = [], dict[object, Any]()
    for name, words in document_commands(request).items():
        member = f"{DOCUMENTS}{name}.json"
        try:
            documents.append(_run(cli, store, root, member, words, made))
        except PikError as error:
            if type(error) is StoreError:  # of this machine, as a full disk is: it says nothing about the bundle
                raise
            said = msgspec.json.encode({"error": error.message, "hint": error.hint or None})
            (root / member).write_bytes(said + b"\n")
            documents.append(Document(name=member, command=command(*words), exit_code=error.exit_code))
    return [*documents, *(write_page(cli, store, request, root, made) if with_page else ())]


def _run(cli: Context, store: Store, root: Path, member: str, words: list[str], made: dict[object, Any]) -> Document:
    """Write what one command says. Raises PikError."""
    from pik.cli.app import run_in
    from pik.usecases.bundle.contents import Document

    path = root / member
    path.parent.mkdir(parents=True, exist_ok=True)
    incident = store.copy.source if store.copy else ""
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file, redirect_stdout(file):
        code = run_in(Recorder(cli, cli.sealed(store, incident), made), words)
    return Document(name=member, command=command(*words), exit_code=code)
