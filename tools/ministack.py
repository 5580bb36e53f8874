"""MiniStack, the emulator of AWS that the tests and `make demo-aws` use: where it is, how it starts and ends.

It needs the standard library alone, so that a demo can be ended without the project's environment.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

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


def start(
    directory: Path, port: int, environment: Mapping[str, str] = MappingProxyType({}), *, lock: int | None = None
) -> subprocess.Popen[bytes]:
    """Start an emulator on this port, which keeps its files and its log in `directory`.

    With `lock`, an open file that it inherits, it gets a session of its own, which no Ctrl-C reaches.
    """
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
            pass_fds=() if lock is None else (lock,),
            start_new_session=lock is not None,
        )


def wait_until_up(process: subprocess.Popen[bytes], directory: Path, port: int) -> str:
    """Return the URL of a started emulator when it answers. Raises Failed."""
    for _ in range(600):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return f"http://127.0.0.1:{port}"
        if process.poll() is not None:
            said = (directory / "ministack.log").read_text(errors="replace")
            raise Failed(f"MiniStack ended with exit code {process.returncode}:\n{said}")
        time.sleep(0.1)
    raise Failed(f"MiniStack does not answer on port {port}; its log is {directory / 'ministack.log'}")


@dataclass(frozen=True, slots=True)
class Daemon:
    """An emulator that outlives the process that starts it; its files are in `directory`.

    It keeps its pid file locked as long as it lives. So a file that an earlier one left behind, whose number may be
    another process's by now, is not mistaken for a running one.
    """

    directory: Path

    def start(self, port: int) -> str:
        """Return its URL when it answers. Raises Failed, also if one is running."""
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
            process = start(files.resolve(), port, lock=file.fileno())
            try:
                file.write(str(process.pid))
                file.flush()
                return wait_until_up(process, files, port)
            except BaseException:
                _end(process.pid)
                process.wait()
                raise

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
