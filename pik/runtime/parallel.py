"""Ordered maps over worker processes and over threads, with a bounded number of arguments in flight.

`Pool` is not concurrent.futures, because its workers must end when the parent is killed: a worker reads from a pipe
whose other end only the parent holds, and stops when that closes.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from io import BufferedRWPair, FileIO
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from pik.errors import StoreError

if TYPE_CHECKING:
    from concurrent.futures import Future

Argument = TypeVar("Argument")
Result = TypeVar("Result")

Tell = Callable[[int], None]
"""Called by a worker with how much more of its argument is done, in whatever unit the caller of `map` counts."""

Make = Callable[[Tell], Callable[[Any], Any]]
"""Called once in each worker; makes the function that is mapped. It and its arguments are pickled."""

TELL_SECONDS = 0.2
"""How often a worker reports its progress, at most."""

ENDING_SECONDS = 0.3
"""How long a worker may take to end when it is asked to; then it is killed."""

NO_MEMORY = 77
"""The exit code of a worker that ran out of memory."""

_SHORT_OF_MEMORY: Mapping[int | None, str] = {
    NO_MEMORY: "it ran out of memory",
    -signal.SIGKILL: "it was killed (SIGKILL), as the system does when memory is short",
    -signal.SIGABRT: "it aborted (SIGABRT), as programs do when memory is short",
}


def map_in_threads(
    function: Callable[[Argument], Result],
    arguments: Iterable[Argument],
    threads: int,
    in_flight: int | Callable[[], int] | None = None,
) -> Iterator[Result]:
    """Yield the results in the order of the arguments, computed by up to `threads` threads.

    At most `in_flight` arguments are at work, done or waiting at a time (default: one more than there are threads); a
    function is asked before each.
    """
    from concurrent.futures import ThreadPoolExecutor  # costs the start of every worker process otherwise

    limit = in_flight if callable(in_flight) else lambda: in_flight or threads + 1
    with ThreadPoolExecutor(threads) as pool:
        working: deque[Future[Result]] = deque()
        try:
            for argument in arguments:
                working.append(pool.submit(function, argument))
                while len(working) >= limit():
                    yield working.popleft().result()
            while working:
                yield working.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on a Mac
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WorkerDied(StoreError):
    """A worker process ended. `argument` is the label of what it worked on; `exitcode` is that of Process."""

    def __init__(self, argument: object, exitcode: int | None = None) -> None:
        if exitcode in _SHORT_OF_MEMORY:
            ending, first = _SHORT_OF_MEMORY[exitcode], "free some memory, then "
        elif exitcode is not None and exitcode < 0:
            ending, first = f"it was ended by {signal.Signals(-exitcode).name}", ""
        else:
            ending = "it ended unexpectedly" if exitcode is None else f"it ended with exit code {exitcode}"
            first = ""
        super().__init__(f"a worker process died: {ending}", hint=f"{first}run the same command again")
        self.argument = argument


class Pool(Generic[Argument, Result]):
    """`size` worker processes; a context manager. With size 0 everything runs in this process."""

    def __init__(self, make: Make, size: int) -> None:
        self._make = make
        self._size = size
        self._pipes: list[_Pipe] = []
        self._processes: list[Any] = []

    def __enter__(self) -> Pool[Argument, Result]:
        context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # or the first worker starts it, which lets Ctrl-C through
        try:
            for _ in range(self._size):
                mine, theirs = context.Pipe()
                process = context.Process(target=_work, args=(self._make, theirs), daemon=True)
                self._pipes.append(_Pipe(mine))
                with _uninterrupted():
                    process.start()
                    self._processes.append(process)
                theirs.close()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, error: type[BaseException] | None = None, *_: object) -> None:
        """End the workers: when they are done with what they are working on, or after an error at once."""
        if error is not None:
            for process in self._processes:
                process.terminate()
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            if error is not None:
                process.join(ENDING_SECONDS)
                process.kill()
            process.join()

    def map(
        self,
        arguments: Iterable[Argument],
        tell: Tell = lambda _done: None,
        label: Callable[[Argument], object] = lambda argument: argument,
    ) -> Iterator[Result]:
        """Yield the results in the order of the arguments.

        Each worker has one argument at a time, and the next before its result is yielded, so that it works while the
        caller does. `tell` is called with the progress on the argument whose result comes next. An argument is released
        once it is sent; its `label` is kept for WorkerDied.

        Raises what the function raises, and WorkerDied; the pool cannot be used after that.
        """
        if not self._pipes:
            function = self._make(tell)
            for argument in arguments:
                yield function(argument)
            return
        working: deque[tuple[int, object]] = deque()
        for number, argument in enumerate(arguments):
            worker = number % self._size
            if number < self._size:
                self._send(worker, argument)
            else:
                result = self._result(*working.popleft(), tell)
                self._send(worker, argument)
                yield result
            working.append((worker, label(argument)))
            del argument
        while working:
            yield self._result(*working.popleft(), tell)

    def _send(self, worker: int, argument: Argument) -> None:
        try:
            self._pipes[worker].send(argument)
        except ConnectionError:
            raise self._died(worker, argument) from None

    def _result(self, worker: int, label: object, tell: Tell) -> Result:
        try:
            kind, value = self._pipes[worker].receive()
            while kind == _PART:
                tell(value)
                kind, value = self._pipes[worker].receive()
        except _GONE:
            raise self._died(worker, label) from None
        if kind == _FAILED:
            raise value
        return value  # type: ignore[no-any-return]

    def _died(self, worker: int, label: object) -> WorkerDied:
        process = self._processes[worker]
        process.join(ENDING_SECONDS)  # its pipe ends a moment before it does
        return WorkerDied(label, process.exitcode)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back for a moment. A process started meanwhile never sees one, not even before it can ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Pipe:
    """Sends objects to the process at the other end and receives its objects.

    A block of input is written from where it is and read to where it stays; a Connection's own `send` and `recv` would
    copy it several times.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        reader, writer = (FileIO(connection.fileno(), mode, closefd=False) for mode in ("rb", "wb"))
        self._stream = BufferedRWPair(reader, writer)

    def send(self, thing: object) -> None:
        """Raises ConnectionError if the other end is closed."""
        pickle.dump(thing, self._stream, protocol=pickle.HIGHEST_PROTOCOL)
        self._stream.flush()

    def receive(self) -> Any:
        """Raises one of `_GONE`."""
        return pickle.load(self._stream)

    def close(self) -> None:
        """Close this end."""
        with suppress(OSError):  # of what could not be sent
            self._stream.close()
        self._connection.close()


