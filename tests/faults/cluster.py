"""The cluster of an experiment: database, broker and provider behind proxies, and processes.

An experiment takes the fixture `cluster` (servers of the session, a fresh database, an emptied
broker) or `own_cluster` (servers that it may kill, stop and reconfigure; it costs some seconds),
and `experiment`:

    def test_a_worker_killed_after_its_claim(cluster: Cluster, experiment: Experiment) -> None:
        \"\"\"P01: SIGKILL between claim and request costs a lease and no repeated call.\"\"\"
        experiment.begin("P01 chunk.claimed", "kill -9 at the third claim")  # before any process
        cluster.start_scheduler()
        worker = cluster.start_worker("chunk.claimed:kill:3")
        cluster.submit(cluster.documents.write(chunks=24))

        worker.wait_for_end()
        experiment.fault_is_over()        # the time is measured from here
        cluster.start_worker()

        experiment.finish()               # waits for the end, checks the invariants, records a row

Faults: `cluster.to_database|to_broker|to_provider` are proxies (`cut()`, `swallow()`, …),
`cluster.database|broker` the servers (`kill()`, `start()`, `flush()`, `configure(…)`),
`cluster.provider` the model (`treat(HOLD)`, `on_arrival`), members can `kill()`, `freeze()`,
`thaw()` and `terminate()`. `finish` allows one extra call for each slot of a killed worker; an
`Allowance` permits further costs.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.fakes.configuration import configuration
from tests.fakes.processes import Processes, wait_until
from tests.faults.documents import Documents
from tests.faults.drops import Drops, open_inbox
from tests.faults.members import Member, Members, bare_environment
from tests.faults.provider import Provider, providing
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.servers import BrokerServer, DatabaseServer, address_through

API_KEY = "sk-planted-5d1c0f3a9b7e4c22"
COUNT_RECEIVED = "chunk.before_claim:hang:0:*"
"""The failpoint of workers whose received chunks are counted."""

_MODEL = "timeout_seconds = 20"
_PIPELINE = """
stalled_seconds = 4
postponement_base_seconds = 1
max_postponement_seconds = 4
"""
_RETRIES = """
[retries]
attempts = 3
base_seconds = 0.2
max_wait_seconds = 2
total_seconds = 60
"""

_FINISHED = (
    "SELECT count(*) > 0 AND coalesce(bool_and(status IN ('finished', 'cancelled')), false)"
    " FROM runs"
)


@dataclass(slots=True, kw_only=True)
class Cluster:
    """See the module's docstring.

    `planted` are further secrets that must not appear anywhere, by name. `spoken` is the output of
    all commands, and `redelivered` the number of messages of killed workers that the oracle has
    redelivered; `drops` is the watched folder, if there is one.
    """

    folder: Path
    name: str
    database: DatabaseServer
    broker: BrokerServer
    to_database: Proxy
    to_broker: Proxy
    to_provider: Proxy
    provider: Provider
    documents: Documents
    members: Members
    planted: dict[str, str] = field(default_factory=dict)
    spoken: list[str] = field(default_factory=list)
    redelivered: int = 0
    drops: Drops | None = None

    @property
    def secrets(self) -> dict[str, str]:
        """Return the secrets that must not appear anywhere, by name."""
        return {
            "the API key": API_KEY,
            "the database's password": self.database.password,
            "the broker's password": self.broker.password,
            **self.planted,
        }

    @property
    def temporary(self) -> Path:
        """Return the folder for temporary files of all processes."""
        return self.folder / "tmp"

    @property
    def received(self) -> int:
        """Return how often workers with `COUNT_RECEIVED` have started a chunk of a message."""
        return self.logs().count("chunk.before_claim passed")

    def start_worker(self, failpoints: str = "", **environment: str) -> Member:
        """Start a worker without waiting for `has_started`."""
        return self.members.start("worker", failpoints, **environment)

    def start_scheduler(self, failpoints: str = "", **environment: str) -> Member:
        return self.members.start("scheduler", failpoints, **environment)

    def start_both(self) -> Member:
        """Start a scheduler and a worker; return the worker."""
        self.start_scheduler()
        return self.start_worker()

    def open_inbox(self, more: str = "") -> Drops:
        """Add an inbox to the settings before a scheduler starts; `more` are lines of its table."""
        self.drops = open_inbox(self.folder, more)
        return self.drops

    def start_watching(self, **environment: str) -> Member:
        """Start a worker and a scheduler; return the scheduler once it watches the inbox."""
        self.start_worker()
        scheduler = self.start_scheduler(**environment)
        wait_until(lambda: "inbox.watching" in scheduler.text(), 60, "the inbox is watched")
        return scheduler

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the command `chordwise`, which connects through the proxies."""
        processes = Processes(folder=self.folder, environment=self.members.environment)
        done = processes.run(*arguments, timeout=timeout)
        self.spoken.append(done.stdout + done.stderr)
        return done

    def submit(self, *documents: Path, options: tuple[str, ...] = ()) -> str:
        """Submit by the command line; return the id of the run."""
        done = self.run("submit", *options, *(str(document) for document in documents))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Return the rows of a query, bypassing the proxy."""
        with self.database.connect(self.name) as connection:
            return connection.execute(query.encode()).fetchall()

    def value(self, query: str) -> object:
        return self.rows(query)[0][0]

    def count(self, query: str) -> int:
        number = self.value(query)
        assert isinstance(number, int)
        return number

    def wait_for(self, query: str, seconds: float = 60) -> None:
        """Wait until a query returns true; an unavailable database counts as false."""
        wait_until(lambda: self._finds(query), seconds, f"{query}\n{self.story()}")

    def wait_until_finished(self, seconds: float = 60) -> None:
        """Wait until every run has ended."""
        self.wait_for(_FINISHED, seconds)

    def wait_for_share(self, share: float, seconds: float = 60) -> None:
        """Wait until this share of all chunks (0 to 1), and at least one, has succeeded."""
        self.wait_for(
            f"SELECT count(*) FILTER (WHERE status = 'succeeded') >= greatest(1, "  # noqa: S608 - a number
            f"{share} * count(*)) AND count(*) > 0 FROM chunks",
            seconds,
        )

    def logs(self) -> str:
        """Return the output of all members."""
        return "\n".join(member.text() for member in self.members.all)

    def story(self) -> str:
        """Return the last lines of each member's log, for error messages."""
        tails = [
            f"--- {member.log.name} ({'alive' if member.is_alive else 'ended'})\n"
            + "\n".join(member.text().splitlines()[-8:])
            for member in self.members.all
        ]
        return "\n".join(tails)

    def _finds(self, query: str) -> bool:
        try:
            return self.value(query) is True
        except psycopg.OperationalError:
            return False


