"""The program `pik`: what surrounds every command, from the first byte of output to the exit code."""

# Without `from __future__ import …`, which is an import as well: before anything else, Ctrl-C is given a sentence.
import sys

INTERRUPTED = 130
INTERRUPTION = "interrupted; run the same command again"


def _as_json(interruption: str) -> str:
    """As pik.cli.failure would write it, which takes too long to import to be interrupted in."""
    return f'{{"error":"{interruption}","hint":null,"kind":"interrupted","exit_code":{INTERRUPTED}}}'


def _uncaught(kind: type[BaseException], error: BaseException, traceback: "TracebackType | None") -> None:
    """What Python calls for an error that nothing catches: Ctrl-C while this program is still being imported."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    elif sys.stderr is not None:
        sys.stderr.write(f"{_as_json(INTERRUPTION) if '--format json' in ' '.join(sys.argv) else INTERRUPTION}\n")


sys.excepthook = _uncaught  # before the imports below, which take most of the time of a short command

import os  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
from types import TracebackType  # noqa: E402

from pik import __version__  # noqa: E402
from pik.errors import PikError, StoreError  # noqa: E402
from pik.runtime import handle, raise_soon  # noqa: E402

READER_LEFT = 141
"""What a shell reports of a program ended by SIGPIPE. Not 0: `pik diff … | head` must not look like "no difference"."""


def program() -> int:
    """Run `main`, and ignore signals after it: interrupting Python's own shutdown would only change the exit code."""
    sys.unraisablehook = raise_soon
    signal.signal(signal.SIGALRM, handle)
    code = main()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(ending, signal.SIG_IGN)
    if code == INTERRUPTED:
        # Where Ctrl-C met code that was made while importing (dataclasses do), Python would end by SIGINT instead.
        os._exit(code)
    return code


def main() -> int:
    """Run the command line in `sys.argv` and return the exit code (docs/exit-codes.md)."""
    _occupy_standard_descriptors()
    try:
        signal.signal(signal.SIGTERM, handle)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job ignores it
            signal.signal(signal.SIGINT, handle)
        code = _run(sys.argv[1:])
        _flush()
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last one to see it; nothing is swallowed
        try:
            code = _report(error)
        except KeyboardInterrupt:  # once more, while the first one is being reported
            code = INTERRUPTED
    return code


def _run(arguments: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that is not UTF-8 is shown escaped rather than not at all.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if arguments == ["--version"]:
        sys.stdout.write(f"pik {__version__}\n")
        return 0
    from pik.cli.app import run

    return run(arguments)


def _occupy_standard_descriptors() -> None:
    """Open the standard descriptors that are closed: after `>&-` the next file opened would be descriptor 1, and output
    would be written into it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _report(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError) and _reader_left():
        _discard_output()
        return READER_LEFT
    if os.environ.get("PIK_DEBUG"):
        import traceback

        traceback.print_exception(error)
    from pik.cli.failure import json_text, wants_json

    as_json = wants_json(sys.argv[1:])
    if isinstance(error, KeyboardInterrupt):
        after_echo = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""  # the terminal shows ^C
        text = str(error) or INTERRUPTION
        _write_error(f"{after_echo}{_as_json(text) if as_json else text}")
        code = INTERRUPTED
    else:
        known = _as_pik_error(error)
        text = f"error: {known.message}" + (f"\nhint: {known.hint}" if known.hint else "")
        _write_error(json_text(known) if as_json else text)
        code = known.exit_code
    try:
        _flush()
    except (OSError, StoreError):
        _discard_output()
    return code


def _as_pik_error(error: BaseException) -> PikError:
    if isinstance(error, PikError):
        return error
    if isinstance(error, OSError):
        from pik.runtime.storage import remedy, room_hint

        where = os.fsdecode(error.filename) if error.filename else "could not read or write"
        return StoreError(f"{where}: {error.strerror or error}", hint=remedy(error, room_hint(error)))
    if isinstance(error, MemoryError):
        return StoreError("there is not enough memory")
    return PikError(
        f"this is a bug in pik: {type(error).__name__}: {error}",
        hint="run it again with PIK_DEBUG=1 to see where, and please report that",
    )


def _reader_left() -> bool:
    """Return whether the other end of our output was closed; any other broken pipe is an ordinary error."""
    poll = select.poll()
    poll.register(1, 0)
    poll.register(2, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _flush() -> None:
    from pik.cli.text import writing_output

    with writing_output():
        if sys.stdout is not None:
            sys.stdout.flush()


def _discard_output() -> None:
    """What is still buffered would fail again, with a traceback, when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _write_error(text: str) -> None:
    import re

    from pik.cli.colour import Role, painted
    from pik.model.visible import visible_lines

    try:
        shown = visible_lines(f"{text}\n")
        sys.stderr.write(re.sub("^error:", lambda found: painted(found[0], Role.FAILURE, sys.stderr), shown))
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        _discard_output()


if __name__ == "__main__":
    sys.exit(program())
