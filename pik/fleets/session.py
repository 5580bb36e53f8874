"""Sessions of Spark: with a driver in this process, or on a Connect server."""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from socketserver import BaseServer
from tempfile import TemporaryFile
from threading import current_thread, main_thread
from typing import IO, TYPE_CHECKING, Any

from pik.errors import StoreError, UsageError, command
from pik.fleets import within_job
from pik.model.cluster import JOBS, LOCATIONS, SUBMITTED, Cluster, expect_cluster, expect_no_place
from pik.runtime.storage import PrivateDirectory

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_PYTHON = "PYSPARK_PYTHON"
"""The variable that names the Python of executors. Spark takes it from there alone."""

_WORK = "SPARK_WORKER_DIR"
"""The variable that names the directory in which executors of `local-cluster` keep logs and unpacked archives: Spark
leaves them there, by default where it is installed."""

_UNPACKED = "pik"
"""The directory that an executor unpacks the archive into."""

ANSWERS_WITHIN = 30
"""Seconds that a Connect server has to answer in."""

NOTED_AFTER, EXECUTORS_WITHIN = 20, 600
"""Seconds after which a note says that no executor has run anything yet, and that they have in all."""

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
    """A session, how many tasks it runs at a time, and what cancels its jobs."""

    spark: SparkSession
    slots: int
    cancel: Callable[[], object]


Note = Callable[[str], object]


@contextmanager
def open_session(location: str, cluster: Cluster, note: Note) -> Iterator[Session]:
    """Provide a session at a location whose executors work. Raises as `expect_usable`, `driver` and `client`, and
    StoreError where no executor begins to work."""
    with _at(location, cluster) as session:
        _wait_for_executors(session, location, note)
        yield session


def _at(location: str, cluster: Cluster) -> AbstractContextManager[Session]:
    expect_usable(location, cluster)
    return client(location, cluster) if _is_server(location) else driver(location, cluster)


def expect_usable(location: str, cluster: Cluster) -> None:
    """Raise UsageError where no session can be at this location, whatever is there: a text of another form, a missing
    package, Java or archive, a job's location outside of a job, a setting that names another place."""
    expect_cluster(location)
    archive = cluster.archive
    expect_no_place(cluster, location)
    if archive is not None and "://" not in archive and not os.path.isfile(archive):
        raise UsageError(f"cluster.archive: no file {archive}", hint=command("cluster", "pack", "-o", archive))
    if _is_submitted(location) and not within_job():
        raise UsageError(
            f"--on {location}: this process was not started by spark-submit",
            hint="in a job it is: docs/scale.md, Other jobs",
        )
    with _importing("spark-connect" if _is_server(location) else "spark", location):
        if _is_server(location):
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes to standard error
            import pyspark.sql.connect.client  # noqa: F401
        else:
            from pyspark import SparkConf, SparkContext  # noqa: F401

            if not _is_submitted(location):
                _expect_java(location)


def _expect_java(location: str) -> None:
    """Raise UsageError where Spark would find no Java."""
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java" if home is None else f"{home}/bin/java") is None:
        missing = "there is no java on the path" if home is None else f"JAVA_HOME is {home}, which has no bin/java"
        raise UsageError(f"{location} needs Java: {missing}", hint="install Java 17, and set JAVA_HOME to where it is")


def _is_submitted(location: str) -> bool:
    return location == SUBMITTED or location.startswith(JOBS)


def _is_server(location: str) -> bool:
    return location.startswith("sc:")


def _wait_for_executors(session: Session, location: str, note: Note) -> None:
    """Run a job of one task: without executors the jobs of a command would wait for ever, and say nothing."""
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(session.spark.range(1).count)
        try:
            try:
                first.result(NOTED_AFTER)
            except TimeoutError:
                note(f"waiting for an executor of {location} …")
                first.result(EXECUTORS_WITHIN - NOTED_AFTER)
        except TimeoutError:
            session.cancel()
            raise StoreError(
                f"no executor of {location} has run anything within {EXECUTORS_WITHIN} seconds",
                hint="are there workers, with as many free cores and as much memory as an executor asks for?",
            ) from None
        except errors_of_spark() as error:
            raise StoreError(f"{location} runs no job: {first_line(error)}", hint="is the address right?") from error
        except BaseException:
            session.cancel()
            raise


@contextmanager
def driver(master: str, cluster: Cluster) -> Iterator[Session]:
    """Provide a session whose driver is this process and a Java process: one that it starts, or that started it. Raises
    StoreError where Spark does not start."""
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    submitted = _is_submitted(master)
    settings = list(_settings(cluster).items())
    conf = SparkConf() if submitted else SparkConf(loadDefaults=False).setMaster(master)
    os.environ.setdefault(_PYTHON, sys.executable if cluster.archive is None else f"./{_UNPACKED}/bin/python")
    before = signal.getsignal(signal.SIGINT)
    _say_nothing_of_lost_counters()
    logging.getLogger().addFilter(_is_not_of_py4j)
    gateway, log = (None, None) if submitted else _gateway()
    try:
        context = SparkContext(conf=conf.setAll(settings), gateway=gateway)
        context.setLogLevel("ERROR")
        session = SparkSession.builder.config(map=_OF_SESSION).getOrCreate()
    except errors_of_spark() as error:
        said = "" if log is None else _error_in(_text_of(log))
        raise StoreError(
            f"Spark did not start for {master}: {said or first_line(error)}",
            hint="docs/scale.md says what it takes: Java 17, an archive, settings, and a cluster at that address",
        ) from error
    finally:
        if current_thread() is main_thread():  # Spark has set its own, which knows only of its jobs
            signal.signal(signal.SIGINT, before)
    try:
        yield Session(session, cluster.parallelism or context.defaultParallelism, context.cancelAllJobs)
    finally:
        with suppress(*errors_of_spark()):  # of a Java that is lost: what ended the work is raised
            context.stop()


