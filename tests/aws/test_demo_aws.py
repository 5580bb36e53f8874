"""`make demo-aws`: a shell that reads `env` uses the stack; the emulator outlives its starter, and ends whole.

The stack is the one that the other tests share. The whole demo is a slow test.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import pytest

from pik.stores.aws.clients import Clients
from tests.support.aws.deployed import Deployed
from tests.support.docs.console import REPOSITORY, Console, steps
from tools import ministack
from tools.demo_aws import env_file
from tools.ministack import Daemon, Failed, free_port

PAGE = REPOSITORY / "docs/http.md"


def demo_aws(action: str, directory: Path) -> subprocess.Popen[str]:
    """The process behind the target of the Makefile, for a demo in this directory."""
    command = [sys.executable, "-m", "tools.demo_aws", action, str(directory)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=subprocess.STDOUT, text=True, process_group=0)


def sourced(env: Path, before: dict[str, str]) -> dict[str, str]:
    """The environment of a strict shell after it has read the file."""
    command = ["sh", "-euc", '. "$1" && env -0', "sh", str(env)]
    said = subprocess.run(command, env=before, check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in said.split("\0") if line)


@pytest.mark.xdist_group("deployed")
def test_after_env_is_read_curl_and_pik_talk_to_the_stack(deployed: Deployed, tmp_path: Path) -> None:
    """curl as docs/http.md has it, whatever the shell knew about AWS before."""
    env = tmp_path / "it's env"
    env.write_text(env_file({"PIK_STORE": f"aws://{deployed.stack.name}", "PIK_API_URL": deployed.api}))
    real = {"AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "real", "AWS_REGION": "us-east-1", "PIK_API_KEY": "k"}
    known = sourced(env, {"PATH": os.environ["PATH"], "NO_PROXY": "intranet", **real})
    assert not {"AWS_PROFILE", "PIK_API_KEY"} & known.keys()
    assert (known["AWS_SESSION_TOKEN"], known["no_proxy"].split(",")[0]) == ("", "127.0.0.1")

    shell = Console(tmp_path, environment={**known, "PIK_ACTOR": ""})
    for step in takewhile(lambda step: "replay" not in step.command, steps(PAGE)):
        if "mode=async" not in step.command:  # which the stack records in a while
            shell.run(step)
    code, said = shell.output("command -v pik && pik ingest events.ndjson --via api --quiet --format json")
    assert code == 3, said  # one line of the page's is not an event
    program, _, report = said.partition("\n")
    assert program == str(Path(sys.executable).parent / "pik")
    assert json.loads(report)["duplicates"] == {"exact": 1, "conflict": 1}
    code, said = shell.output("pik show fb926158 --format json")
    assert (code, len(json.loads(said)["deliveries"])) == (0, 5)


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Daemon]:
    emulator = Daemon(tmp_path / "demo")
    yield emulator
    emulator.stop()


def test_the_emulator_outlives_its_starter_and_ends_with_what_it_started(emulator: Daemon) -> None:
    code = f"from tools.ministack import *; print(Daemon(Path({str(emulator.directory)!r})).start())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    port = int(done.stdout.rpartition(":")[2])
    pid = emulator.pid()
    assert pid is not None
    assert pid != os.getpgid(0)
    assert (answers(port), running(pid)) == (True, [pid])
    with pytest.raises(Failed, match="is running"):
        emulator.start()
    stopped = demo_aws("stop", emulator.directory)
    said = stopped.communicate()[0].splitlines()
    assert (said[0], said[1][:9]) == ("The stack pik-demo was stopped.", "Removing ")
    assert (stopped.returncode, answers(port), running(pid), emulator.directory.exists()) == (0, False, [], False)
    again = demo_aws("stop", emulator.directory)
    assert again.communicate()[0] == "The stack pik-demo is not running; `make demo-aws` starts it.\n"
    assert again.returncode == 0


def answers(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def running(group: int) -> list[int]:
    """The processes of a group, without those that only wait for their parent to notice their end."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


def test_a_pid_that_is_another_process_by_now_is_left_alone(emulator: Daemon) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        emulator.directory.mkdir()
        (emulator.directory / "pid").write_text(str(other.pid))
        assert (emulator.pid(), emulator.stop()) == (None, False)
        assert other.poll() is None
        other.kill()


def test_a_port_that_is_taken_or_gets_taken_is_not_used(
    aws: Clients, emulator: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another emulator answers there: an answer alone does not tell whose it is."""
    url = aws.client("s3").meta.endpoint_url
    port = int(url.rpartition(":")[2])
    assert free_port(port) != port
    found = iter([port, free_port()])
    monkeypatch.setattr(ministack, "free_port", lambda _wanted: next(found))
    assert emulator.start(port) != url
    assert emulator.pid() is not None


def test_a_demo_that_is_not_ready_is_not_used(tmp_path: Path) -> None:
    """Its emulator runs, as the lock says; `env`, which is written last, is not there."""
    with open(tmp_path / "pid", "w") as pid:
        fcntl.flock(pid, fcntl.LOCK_EX)
        pid.write("4194305")  # beyond the ids that Linux gives
        pid.flush()
        second = demo_aws("start", tmp_path)
        assert second.communicate()[0].endswith("hint: make demo-aws-stop\n")
        assert second.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_running(emulator: Daemon, number: signal.Signals) -> None:
    started = demo_aws("start", emulator.directory)
    assert started.stdout is not None
    assert any(line.startswith("Building") for line in started.stdout)
    assert emulator.pid() is not None
    os.killpg(started.pid, number)
    assert "nothing goes on running" in started.stdout.read()
    assert (started.wait(), emulator.pid()) == (130, None)


@pytest.mark.parametrize(("target", "action"), [("demo-aws", "start"), ("demo-aws-stop", "stop")])
def test_make_runs_it(target: str, action: str) -> None:
    command = ["make", "--dry-run", "--no-print-directory", target]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert said.rstrip().endswith(f"-m tools.demo_aws {action} .demo-aws")


@pytest.mark.slow
def test_the_whole_demo(emulator: Daemon) -> None:
    """Set up, played, used by another shell, asked for again, and ended."""
    started = demo_aws("start", emulator.directory)
    said = started.communicate()[0]
    assert started.returncode == 0, said
    assert said.index("~   revenue") < said.index("no differences in 80 values") < said.index("damage                0")
    env = emulator.directory / "env"
    known = sourced(env, {"PATH": os.environ["PATH"]})
    status = subprocess.run(["pik", "show", "ba221f70"], env=known, capture_output=True, text=True, check=True).stdout
    assert (status.count("\nexact "), status.count("\nconflict ")) == (4, 1)
    again = demo_aws("start", emulator.directory)
    how = said[said.index("\nThe stack goes on running.") :]
    assert again.communicate()[0] == f"The stack pik-demo is running already.\n{how}"
    assert again.returncode == 0
    pid = emulator.pid()
    assert pid is not None
    assert len(running(pid)) > 1  # the functions
    assert emulator.stop()
    assert running(pid) == []
