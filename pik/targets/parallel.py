"""Sending in several threads while one waits for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue


def send_in_threads(
    parts: Sequence[Sequence[int]],
    send: Callable[[Sequence[int], threading.Event], None],
    stopped: threading.Event,
    threads: int,
) -> None:
    """Send each part, the positions of some messages, in one of `threads` threads.

    The first error ends everything, and is raised: `stopped` is set then, as it is at the end. The threads are daemons,
    which an interrupted program does not wait for.
    """
    waiting = deque(parts)
    results: SimpleQueue[BaseException | None] = SimpleQueue()

    def work() -> None:
        while not stopped.is_set():
            try:
                part = waiting.popleft()
            except IndexError:
                return
            try:
                send(part, stopped)
                results.put(None)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that called
                stopped.set()
                results.put(error)

    for _ in range(min(threads, len(parts))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in parts:
            if (error := results.get()) is not None:
                raise error
    finally:
        stopped.set()
