"""Tests of the Python client with real workers, as a notebook or a nightly task uses it."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise import AsyncClient, Client, Profile
from chordwise.client import AsyncRun, Run
from chordwise.errors import UsageError
from chordwise.pipeline.diagnosis.doctor import diagnose
from chordwise.pipeline.diagnosis.outcome import Check, CheckStatus
from chordwise.pipeline.runtime import broker
from chordwise.settings import load
from tests.conftest import Servers
from tests.e2e.conftest import Stage, stage_at_work
from tests.fakes.configuration import configuration
from tests.fakes.databases import Databases
from tests.fakes.processes import ROOT, completed, wait_until
from tests.peers.answering_server import serving

pytestmark = pytest.mark.xdist_group("client")

ITEMS = "annual fee, effective date"
TEXTS = {
    "lease.txt": "Lease. The annual fee is 48,600.00 EUR. It is effective as of 1 May 2026.",
    "supply.txt": "Supply. The annual fee is 12,000.50 USD. It is effective as of 2 June 2026.",
}


PROFILE = """
[profiles.contracts]
types = ["extraction", "classification"]
instructions = "governing law, term"
labels = ["lease", "supply"]
model = "extractive"
"""


@pytest.fixture(scope="module")
def stage(
    servers: Servers, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Prepare one environment for all tests of this module, with running processes."""
    folder = tmp_path_factory.mktemp("client")
    for name, text in TEXTS.items():
        (folder / name).write_text(text, "utf-8")
    with serving(delay_seconds=0.5) as provider:
        settings = configuration(provider.base_url, more=PROFILE)
        with stage_at_work(folder, settings, provider, servers, databases) as stage_with_workers:
            yield stage_with_workers


@pytest.fixture
def addresses(stage: Stage) -> Mapping[str, str | Path]:
    environment = stage.processes.environment
    return {
        "config": stage.folder / "chordwise.toml",
        "home": stage.folder / "home",
        "database_url": environment["CHORDWISE_DATABASE_URL"],
        "broker_url": environment["CHORDWISE_BROKER_URL"],
    }


@pytest.fixture
def client(addresses: Mapping[str, str | Path]) -> Client:
    return Client(**addresses)  # type: ignore[arg-type]  # each value has the type of its argument


def test_the_idle_worker_of_another_home_is_running(stage: Stage) -> None:
    """It has no session in the database, and no heartbeat in this home."""
    settings = load(
        home=stage.folder / "elsewhere",
        database_url=stage.processes.environment["CHORDWISE_DATABASE_URL"],
        broker_url=stage.processes.environment["CHORDWISE_BROKER_URL"],
    )

    def processes() -> Check:
        (check,) = [check for check in diagnose(settings) if check.name == "processes"]
        return check

    wait_until(lambda: broker.has_worker(settings), 30, "the worker waits for messages")
    wait_until(lambda: processes().status is CheckStatus.OK, 30, "the scheduler is connected")
    assert processes().finding.startswith("connected from another home or machine:")


def test_a_run_from_submission_to_data_frames(client: Client, stage: Stage) -> None:
    """Quote, submit, read results as completed, correct one, and load the rows as data frames."""
    pattern = str(stage.folder / "*.txt")
    profile = Profile(
        types=["extraction"], instructions=ITEMS, model="extractive", save_as="contracts"
    )
    with client:
        quoted = client.quote(pattern, profile)
        run = client.submit(pattern, profile, run_name="first")
        results = {result.document: result for result in run.results(as_completed=True)}
        again = client.submit(pattern, profile, run_name="first")
        stored = run.feedback("lease", correct={"annual fee": "50,000 EUR"}, author="Ada")
        corrected = {result.document: result for result in client.run("first").results()}
        rows = client.sql("SELECT document, annual_fee FROM answers.contracts ORDER BY 1")
        pandas, polars, arrow = run.to_pandas(), run.to_polars(), run.to_arrow()
        account = run.wait(timeout=5)

    assert quoted.lines[0].questions == 2
    assert results.keys() == TEXTS.keys()
    fee = results["lease.txt"].facts["annual fee"]
    assert (fee.number, fee.currency, fee.grounded) == (Decimal("48600.00"), "EUR", True)
    assert fee.quote is not None
    assert "48,600.00 EUR" in fee.quote
    assert again.id == run.id
    assert stored == 1
    value = corrected["lease.txt"].facts["annual fee"]
    assert (value.value, value.original) == ("50,000 EUR", fee.value)
    assert [float(str(row["annual_fee"])) for row in rows] == [50_000, 12_000.5]
    assert account.is_complete
    assert pandas["annual_fee"].sum() == polars["annual_fee"].sum() == 62_000.5
    assert str(pandas["effective_date"].dtype).startswith("datetime64")
    assert arrow.num_rows == 2