_GONE = (EOFError, OSError, pickle.UnpicklingError)
"""What `receive` raises if the other end is closed, or was closed in the middle of an object."""

_PART, _DONE, _FAILED = "part", "done", "failed"


def _work(make: Make, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    signal.signal(signal.SIGTERM, _leave)
    gc.disable()  # little of what workers make has cycles, and looking for them all the time takes a tenth of it
    try:
        with closing(_Pipe(connection)) as pipe, suppress(*_GONE):
            function = make(_Reporter(pipe).tell)
            gc.freeze()
            while True:
                pipe.send(_outcome(function, pipe.receive()))
                gc.collect()
    except MemoryError:
        os._exit(NO_MEMORY)


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit  # so that half-written files are removed


class _Reporter:
    """Sends a worker's progress to the parent every TELL_SECONDS."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe, self._unsent, self._sent_at = pipe, 0, 0.0

    def tell(self, done: int) -> None:
        self._unsent += done
        now = monotonic()
        if now - self._sent_at >= TELL_SECONDS:
            self._pipe.send((_PART, self._unsent))
            self._unsent, self._sent_at = 0, now


def _outcome(function: Callable[[Any], Any], argument: Any) -> tuple[str, Any]:
    try:
        return _DONE, function(argument)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the parent raises it
        return _FAILED, error
