"""MiniStack, the emulator of AWS that the tests and `make demo-aws` use: where it is, how it starts and ends.

It needs the standard library alone, so that a demo can be ended without the project's environment.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final, NamedTuple
from uuid import uuid4

ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / ".venv-ministack/bin/ministack"
REGION: Final = "eu-central-1"

ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What AWS tools want to know beside AWS_ENDPOINT_URL."""

PATIENCE: Final = 180
"""Seconds within which an emulator answers, on a slow machine, too."""

NO_VARIABLES: Final[Mapping[str, str]] = MappingProxyType({})


class Failed(Exception):
    """What was started did not do what it is for."""


def free_port(wanted: int = 0) -> int:
    """Return this port of the loopback address if nothing listens on it, and any other one otherwise."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        port: int = probe.getsockname()[1]
    return port


class Running(NamedTuple):
    """An emulator that answers."""

    process: subprocess.Popen[bytes]
    url: str


def start(
    directory: Path, port: int = 0, environment: Mapping[str, str] = NO_VARIABLES, *, lock: IO[str] | None = None
) -> Running:
    """Start an emulator, and return it when it answers. It keeps its files and its log in `directory`, and listens on
    this port, or on any other one if that is taken. Raises Failed.

    With `lock`, an open file that it inherits, it gets a session of its own, which no Ctrl-C reaches; the file is given
    its process id.
    """
    for wanted in (port, 0, 0):
        found, name = free_port(wanted), uuid4().hex
        process = _process(directory, found, {**environment, "MINISTACK_EDITION": name}, lock)
        try:
            if lock is not None:
                lock.truncate(0)
                lock.write(str(process.pid))
                lock.flush()
            if _comes_up(process, found, name):
                return Running(process, f"http://127.0.0.1:{found}")
        except BaseException:
            process.kill()
            process.wait()
            raise
        if _name(found) is None:
            break
        # Something else listens there, since the port was found to be free.
    said = (directory / "ministack.log").read_text(errors="replace")
    raise Failed(f"MiniStack ended with exit code {process.returncode}:\n{said}")


def _comes_up(process: subprocess.Popen[bytes], port: int, name: str) -> bool:
    """Wait until the emulator of this name answers; return whether it did before it ended. Raises Failed."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None:
        if _name(port) == name:
            return True
        if time.monotonic() > until:
            raise Failed(f"MiniStack does not answer on port {port} within {PATIENCE} seconds")
        time.sleep(0.1)
    return False


def _process(
    directory: Path, port: int, environment: Mapping[str, str], lock: IO[str] | None
) -> subprocess.Popen[bytes]:
    settings = {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "LAMBDA_EXECUTOR": "local",
        "IOT_MTLS_ENABLED": "0",  # its listener would ignore BIND_HOST
        "TMPDIR": str(directory),
    }
    with open(directory / "ministack.log", "wb") as log:
        return subprocess.Popen(
            [PROGRAM],
            cwd=directory,
            env={**os.environ, **settings, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=() if lock is None else (lock.fileno(),),
            start_new_session=lock is not None,
        )


def _name(port: int) -> str | None:
    """Return which emulator answers on a port: "" for what is not one of ours, None where nothing listens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/_ministack/health")
        return str(json.load(connection.getresponse())["edition"])
    except ConnectionRefusedError:
        return None
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return ""
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Daemon:
    """An emulator that outlives the process that starts it; its files are in `directory`.

    It keeps its pid file locked as long as it lives. So a file that an earlier one left behind, whose number may be
    another process's by now, is not mistaken for a running one.
    """

    directory: Path

    def start(self, port: int = 0) -> str:
        """Return its URL when it answers, as `start`. Raises Failed, also if one is running."""
        files = self.directory / "ministack"
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self._pid_file, "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Failed(f"the emulator of {self.directory} is running") from None
            file.truncate(0)
            shutil.rmtree(files, ignore_errors=True)
            files.mkdir()
            return start(files.resolve(), port, lock=file).url

    def pid(self) -> int | None:
        """Return the id of its process and process group while it runs. Raises Failed if it is only just starting."""
        if not self._pid_file.exists():
            return None
        with open(self._pid_file) as file:
            for _ in range(50):
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    if written := file.read():
                        return int(written)
                    time.sleep(0.1)
                else:
                    return None
        raise Failed(f"the emulator of {self.directory} is just being started; try again")

    def stop(self) -> bool:
        """End it with all of its functions; return whether it was running."""
        pid = self.pid()
        if pid is None:
            return False
        os.killpg(pid, signal.SIGTERM)
        for _ in range(100):
            if self.pid() is None:
                break
            time.sleep(0.05)
        _end(pid)
        return True

    @property
    def _pid_file(self) -> Path:
        return self.directory / "pid"


def _end(group: int) -> None:
    """Kill what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