def _say_nothing_of_lost_counters() -> None:
    """Keep the servers that Java sends its counters to from writing to standard error when Java is lost: what waits for
    a job raises that."""
    from pyspark import accumulators

    for one in vars(accumulators).values():
        if isinstance(one, type) and issubclass(one, BaseServer):
            one.handle_error = lambda *_: None  # type: ignore[method-assign]


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    """Tell whether to log it: py4j writes a traceback to standard error for Ctrl-C, which it raises as well."""
    return "/py4j/" not in record.pathname


@contextmanager
def client(url: str, cluster: Cluster) -> Iterator[Session]:
    """Provide a session of a Connect server. Raises UsageError for a setting that a session cannot have there, and
    StoreError where the server does not answer."""
    from pyspark.sql import SparkSession

    _wait_for_answer(url)
    with ExitStack() as opened:
        try:
            session = SparkSession.builder.remote(url).create()
            opened.callback(session.stop)
            _apply_settings(session, url, cluster)
            slots = cluster.parallelism or _slots(session)
        except errors_of_spark() as error:
            raise StoreError(f"no Spark Connect session at {url}: {first_line(error)}") from error
        yield Session(session, slots, session.interruptAll)


def _wait_for_answer(url: str) -> None:
    """Raise UsageError for an address that is not one, StoreError for one that does not answer: a session would try for
    ten minutes."""
    import grpc
    from pyspark.sql.connect.client import DefaultChannelBuilder

    invalid: tuple[type[Exception], ...] = (*errors_of_spark(), ValueError)
    try:
        channel = DefaultChannelBuilder(url).toChannel()
    except invalid as error:
        raise UsageError(f"--on: invalid location {url!r}: {first_line(error)}", hint=LOCATIONS) from None
    with channel:
        try:
            grpc.channel_ready_future(channel).result(ANSWERS_WITHIN)
        except grpc.FutureTimeoutError:
            raise StoreError(
                f"no Spark Connect server answers at {url} within {ANSWERS_WITHIN} seconds",
                hint="is it started, and is the address right?",
            ) from None


def _slots(session: SparkSession) -> int:
    """Return how many tasks the server's cluster runs at a time: it makes so many of a range."""
    from pyspark.sql.functions import spark_partition_id

    return int(session.range(1 << 20).select(spark_partition_id()).distinct().count())


def _apply_settings(session: SparkSession, url: str, cluster: Cluster) -> None:
    """Set the settings that a server lets each session have."""
    given = {**_OF_SESSION, **cluster.spark}
    if refused := [name for name in given if not session.conf.isModifiable(name)]:
        raise UsageError(
            f"{url} does not let a session set {', '.join(refused)}",
            hint="set it where the server is started, and remove it from [cluster.spark]",
        )
    for name, value in given.items():
        session.conf.set(name, value)
    if cluster.archive is not None:
        if "://" in cluster.archive:
            raise UsageError(f"cluster.archive is {cluster.archive}: {url} takes a file from this machine only")
        session.addArtifacts(f"{cluster.archive}#{_UNPACKED}", archive=True)
        session.conf.set("spark.sql.execution.pyspark.python", f"./{_UNPACKED}/bin/python")


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
    process. Raises StoreError."""
    from pyspark.java_gateway import launch_gateway

    log = TemporaryFile()  # noqa: SIM115 - as long as the process
    work = PrivateDirectory()
    atexit.register(work.cleanup)
    os.environ.setdefault(_WORK, work.name)
    try:
        return launch_gateway(popen_kwargs={"stderr": log}), log
    except errors_of_spark() as error:
        said = next((line for line in _text_of(log).splitlines() if line.strip()), first_line(error))
        raise StoreError(f"Java did not start: {said}", hint="Spark needs Java 17: java -version") from error


def _text_of(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


_LINE = re.compile(r"^\d\d/\d\d/\d\d \d\d:\d\d:\d\d ")

_OF_CODE = re.compile(r"^([\w.$]+(Exception|Error)\b[^:]*: *)?")


def _error_in(log: str) -> str:
    """Return what the last error in Spark's log says: its text, or the exception below it, without where in the code it
    was raised; "" if there is none."""
    lines = log.splitlines()
    last = next((at for at in reversed(range(len(lines))) if " ERROR " in lines[at] and _LINE.match(lines[at])), None)
    if last is None:
        return ""
    raised = takewhile(lambda line: not (line.startswith("\tat ") or _LINE.match(line)), lines[last + 1 :])
    text = " ".join(filter(None, map(str.strip, raised)))
    return _OF_CODE.sub("", text) if text else lines[last].partition(" ERROR ")[2].partition(": ")[2]


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
            f"{location} needs a package that is not installed: {first_line(error)}",
            hint="in a copy of pik's repository, and an environment without another extra of Spark:"
            f" pip install '.[{extra}]'",
        ) from None
