"""Sending in several threads while one waits for what came of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue


def send_in_threads(
    parts: Sequence[Sequence[int]],
    send: Callable[[Sequence[int], threading.Event], Mapping[int, str]],
    stopped: threading.Event,
    threads: int,
) -> dict[int, str]:
    """Send each part, the positions of some messages, in one of `threads` threads; return why some were refused.

    The first error ends everything, and is raised: `stopped` is set then, as it is at the end. The threads are daemons,
    which an interrupted program does not wait for.
    """
    waiting = deque(parts)
    results: SimpleQueue[Mapping[int, str] | BaseException] = SimpleQueue()

    def work() -> None:
        while not stopped.is_set():
            try:
                part = waiting.popleft()
            except IndexError:
                return
            try:
                results.put(send(part, stopped))
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that called
                stopped.set()
                results.put(error)

    for _ in range(min(threads, len(parts))):
        threading.Thread(target=work, daemon=True).start()
    refused: dict[int, str] = {}
    try:
        for _ in parts:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            refused.update(result)
    finally:
        stopped.set()
    return refused