def test_mistakes_are_refused_by_name(
    client: Client, stage: Stage, addresses: Mapping[str, str | Path]
) -> None:
    lease = stage.folder / "lease.txt"
    with client:
        with pytest.raises(UsageError, match="Labels apply only to classifications"):
            client.submit(lease, Profile(types=["summary"], labels=["a", "b"]))
        with pytest.raises(UsageError, match="no argument “run_nam”") as refused:
            client.submit(lease, run_nam="one")  # type: ignore[call-arg]  # the mistake
        assert refused.value.hint.startswith("Similar: run_name")
        with pytest.raises(UsageError, match="no argument “modle”") as refused:
            Client(**addresses, modle="extractive")  # type: ignore[arg-type]  # as above
        assert refused.value.hint.startswith("Similar: model, models, ")
        changed = Profile(instructions="the term")
        run = client.submit(lease, changed, profile="contracts")
        run.wait(timeout=60)
        types = {one.analysis_type for one in run.results(types="extraction")}
        newest = {one.analysis_type for one in client.results(types="extraction", document="lease")}
        client.submit(lease, Profile(labels=["lease", "supply"]), run_name="one")
        with pytest.raises(UsageError, match="with other options"):
            client.submit(lease, Profile(), run_name="one")
        with pytest.raises(TimeoutError):
            client.run("one").wait(timeout=0)
        with pytest.raises(UsageError, match="no analysis type “rows”"):
            next(client.run("one").results(types=["rows"]))
    assert types == newest == {"extraction"}


@pytest.mark.parametrize(("other", "of"), [(AsyncClient, Client), (AsyncRun, Run)])
def test_the_asynchronous_objects_have_the_same_calls(other: type, of: type) -> None:
    def calls(of: type) -> dict[str, list[str]]:
        functions = inspect.getmembers(of, inspect.isfunction)
        return {
            name: list(inspect.signature(call).parameters)
            for name, call in functions
            if not name.startswith("_")
        }

    assert calls(other) == calls(of)


SNIPPET = re.compile(r"(?ms)^```python\n(.*?)^```")
# Pages in the order in which their snippets need each other.
PAGES = ("README.md", "docs/python.md", "docs/exports.md")
# Modules in place of Airflow and Dagster, which run a task when it is declared.
SCHEDULERS = {
    "airflow/__init__.py": "",
    "airflow/exceptions.py": "AirflowException = RuntimeError\n",
    "airflow/sdk.py": """
def dag(**_):
    return lambda function: function
def task(**_):
    return lambda function: lambda: function("2026-01-01")
""",
    "dagster.py": """
from types import SimpleNamespace
AssetExecutionContext, Failure = SimpleNamespace, RuntimeError
DailyPartitionsDefinition = RetryPolicy = dict
def asset(**_):
    return lambda function: function(SimpleNamespace(partition_key="2026-01-01"))
""",
}


_END = "--- end of a snippet ---"
# One process imports the libraries once; each snippet has names and a client of its own.
_PROGRAM_OF_SNIPPETS = f"""
import json, sys
from chordwise import Client
for source in json.loads(sys.argv[1]):
    names = {{"client": Client(), "Client": Client}}
    exec(compile(source, source, "exec"), names)
    print({_END!r})
"""


def snippets(page: Path) -> list[str]:
    return [str(snippet) for snippet in SNIPPET.findall(page.read_text("utf-8"))]


def test_every_snippet_of_the_documentation_runs(
    stage: Stage, addresses: Mapping[str, str | Path], tmp_path: Path
) -> None:
    """Only the names of folders and servers are replaced by those of the test."""
    for folder in ("contracts", "2026-01-01"):
        (stage.folder / folder).mkdir()
        for number in range(3):
            text = f"Contract {number} in {folder} is governed by the laws of Ohio."
            text += " The term is three years."
            (stage.folder / folder / f"{number}.txt").write_text(text, "utf-8")
    for name, source in SCHEDULERS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source, "utf-8")
    url = str(addresses["database_url"])
    replaced = {
        '"/data/': f'"{stage.folder}/',
        '"ADDRESS"': repr(url.replace("postgresql:", "postgresql+psycopg:")),
        '"postgresql+psycopg://chordwise@db.example/chordwise"': repr(url),
        '"redis://broker.example:6379/0"': repr(addresses["broker_url"]),
    }

    sources = [snippet for page in PAGES for snippet in snippets(ROOT / page)]
    for place, replacement in replaced.items():
        sources = [source.replace(place, replacement) for source in sources]
    done = completed(
        sys.executable,
        "-c",
        _PROGRAM_OF_SNIPPETS,
        json.dumps(sources),
        environment={**stage.processes.environment, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        folder=stage.folder,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split(_END)[:-1]

    assert "0.txt laws of Ohio" in printed[0]
    every_page = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert len(printed) == sum(len(snippets(page)) for page in every_page)


def test_the_client_for_asyncio(addresses: Mapping[str, str | Path], stage: Stage) -> None:
    async def work(file: Path) -> tuple[list[str], int]:
        async with AsyncClient(**addresses) as asynchronous:  # type: ignore[arg-type]  # as above
            run = await asynchronous.submit(file, Profile(types=["sentiment"], model="extractive"))
            documents = [result.document async for result in run.results(as_completed=True)]
            account = await run.wait(timeout=30)
            assert account.is_complete
            return documents, await run.cancel()

    # Playwright's event loop may run in this thread.
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(asyncio.run, work(stage.folder / "lease.txt")).result()
    assert done == (["lease.txt"], 0)
