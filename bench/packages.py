"""How large the functions' packages are, and what a cold start pays for importing them: `python -m bench.packages`.

Builds with SAM (`make .venv-sam`) for this machine's architecture and the Python that runs them here, and prints the
table of docs/deploy.md. Processor time, not wall time; nothing is compiled in advance, as in a function's package.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
RUNS = 7

CLIENTS = "import boto3; [boto3.client(service) for service in ('s3', 'dynamodb', 'sqs')]"
ENGINE = "import duckdb; duckdb.connect()"
FUNCTIONS = {
    "IngestFunction": ("import pik.lambdas.ingest", CLIENTS, ""),
    "RecorderFunction": ("import pik.lambdas.recorder", CLIENTS, ""),
    "ReplayFunction": ("import pik.lambdas.replay", CLIENTS, ENGINE),
    "ProcessorFunction": ("import pik.lambdas.processor", CLIENTS, ENGINE),
}


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the interpreter to import with, python3.13 say")
    python = parser.parse_args().python
    with tempfile.TemporaryDirectory() as directory:
        built = Path(directory)
        _build(built, python)
        version = _output(python, "import sys; print(sys.version.split()[0])")
        print(f"{ARCHITECTURE}, Python {version}; an empty program takes {_cpu(python, built, ['pass']):.2f} s\n")
        print("| function | unzipped | zipped | handler | and AWS clients | and engine |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for function, (handler, clients, engine) in FUNCTIONS.items():
            package = built / function
            steps = [[handler], [handler, clients], [handler, clients, engine] if engine else []]
            seconds = [f"{_cpu(python, package, step):.2f} s" if step else "–" for step in steps]
            sizes = [f"{size / 1e6:.0f} MB" for size in (_size(package), _zipped(package))]
            print(f"| {function} | {' | '.join(sizes + seconds)} |")


def _build(directory: Path, python: str) -> None:
    minor = _output(python, "import sys; print('%d.%d' % sys.version_info[:2])")
    command: list[str | Path] = [ROOT / ".venv-sam/bin/sam", "build", "--build-dir", directory]
    subprocess.run(
        [*command, "--parameter-overrides", f"Architecture={ARCHITECTURE}"],
        cwd=ROOT,
        env={**os.environ, "LAMBDA_PYTHON": minor, "SAM_CLI_TELEMETRY": "0"},
        check=True,
        capture_output=True,
    )


def _output(python: str, program: str) -> str:
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def _size(package: Path) -> int:
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file())


def _zipped(package: Path) -> int:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in package.rglob("*"):
                archive.write(path, path.relative_to(package))
        return file.tell()


def _cpu(python: str, package: Path, program: list[str]) -> float:
    """The median processor time, user and system, of a fresh process."""
    environment = {**os.environ, "AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"}
    environment |= {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    times = []
    for _ in range(RUNS):
        process = subprocess.Popen([python, "-c", "\n".join(program)], cwd=package, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0, program
        times.append(used.ru_utime + used.ru_stime)
    return statistics.median(times)


if __name__ == "__main__":
    main()
