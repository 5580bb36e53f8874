"""Sessions of Spark: with a driver in this process, or on a Connect server."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from tempfile import TemporaryFile
from threading import current_thread, main_thread
from typing import IO, TYPE_CHECKING, Any

from pik.errors import StoreError, UsageError
from pik.model.cluster import Cluster

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_PYTHON = "PYSPARK_PYTHON"
"""The variable that names the Python of executors. Spark takes it from there alone."""

_UNPACKED = "pik"
"""The directory that an executor unpacks the archive into."""

_OURS = {
    "spark.app.name": "pik",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}

_OF_SESSION = {
    # Partitions must not be joined because all are small.
    "spark.sql.adaptive.enabled": "false",
    # Rows are up to a MiB.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "64",
}


@dataclass(frozen=True, slots=True)
class Session:
    """A session, how many tasks it runs at a time (None: that is not known), and what cancels its jobs."""

    spark: SparkSession
    slots: int | None
    cancel: Callable[[], object]


@contextmanager
def driver(master: str, cluster: Cluster) -> Iterator[Session]:
    """Provide a session whose driver is this process and a Java process that it starts. Raises UsageError without
    pyspark, StoreError where Spark does not start."""
    with _importing("spark", master):
        from pyspark import SparkConf, SparkContext
        from pyspark.sql import SparkSession

    conf = SparkConf(loadDefaults=False).setMaster(master).setAll(list(_settings(cluster).items()))
    os.environ.setdefault(_PYTHON, sys.executable if cluster.archive is None else f"./{_UNPACKED}/bin/python")
    before = signal.getsignal(signal.SIGINT)
    try:
        gateway = _gateway()[0]
        context = SparkContext(conf=conf, gateway=gateway)
    except errors_of_spark() as error:
        raise StoreError(
            f"Spark did not start for {master}: {_last_line(_gateway()[1]) or first_line(error)}",
            hint="it needs Java 17 (JAVA_HOME) and a cluster that answers at that address",
        ) from error
    finally:
        if current_thread() is main_thread():  # Spark has set its own, which knows only of its jobs
            signal.signal(signal.SIGINT, before)
    context.setLogLevel("ERROR")
    try:
        session = SparkSession.builder.config(map=_OF_SESSION).getOrCreate()
        yield Session(session, cluster.parallelism or context.defaultParallelism, context.cancelAllJobs)
    finally:
        context.stop()


@contextmanager
def client(url: str, cluster: Cluster) -> Iterator[Session]:
    """Provide a session of a Connect server. Raises UsageError without a client for it, StoreError where the server
    does not answer."""
    with _importing("spark-connect", url):
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.remote(url)
    try:
        session = builder.config(map={**cluster.spark, **_OF_SESSION}).getOrCreate()
    except errors_of_spark() as error:
        raise StoreError(f"no Spark Connect server answers at {url}: {first_line(error)}") from error
    try:
        yield Session(session, cluster.parallelism, session.interruptAll)
    finally:
        session.stop()


@cache
def errors_of_spark() -> tuple[type[Exception], ...]:
    """Return what Spark raises, as far as it is installed, and what the system does."""
    from pyspark.errors import PySparkException

    try:
        from py4j.protocol import Py4JError
    except ImportError:  # the client alone needs no Java
        return OSError, PySparkException
    return OSError, PySparkException, Py4JError


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@cache
def _gateway() -> tuple[Any, IO[bytes]]:
    """Start Java; return what speaks to it and the file that has what it writes on standard error. It ends with this
    process."""
    from pyspark.java_gateway import launch_gateway

    log = TemporaryFile()  # noqa: SIM115 - as long as the process
    return launch_gateway(popen_kwargs={"stderr": log}), log


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "")


def _settings(cluster: Cluster) -> dict[str, str]:
    """Return Spark's settings: ours, and over them those of pik.toml."""
    archive = {} if cluster.archive is None else {"spark.archives": f"{cluster.archive}#{_UNPACKED}"}
    return {**_OURS, **archive, **cluster.spark}


@contextmanager
def _importing(extra: str, location: str) -> Iterator[None]:
    # Of pandas, for what pik does not use.
    warnings.filterwarnings("ignore", category=FutureWarning, module="pyspark")
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{location} needs a package that is not installed: {first_line(error)}", hint=f"pip install 'pik[{extra}]'"
        ) from None
