"""A few worker processes that map a function over blocks, in order, with a bounded number in flight.

Made for this rather than taken from concurrent.futures, because its workers must end when the parent is killed: a
worker here reads from a pipe whose other end only the parent holds, and stops when that closes.
"""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from io import BufferedRWPair, FileIO
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from pik.errors import StoreError

Argument = TypeVar("Argument")
Result = TypeVar("Result")

Make = Callable[[], Callable[[Any], Any]]
"""Called once in each worker; makes the function that is mapped. It and its arguments are pickled."""


class _Pipe:
    """Sends objects to the process at the other end and receives its. A block of input is written from where it is and
    read to where it stays; a Connection's own `send` and `recv` would copy it several times."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream = BufferedRWPair(_end(connection, "rb"), _end(connection, "wb"))

    def send(self, thing: object) -> None:
        """Raises ConnectionError if nobody is there to receive it."""
        pickle.dump(thing, self._stream, protocol=pickle.HIGHEST_PROTOCOL)
        self._stream.flush()

    def receive(self) -> Any:
        """Raises one of `_GONE`."""
        return pickle.load(self._stream)

    def close(self) -> None:
        """Nobody can receive or send any more."""
        with suppress(OSError):  # of what could not be sent
            self._stream.close()
        self._connection.close()


def _end(connection: Connection, mode: str) -> FileIO:
    return FileIO(connection.fileno(), mode, closefd=False)


_GONE = (EOFError, OSError, pickle.UnpicklingError)
"""What `receive` raises if nobody is at the other end, or not until the end of an object."""


def _work(make: Make, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    gc.disable()  # what workers make has no cycles, and looking for them takes a tenth of the time
    function = make()
    with closing(_Pipe(connection)) as pipe, suppress(*_GONE):
        while True:
            pipe.send(_outcome(function, pipe.receive()))


def _outcome(function: Callable[[Any], Any], argument: Any) -> tuple[bool, Any]:
    try:
        return True, function(argument)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        return False, error


class WorkerDied(StoreError):
    """A worker process is gone. `argument` is what it was at work on."""

    def __init__(self, argument: object) -> None:
        super().__init__("a worker process died (killed, or out of memory)", hint="run the same command again to go on")
        self.argument = argument


class Pool(Generic[Argument, Result]):
    """`size` processes; a context manager. With size 0 everything runs in this process."""

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
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()

    def map(self, arguments: Iterable[Argument]) -> Iterator[Result]:
        """The results in the order of the arguments. Each worker has one argument at a time, and the next before its
        result is yielded, so that it works while the caller does. Raises what the function raises, WorkerDied
        if one is gone; the pool is of no use then."""
        if not self._pipes:
            function = self._make()
            for argument in arguments:
                yield function(argument)
            return
        working: deque[tuple[_Pipe, Argument]] = deque()
        for number, argument in enumerate(arguments):
            pipe = self._pipes[number % self._size]
            if number < self._size:
                self._send(pipe, argument)
            else:
                result = self._result(*working.popleft())
                self._send(pipe, argument)
                yield result
            working.append((pipe, argument))
        while working:
            yield self._result(*working.popleft())

    def _send(self, pipe: _Pipe, argument: Argument) -> None:
        try:
            pipe.send(argument)
        except ConnectionError:
            raise WorkerDied(argument) from None

    def _result(self, pipe: _Pipe, argument: Argument) -> Result:
        try:
            done, result = pipe.receive()
        except _GONE:
            raise WorkerDied(argument) from None
        if not done:
            raise result
        return result  # type: ignore[no-any-return]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back for a moment. A process started meanwhile never sees one, not even before it can ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
