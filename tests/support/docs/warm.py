"""A `pik` that begins at once: every command line runs in a fork of one process that has imported all of it.

Pages run hundreds of commands, and a process of its own spends most of its time on imports. It still has its own
directory, environment, descriptors and exit code; tests of the process itself start `python -m pik`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import marshal
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]

_CLIENT = """
import marshal, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    line = marshal.dumps((sys.argv[2:], os.getcwd(), dict(os.environ)))
    socket.send_fds(server, [len(line).to_bytes(4)], [0, 1, 2])
    server.sendall(line)
    code = server.recv(1)
sys.exit(code[0] if code else "the command ended without an exit code")
"""


@cache
def program() -> tuple[str, ...]:
    """The words before the arguments of a command line. The first call starts the process, which ends with ours."""
    address = tempfile.mkdtemp(prefix="pik-") + "/socket"
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-m", "tests.support.docs.warm", address],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    atexit.register(server.stdin.close)
    assert server.stdout.readline() == b"ready\n"
    return (sys.executable, "-ISc", _CLIENT, address)


def serve(address: str) -> None:
    """Run command lines until the process that started this one is gone."""
    from pik.cli.demo import player
    from pik.usecases.replay import execute

    _import_all()
    gc.freeze()
    player.PROGRAM = (sys.executable, "-ISc", _CLIENT, address)
    execute.FIRST_DELAY = execute.IDLE = 0.001
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        os.write(1, b"ready\n")
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            if 0 in ready:
                return
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                _run(connection)
            connection.close()


def _import_all() -> None:
    import pik

    for module in pkgutil.walk_packages(pik.__path__, "pik."):
        if not module.name.startswith(("pik.lambdas", "pik.__main__")):
            importlib.import_module(module.name)
    for name in ("duckdb", "pyarrow.parquet"):
        importlib.import_module(name)


def _run(connection: socket.socket) -> None:
    """Be the command that a client sends, and end."""
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as sent:
        arguments, directory, environment = marshal.loads(sent.read(int.from_bytes(size)))
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.argv = ["pik", *arguments]
    # By lines, as on the terminal that a page shows: output and notes stand in the order in which they were written.
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    from pik.__main__ import program as main

    code = main()
    atexit._run_exitfuncs()  # what a process does at its end
    connection.send(bytes([code]))
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
