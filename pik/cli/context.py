"""The settings, store and output of one command.

Alone in the command line it knows the adapters, and imports each when it is used.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pik import config
from pik.cli.buckets import show_buckets_of
from pik.cli.colour import When, use_colours
from pik.config import Format, Settings
from pik.model.cluster import JOBS, application, expect_no_place

if TYPE_CHECKING:
    from pik.cli.document import Schema
    from pik.errors import PikError
    from pik.model.zone import Zone
    from pik.ports.engine import Engine
    from pik.ports.exporter import Exporter, Layout
    from pik.ports.fleet import Fleet
    from pik.ports.remote import Api, Foreign, StackHealth
    from pik.ports.report import Renderer
    from pik.ports.store import Store
    from pik.ports.target import Target
    from pik.runtime import Progress


_UNPAGED = frozenset(
    {
        *("apply", "cancel", "correct", "demo", "export", "import", "ingest", "init", "pack", "promote", "pull"),
        *("purge", "redrive", "reinstate", "replay", "republish", "restore", "resume", "retire", "revoke", "rollback"),
        "wait",
    }
)
"""Last words of the commands that change something: what they did stays on the terminal, after their questions and
progress."""


class Checked(Exception):
    """A command line is right as far as that shows before the store is opened."""


class Context:
    """One command's settings, its store and engine, and its output."""

    def __init__(self, store: str | None = None) -> None:
        self.store_option = store
        self._format: str | None = None
        self._display_timezone: str | None = None
        self._quiet = False
        self._color: When | None = None
        self.paged = True
        self.command_path = ""
        """The command, such as `pik runs list`."""
        self.actor_option: str | None = None
        self._actor: str | None = None
        self._opened = ExitStack()
        self._store: Store | None = None
        self.line: Sequence[str] = ()
        """The words of the command line, after `pik`."""
        self._checking = False
        self.typed: dict[str, list[str]] = {}
        """The words of the command line by the parameter of the command, options before arguments."""
        self.parameters: frozenset[str] = frozenset()
        """The parameters that the command has."""

    def choose(
        self,
        *,
        store: str | None,
        format: str | None,  # noqa: A002 - the option's name
        display_timezone: str | None,
        quiet: bool,
        actor: str | None,
        color: When | None,
        no_pager: bool,
    ) -> None:
        """Take the global options of one part of the line; what stands further right wins."""
        self.store_option = store or self.store_option
        self._format = format or self._format
        self._display_timezone = self._display_timezone if display_timezone is None else display_timezone
        self._quiet = quiet or self._quiet
        self._color = color or self._color
        self.paged = self.paged and not no_pager
        use_colours(self._color or When.AUTO)
        self.actor_option = self.actor_option if actor is None else actor

    @cached_property
    def settings(self) -> Settings:
        """Option, else environment, else pik.toml, else default."""
        return config.settings(
            store=self.store_option,
            format=self._format,
            display_timezone=self._display_timezone,
            quiet=self._quiet,
            actor=self.actor_option,
        )

    @property
    def display_zone(self) -> Zone | None:
        """The zone of the times that this command shows: UTC (None) in formats that programs read."""
        return self.settings.display_zone if self.settings.format in (Format.TABLE, Format.MD) else None

    def actor(self, store: Store) -> str:
        """Return who is recorded with what this command changes in the store: the actor that is given, else the caller
        as the store knows it, else the user and the host."""
        if self._actor is None:
            self._actor = config.actor_of(self.settings, store, self.note)
        return self._actor

    @property
    def default_limit(self) -> int | None:
        """The number of rows that a listing without --limit shows: 50 to a person on a terminal, else all."""
        on_terminal = self.settings.format == Format.TABLE and sys.stdout is not None and sys.stdout.isatty()
        return 50 if on_terminal else None

    def show(self, schema: Schema, source: Any = None, /, **given: Any) -> None:
        """Write a result to standard output, in the format asked for; `source` and `given` as in `Schema.document`."""
        from pik.cli.output import Output

        Output(self.settings.format, self.close, self.advice, self._pager()).show(schema.document(source, **given))

    def _pager(self) -> str | None:
        """Return the pager for a result of this command, if it may have one."""
        if (
            not self.paged
            or self.command_path.split(" ")[-1] in _UNPAGED
            or sys.stdout is None
            or not sys.stdout.isatty()
        ):
            return None
        from pik.cli.pager import pager_command

        return pager_command()

    def note(self, text: str) -> None:
        """Write a note on standard error; --quiet silences it."""
        from pik.cli.text import note

        if not self.settings.quiet and not self._checking:
            note(self.advice(text))

    def advice(self, text: str) -> str:
        """Return the text, the commands in it with the --store of this command line, so that they can be pasted. The
        hint of a reader is in the words of this command."""
        from pik.cli.app import COMMANDS
        from pik.cli.rereading import reading_command
        from pik.inputs.advice import Advice

        if isinstance(text, Advice) and self.command_path:
            text = text.by(reading_command(self))
        return with_store(text, self.store_option, COMMANDS)

    def look_for_other_kinds(self, error: PikError) -> None:
        """Say in an error about an id that was not found that it is the id of something else, if it is."""
        if error.sought is not None and self._store is not None:
            from pik.cli.other_ids import say_other_kind

            say_other_kind(error, self._store, self.command_path)

    def same_command(self, name: str, without: Collection[str]) -> str:
        """Return the command as it was typed, without these parameters, and without the format."""
        from pik.errors import command

        left_out = {"store", "format", "quiet", "color", "no_pager", *without}
        return command(name, *(word for param, words in self.typed.items() if param not in left_out for word in words))

    @cached_property
    def progress(self) -> Progress:
        """Shows how far long work is; --quiet silences it."""
        from pik.cli.progress import progress

        return progress(quiet=self.settings.quiet)

    def recent(self, store: Store, kind: str, text: str) -> str:
        """Return the id that a word such as `latest` or `-2` stands for, and say it in a note; any other text as it is.
        `kind` is one of `Recent`. Raises NotFound."""
        from pik.model.ids import is_recent
        from pik.usecases.recent import Recent, find_recent

        if not is_recent(text):
            return text
        found = find_recent(store, Recent(kind), text)
        self.note(f"{text} is {kind} {found}")
        return found

    def close(self) -> None:
        """Leave a clean terminal: for what a command writes to it, and however it ended."""
        if "progress" in vars(self):
            self.progress.stop()

    def end(self) -> None:
        """Leave the terminal clean, and remove what bundles were opened in."""
        self.close()
        self._opened.close()

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Meanwhile, a command raises Checked where it would open the store, and prints no notes before."""
        self._checking = True
        try:
            yield
        finally:
            self._checking = False

    def open_store(self, url: str | None = None, *, create: bool = False) -> Store:
        """Open the store of the settings, or of this URL or path. Raises NotFound, with a hint, when it is absent.

        With `create`, to write to it: it is created if it is absent, and what killed writers left unfinished is
        removed. A file is opened as an evidence bundle, which takes nothing.
        """
        from pik.errors import NotFound
        from pik.stores import open_store

        if self._checking:
            raise Checked
        url = url or self.settings.store
        path = Path(url).expanduser()
        is_bundle = "://" not in url and path.is_file()
        try:
            store = self._open_bundle(path) if is_bundle else open_store(url, create=create, waiting=self.note)
        except NotFound as error:
            error.hint = self._near_stores(url) or error.hint
            raise
        show_buckets_of(store.metrics)
        self._store = store
        return store

    def _open_bundle(self, path: Path) -> Store:
        """Open a bundle in a private directory, which is removed when the command ends."""
        from pik.errors import Damaged, InputError, StoreError, command
        from pik.runtime.storage import scratch
        from pik.usecases.bundle.opening import open_bundle
        from pik.usecases.own_files import NothingOfOurs, OwnFile, kind_of

        directory = self._opened.enter_context(scratch())
        try:
            opened = open_bundle(path, directory / "store", self.make_copy, self.progress)
        except NothingOfOurs as error:
            raise StoreError(error.message, hint="a store is a directory: --store DIR, or else such a bundle") from None
        except InputError as error:
            is_backup = kind_of(path) is OwnFile.BACKUP
            hint = "the state of a store is restored from a backup: pik restore --help" if is_backup else error.hint
            raise StoreError(error.message, hint=hint) from None
        except Damaged as error:
            raise Damaged(error.message, hint=f"what is damaged: {command('verify', str(path))}") from None
        return self.sealed(opened.store, os.path.abspath(path))

    def sealed(self, store: Store, url: str) -> Store:
        """Return the store under that name, without what writes to it."""
        from pik.stores.sealed import sealed

        return sealed(store, url)

    def make_copy(self, source: str, directory: Path) -> Store:
        """Return an empty copy of the store of that name, in a new directory."""
        from pik.stores.local import open_copy

        return open_copy(directory, source)

    def _near_stores(self, place: str) -> str:
        """Return the hint for a directory without a store where another one may have been meant."""
        from pik.errors import command

        near = [] if "://" in place else config.near_stores(place, self.settings.stores)
        meant = " or ".join(f"--store {shlex.quote(one)}" for one in near)
        return f"did you mean {meant}? To create an empty one: {command('init', '--store', place)}" if near else ""

    def open_api(self) -> Api:
        """Return the HTTP API of the settings' store. Raises UsageError for a local one."""
        from pik.stores import open_api

        return open_api(self.settings.store)

    def stack_health(self) -> StackHealth:
        """Return the health of the deployed stack of the settings. Raises UsageError for a local store."""
        from pik.stores import open_health

        return open_health(self.settings.store)

    def foreign(self) -> Foreign:
        """Files in S3, read with the credentials of the store."""
        from pik.stores import open_foreign

        return open_foreign(self.settings.store)

    def open_copy(self, source: Store, path: str, *, create: bool) -> Store:
        """Return the copy of a store in this directory. Raises NotFound when it is absent and `create` is false."""
        from pik.stores import open_copy

        return open_copy(path, source, create=create)

    def engine(self) -> Engine:
        """Return the engine that computes metrics."""
        from pik.engine import DuckEngine

        return DuckEngine()

    def fleet(self, location: str, store: Store) -> Fleet:
        """Open the fleet at a location, until the command ends. Raises UsageError for an unknown one, StoreError where
        it cannot be used."""
        from pik.engine import DuckEngine
        from pik.fleets import open_fleet
        from pik.ports.fleet import LOCAL

        engine = self.engine() if location == LOCAL else DuckEngine(threads=1)  # one processor for each task
        if location != LOCAL and sys.stderr.isatty():  # who looks on would see nothing for a quarter of a minute
            self.note(f"starting a session of Spark on {location} …")
        return self._opened.enter_context(open_fleet(location, store, engine, self.settings.cluster, self.note))

    def expect_fleet(self, location: str) -> None:
        """Raise UsageError where no fleet can be opened at a location, whatever answers there."""
        from pik.fleets import expect_usable

        if not self.is_job(location):
            expect_usable(location, self.settings.cluster)

    def is_job(self, location: str) -> bool:
        """Return whether a command at this location is a job that this process submits, and not that job itself."""
        if not location.startswith(JOBS):
            return False
        from pik.fleets import within_job

        return not within_job()

    def run_job(
        self, location: str, files: Sequence[str], error: Callable[[bytes], None], output: Callable[[Path], None]
    ) -> int:
        """Run this command line, which names these files, as a job at a location, and return its exit code; `error` and
        `output` take what it writes. Raises as `pik.stores.aws.emr.run_job`."""
        from pik.cli.options import now
        from pik.fleets import versions
        from pik.stores.aws import emr

        expect_no_place(self.settings.cluster, location)
        emr.expect_archive(self.settings.cluster)
        settings, where, url = self.settings, application(location), emr.portable_url(self.settings.store)
        environment = {"PIK_ACTOR": self.actor(self.open_store())}
        request = emr.Request(
            title=self.command_path,
            arguments=list(self.line),
            settings=config.portable(settings, url, self.store_option),
            environment=environment | {name: os.environ[name] for name in ("PIK_DEBUG",) if name in os.environ},
            now=now(),
            versions=versions(),
            files=list(files),
        )
        console = emr.Console(self.note, error, output)
        return emr.run_job(settings.store, where, settings.cluster, request, console)

    def target(self, url: str, *, taken: int | None = None) -> Target:
        """Return the target that events are sent to, which took so many in earlier attempts (None: there was none)."""
        from pik.targets import target_of

        return target_of(url, taken=taken)

    def made_once(self, of: object, make: Callable[[], Any]) -> Any:  # noqa: ARG002 - as in Recorder
        """Return what `make` does."""
        return make()

    def html_report(self) -> Renderer:
        """Return what draws a report as one HTML file. Raises UsageError where it is not installed."""
        from pik.reports import html_renderer

        return html_renderer()

    def exporters(self) -> Callable[[Layout], Exporter]:
        """Return what makes the exporter of a layout, here and on the machines of a fleet."""
        from pik.exporters import exporter

        return exporter


def with_store(text: str, store: str | None, names: Iterable[str]) -> str:
    """Return the text with `--store STORE` in each command of pik that it suggests, unless that names a store itself.

    `names` are pik's commands. Without a `store` the text is as it was: PIK_STORE, pik.toml and the default hold
    for what is pasted, too. Quoted words are data, whatever is in them, and help is the same for every store.
    """
    if store is None:
        return text
    return _suggestion(tuple(names)).sub(
        lambda found: f"pik --store {shlex.quote(store)} " if found["pik"] else found[0], text
    )


@cache
def _suggestion(names: tuple[str, ...]) -> re.Pattern[str]:
    quoted = r"""(?<![^\s(=])(?:'[^']*'|"[^"]*")+"""
    another = r"(?:(?!\bpik ).)*?"
    own = rf"(?!{another}--store\b)(?!\w+(?: \w+)* --help\b)"
    return re.compile(rf"{quoted}|(?P<pik>(?<![\w./])pik )(?=(?:{'|'.join(names)})\b){own}", re.DOTALL)