@contextmanager
def open_cluster(
    folder: Path, database: DatabaseServer, broker: BrokerServer, name: str
) -> Iterator[Cluster]:
    """Open a cluster over a fresh database called `name`; the broker is emptied."""
    broker.flush()
    with ExitStack() as stack:
        provider = stack.enter_context(providing(delay_seconds=0.2))
        to_provider = stack.enter_context(proxy_to(provider.target))
        to_database = stack.enter_context(proxy_to(database.target))
        to_broker = stack.enter_context(proxy_to(broker.target))
        (folder / "tmp").mkdir(parents=True)
        (folder / "documents").mkdir()
        base_url = f"http://127.0.0.1:{to_provider.port}/v1"
        written = configuration(base_url, model=_MODEL, pipeline=_PIPELINE, more=_RETRIES)
        (folder / "chordwise.toml").write_text(written, "utf-8")
        environment = {
            **_environment(folder),
            "CHORDWISE_DATABASE_URL": address_through(to_database.port, database, name),
            "CHORDWISE_BROKER_URL": f"redis://:{broker.password}@127.0.0.1:{to_broker.port}/0",
        }
        members = Members(folder=folder, environment=environment)
        watching = threading.Thread(target=members.watch, daemon=True)
        watching.start()
        try:
            yield Cluster(
                folder=folder,
                name=name,
                database=database,
                broker=broker,
                to_database=to_database,
                to_broker=to_broker,
                to_provider=to_provider,
                provider=provider,
                documents=Documents(folder=folder / "documents"),
                members=members,
            )
        finally:
            provider.forgive()
            members.end()
            watching.join()


def _environment(folder: Path) -> dict[str, str]:
    return {
        **bare_environment(),
        "CHORDWISE_HOME": str(folder / "home"),
        "CHORDWISE_CONFIG": str(folder / "chordwise.toml"),
        "CHORDWISE_LOGGING__FORMAT": "json",
        "CHORDWISE_MODELS__PEER__API_KEY": API_KEY,
        "TMPDIR": str(folder / "tmp"),
    }
