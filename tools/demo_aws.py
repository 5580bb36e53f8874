"""`make demo-aws` and `make demo-aws-stop`: the whole stack without an AWS account, in an emulator on this machine.

    python -m tools.demo_aws start DIRECTORY
    python -m tools.demo_aws stop DIRECTORY

All of it is in the directory: the emulator's files, log and pid, what SAM built, the events that are sent and, once the
stack is ready, `env`, which a shell reads to use it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tools.ministack import ENVIRONMENT, REGION, Daemon, Failed

STACK = "pik-demo"
PORT = 4566
"""Where emulators of AWS listen by convention. If something else does, any free port is taken."""

_INTERRUPTED, _READER_LEFT = 130, 141


def main(arguments: list[str]) -> int:
    """Start or stop the demo; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # as nohup does not leave it
            signal.signal(number, signal.default_int_handler)
    action, directory = {"start": start, "stop": stop}[arguments[0]], Path(arguments[1])
    try:
        return action(directory)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_LEFT
    except (Failed, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def start(directory: Path) -> int:
    """Deploy the stack, play the demo on it, and leave it running. If that fails, nothing is left running."""
    emulator, ready = Daemon(directory), directory / "env"
    if emulator.pid() is not None:
        return _already_running(directory)
    if sys.platform != "linux":
        raise Failed("make demo-aws needs Linux: the emulator runs the functions' Linux packages on this machine")
    ready.unlink(missing_ok=True)
    _forget_real_accounts()
    say("The whole stack on this machine, without an AWS account; takes a few minutes.")
    say("Starting MiniStack, an emulator of AWS ...")
    os.environ["AWS_ENDPOINT_URL"] = url = emulator.start(PORT)
    say(f"It answers at {url}{'' if url.endswith(f':{PORT}') else f' (port {PORT} is taken)'}.")
    with ExitStack() as undo:
        undo.callback(_give_up, emulator)
        settings = _deploy(directory)
        code = _play(directory, settings)
        if code == 0:
            say(_next(directory))
            ready.write_text(env_file(settings), encoding="utf-8")
            undo.pop_all()
    return code


def stop(directory: Path) -> int:
    """End the demo and remove its directory. It needs the standard library alone: no environment is set up to stop."""
    if Daemon(directory).stop():
        say(f"The stack {STACK} was stopped.")
    else:
        say(f"The stack {STACK} is not running; `make demo-aws` starts it.")
    if directory.exists():
        say(f"Removing {directory}/, what it held and its packages: on a slow disk, that takes a minute or two ...")
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def env_file(settings: Mapping[str, str]) -> str:
    """Return what a shell reads to use the stack with pik, curl and the tools of AWS."""
    ours = {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"], **ENVIRONMENT, **_direct()}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in {**ours, **settings}.items()]
    return "\n".join(
        [
            "# What talks to AWS in the shell that reads this talks to the demo's emulator instead.",
            "unset AWS_PROFILE AWS_DEFAULT_PROFILE PIK_API_KEY",
            "export AWS_SESSION_TOKEN=",
            *exports,
            f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',
            "",
        ]
    )


def say(line: str) -> None:
    """Print what is about to happen before it does."""
    print(line, flush=True)


def _already_running(directory: Path) -> int:
    if not (directory / "env").exists():
        print(UNFINISHED, file=sys.stderr)
        return 1
    say(f"The stack {STACK} is running already.\n{_next(directory)}")
    return 0


def _give_up(emulator: Daemon) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    emulator.stop()
    log = emulator.directory / "ministack/ministack.log"
    print(f"\nThe emulator was stopped, nothing goes on running. Its log is {log}.", file=sys.stderr)


def _next(directory: Path) -> str:
    return NEXT.format(env=shlex.quote(f"{directory}/env"))


def _forget_real_accounts() -> None:
    """Replace all that this process and those that it starts know about AWS, stores and the make that runs it."""
    theirs = ("AWS_", "PIK_", "MAKE", "MFLAGS")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    os.environ.clear()
    os.environ.update(ours | ENVIRONMENT | _direct())


def _direct() -> dict[str, str]:
    """Return what makes programs reach the emulator directly where there is a proxy."""
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ",".join(dict.fromkeys(["127.0.0.1", *filter(None, others.split(","))]))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def _deploy(directory: Path) -> dict[str, str]:
    """Build and deploy the template; return what `pik` needs to know of the stack."""
    from pik.stores.aws.clients import Clients
    from tools import sam

    say("Building the functions with SAM ...")
    template = sam.build((directory / "built").resolve())
    say(f"Deploying template.yaml with SAM, as the stack {STACK} ...")
    outputs = sam.deploy(Clients(REGION), template, STACK)
    return {"PIK_STORE": f"aws://{STACK}", "PIK_API_URL": sam.api_url(outputs, os.environ["AWS_ENDPOINT_URL"])}


def _play(directory: Path, settings: Mapping[str, str]) -> int:
    from pik.cli.demo.player import Step, play
    from pik.cli.demo.shop import monday, write_lines, write_metrics
    from pik.errors import PikError

    sent = monday()
    # Without shipments the day is one request. Several would be sent at once, and start a process of the emulator each.
    write_lines(directory / "monday.jsonl", (one for one in sent.arrived if one.source != "warehouse"))
    write_lines(directory / "tuesday-morning.jsonl", [*sent.retried, *sent.late])
    write_metrics(directory)
    try:
        return play([Step(*step) for step in STEPS], directory, "table", settings)
    except PikError as error:
        raise Failed(error.message) from None


_DAY = "--from 2026-03-02 --to 2026-03-03"

STEPS: tuple[tuple[str, str] | tuple[str, str, int], ...] = (
    ("Monday, 2 March: a shop's orders and payments, sent to the API.", "pik ingest monday.jsonl --via api"),
    ("What is computed from them: event_count is built in, revenue is ours.", "pik metrics apply metrics.toml"),
    (
        "The numbers of the day: tasks go through the queue to the processor function.",
        f"pik replay --all {_DAY} --reason 'numbers of 2 March' --promote --yes",
    ),
    (
        "Tuesday, 06:00: a producer retries for half an hour, and an app that was offline sends what it kept.",
        "pik ingest tuesday-morning.jsonl --via api",
    ),
    ("How bad were the retries? None of them counts twice.", f"pik duplicates {_DAY} --by type"),
    (
        "Are Monday's numbers still right? They are not: exit code 1.",
        f"pik diff aggregates {_DAY} --metric revenue --changed-only",
        1,
    ),
    ("Compute the day again, beside what is current.", f"pik replay --all {_DAY} --reason 'late events of 2 March'"),
    ("It says what we expect: make it current.", "pik promote RUN --reason 'late events of 2 March' --yes"),
    ("Now the numbers are right: exit code 0.", f"pik diff aggregates {_DAY} --changed-only"),
    ("And everything in the store is what it was when it was written.", "pik verify"),
)
"""What happens, what is typed then, and the exit code if it is not 0."""

NEXT = """
The stack goes on running. To use it, type in any shell, in this directory:

  . {env}

Then pik, curl and the tools of AWS talk to it:

  pik status
  pik show ba221f70              # a payment that came six times
  pik aggregates --entity customer-17 --history
  pik ingest YOUR.jsonl --via api
  curl --aws-sigv4 "aws:amz:$AWS_REGION:execute-api" \\
      --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \\
      --header 'content-type: application/x-ndjson' \\
      --data-binary @YOUR.jsonl "$PIK_API_URL/ingest"

docs/http.md has more for curl, docs/deploy.md what an emulator does not show.

  make demo-aws-stop             # ends it; what the stack holds is then gone"""
"""The words at the end; `env` is the file to read."""

UNFINISHED = """\
error: another `make demo-aws` has not finished, or was killed
hint: make demo-aws-stop"""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
