"""Spark outside of the process of the tests: a Connect server, and a standalone cluster, of real processes here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.spark import TOP, packages

HOST = "127.0.0.1"
PATIENCE = 180
"""Seconds after which what has not started counts as broken."""

_CONNECT = "org.apache.spark.sql.connect.service.SparkConnectServer"


class Process(NamedTuple):
    """A running class of Spark, and what it wrote."""

    started: subprocess.Popen[bytes]
    log: Path


@contextmanager
def connect_server(directory: Path, settings: Mapping[str, str], **variables: str) -> Iterator[str]:
    """Run a Connect server with two executors; provide its address."""
    port = free_port()
    given = {"spark.connect.grpc.binding.port": str(port), "spark.ui.enabled": "false", **settings}
    options = [word for name, value in given.items() for word in ("--conf", f"{name}={value}")]
    submit = ["org.apache.spark.deploy.SparkSubmit", "--class", _CONNECT, "--master", "local-cluster[2,1,1024]"]
    with _running(directory / "connect", [*submit, *options, "spark-internal"], variables) as server:
        _wait_for(server, port)
        yield f"sc://{HOST}:{port}"


@contextmanager
def standalone_cluster(directory: Path, hosts: Sequence[str] = (HOST, HOST)) -> Iterator[str]:
    """Run a master, and a worker of one core on each of these hosts; provide the master's address."""
    port = free_port()
    url = f"spark://{HOST}:{port}"
    master = ["org.apache.spark.deploy.master.Master", "--host", HOST, "--port", str(port), "--webui-port", "0"]
    worker = ["org.apache.spark.deploy.worker.Worker", "--webui-port", "0", "--cores", "1", "--memory", "2g"]
    with ExitStack() as running:
        _wait_for(running.enter_context(_running(directory / "master", master)), port)
        for number, host in enumerate(hosts, 1):
            words = [*worker, "--host", host, url]
            running.enter_context(_running(directory / f"worker-{number}", words, {"SPARK_LOCAL_IP": host}))
        yield url


@contextmanager
def _running(directory: Path, words: list[str], variables: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run a class of Spark until the end of the context, in a directory that has its log."""
    directory.mkdir(parents=True)
    home = packages("spark") / "pyspark"
    environment = os.environ | {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": HOST, "SPARK_WORKER_DIR": str(directory)}
    environment |= {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(TOP), **(variables or {})}
    with (directory / "log").open("wb") as log:
        started = subprocess.Popen(
            [str(home / "bin/spark-class"), *words], cwd=directory, env=environment, stdout=log, stderr=log
        )
        try:
            yield Process(started, directory / "log")
        finally:
            started.terminate()  # executors end when they lose it
            started.wait(PATIENCE)


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def _wait_for(server: Process, port: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        if server.started.poll() is not None or time.monotonic() > until:
            pytest.fail(server.log.read_text()[-4000:])
        try:
            socket.create_connection((HOST, port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
