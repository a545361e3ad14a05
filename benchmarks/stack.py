"""The measured embedded stack, accessed by commands, files and its database."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg

from benchmarks.documents import CHUNK_TOKENS
from benchmarks.machine import Finished, cpu_seconds, peak_megabytes, run
from benchmarks.provider import Provider

_COMMAND = str(Path(sys.executable).with_name("chordwise"))
_NUMBER = re.compile(r"[-_ ]?\d+$")
# PostgreSQL logs parse, bind and execute; only these lines are executed statements.
_STATEMENT = re.compile(rb"LOG:  (?:statement|execute [^:]*|fastpath function call): ")
# An idle server process reports its statistics after this time.
_STATISTICS_SECONDS = 11.0


class MeasurementError(Exception):
    """A row could not be measured; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The resource usage of a stack: CPU seconds by group, and the peak memory of the workers."""

    cpu: dict[str, float]
    worker_megabytes: float

    def since(self, earlier: Usage) -> dict[str, float]:
        """Return the CPU seconds by group since an earlier usage."""
        return {name: spent - earlier.cpu.get(name, 0.0) for name, spent in self.cpu.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running stack in a temporary folder, in which its commands run."""

    folder: Path
    timeout: float

    @property
    def home(self) -> Path:
        """The folder with the data and the logs."""
        return self.folder / "home"

    def command(self, *arguments: str, codes: Sequence[int] = (0,)) -> Finished:
        """Run `chordwise` with these arguments.

        Raises:
            MeasurementError: Its exit code is not one of `codes`.
            subprocess.TimeoutExpired: It exceeded the time limit of a command.
        """
        command = [_COMMAND, *arguments]
        done = run(command, folder=self.folder, timeout=self.timeout, home=self.home)
        if done.code not in codes:
            words = (done.errors.strip() or done.output.strip()).splitlines()[-3:]
            raise MeasurementError(f"`{arguments[0]}` ended with {done.code}: {' '.join(words)}")
        return done

    def submit(self, *arguments: str) -> tuple[str, Finished]:
        """Submit documents; return the id of the run, and the finished command."""
        done = self.command("submit", *arguments, "--fresh", "--json")
        return str(json.loads(done.output)["run_id"]), done

    @contextlib.contextmanager
    def pages(self) -> Iterator[str]:
        """Serve the pages, and return their link."""
        environment = {**os.environ, "CHORDWISE_HOME": str(self.home)}
        with subprocess.Popen([_COMMAND, "web"], cwd=self.folder, env=environment) as server:
            try:
                until = time.monotonic() + self.timeout
                while (done := self.command("web", "--link", codes=range(256))).code:
                    if time.monotonic() > until:
                        raise MeasurementError("The pages are not served.")
                yield done.output.strip()
            finally:
                server.terminate()

    def usage(self) -> Usage:
        """Return the resource usage of the processes so far."""
        supervisor, trees = self._processes()
        cpu = {name: cpu_seconds(tree) for name, tree in trees.items()}
        cpu["supervisor"] = cpu_seconds([supervisor])
        return Usage(cpu=cpu, worker_megabytes=peak_megabytes(trees.get("worker", [])))

    def _processes(self) -> tuple[psutil.Process, dict[str, list[psutil.Process]]]:
        """Return the supervisor, and the other processes by group."""
        state = json.loads((self.home / "run" / "stack.json").read_text("utf-8"))
        trees: dict[str, list[psutil.Process]] = {}
        for name, child in state["children"].items():
            process = psutil.Process(child["pid"])
            group = trees.setdefault(_NUMBER.sub("", name), [])
            group += [process, *process.children(recursive=True)]
        return psutil.Process(state["supervisor"]["pid"]), trees

    @contextlib.contextmanager
    def without_workers(self) -> Iterator[None]:
        """Suspend the processes that send and do work."""
        _, trees = self._processes()
        processes = [*trees.get("worker", ()), *trees.get("scheduler", ())]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    @contextlib.contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """Open a connection as the owner of the tables, in autocommit mode."""
        state = json.loads((self.home / "run" / "stack.json").read_text("utf-8"))
        with psycopg.connect(state["database_url"], autocommit=True) as connection:
            yield connection

    def number(self, query: LiteralString) -> float:
        """Return the one number that a query selects."""
        with self.database() as connection:
            row = connection.execute(query).fetchone()
        return float(row[0]) if row and row[0] is not None else 0.0

    def transactions(self) -> float:
        """Return the number of ended transactions, once PostgreSQL's statistics are up to date."""
        time.sleep(_STATISTICS_SECONDS)
        return self.number(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database "
            "WHERE datname = current_database()"
        )

    def log_statements(self) -> None:
        """Make PostgreSQL log each statement from now on, without its parameters."""
        with self.database() as connection:
            connection.execute("ALTER SYSTEM SET log_statement = 'all'")
            connection.execute("ALTER SYSTEM SET log_parameter_max_length = 0")
            connection.execute("SELECT pg_reload_conf()")
        time.sleep(1)

    def statements(self) -> int:
        """Return the number of statements that PostgreSQL has logged."""
        with (self.home / "logs" / "postgres.log").open("rb") as log:
            return sum(1 for line in log if _STATEMENT.search(line))


def provider_settings(provider: Provider, in_flight: int) -> str:
    """Return settings that call the provider with this many calls in flight."""
    return f"""
model = "bench"
[limits]
first_in_flight = {in_flight}
[pipeline]
chunk_tokens = {CHUNK_TOKENS}
[cache]
enabled = false
[worker]
concurrency = {in_flight}
[models.bench]
provider = "openai"
model = "gpt-4o-mini"
base_url = "{provider.url}"
api_key = "none"
context_tokens = 128000
max_in_flight = {in_flight}
"""


@contextlib.contextmanager
def running(settings: str, *, timeout: float) -> Iterator[Stack]:
    """Run a stack with these settings, warmed up by one document, and remove it afterwards.

    `timeout` is the time limit of a command, in seconds.
    """
    folder = Path(tempfile.mkdtemp(prefix="cwbench"))
    stack = Stack(folder=folder, timeout=timeout)
    try:
        (folder / "inbox").mkdir()
        (folder / "chordwise.toml").write_text(settings, "utf-8")
        (folder / "warm.txt").write_text("Document of the first run. It warms the rest up.\n")
        stack.command("analyze", "warm.txt")
        yield stack
    finally:
        stack.command("down", codes=range(256))
        shutil.rmtree(folder, ignore_errors=True)
