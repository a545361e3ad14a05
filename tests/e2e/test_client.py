"""The client for Python, with real workers: what a notebook and a nightly task do."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise import AsyncClient, Client
from chordwise.errors import UsageError
from tests.e2e.conftest import Stage

ITEMS = "annual fee, effective date"
TEXTS = {
    "lease.txt": "Lease. The annual fee is 48,600.00 EUR. It is effective as of 1 May 2026.",
    "supply.txt": "Supply. The annual fee is 12,000.50 USD. It is effective as of 2 June 2026.",
}


@pytest.fixture
def client(stage: Stage, database_url: SecretStr, broker_url: SecretStr) -> Client:
    """Return a client of servers that are there, with processes at work."""
    stage.processes.start("scheduler")
    stage.processes.start("worker")
    for name, text in TEXTS.items():
        (stage.folder / name).write_text(text, "utf-8")
    return Client(
        config=stage.folder / "chordwise.toml",
        home=stage.folder / "home",
        database_url=database_url.get_secret_value(),
        broker_url=broker_url.get_secret_value(),
    )


def test_a_run_from_its_beginning_to_a_data_frame(client: Client, stage: Stage) -> None:
    """Submit, read as completed, correct, and look at the whole."""
    pattern = str(stage.folder / "*.txt")
    asked = {"types": ["extraction"], "instructions": ITEMS, "model": "extractive"}
    with client:
        quoted = client.quote(pattern, **asked)  # type: ignore[arg-type]
        run = client.submit(pattern, **asked, save_as="contracts", run_name="first")  # type: ignore[arg-type]
        found = {result.document: result for result in run.results(as_completed=True)}
        again = client.submit(pattern, **asked, save_as="contracts", run_name="first")  # type: ignore[arg-type]
        stored = run.feedback("lease", correct={"annual fee": "50,000 EUR"}, author="Ada")
        corrected = {result.document: result for result in client.run("first").results()}
        rows = client.sql("SELECT document, annual_fee FROM answers.contracts ORDER BY 1")
        pandas, polars, arrow = run.to_pandas(), run.to_polars(), run.to_arrow()
        account = run.wait(timeout=5)

    assert quoted.lines[0].questions == 2
    assert found.keys() == TEXTS.keys()
    fee = found["lease.txt"].facts["annual fee"]
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


def test_a_name_that_asks_something_else_is_refused(client: Client, stage: Stage) -> None:
    """A task that is repeated submits once, and never something else under the same name."""
    lease = stage.folder / "lease.txt"
    with client:
        client.submit(lease, types=["classification"], labels=["lease", "supply"], run_name="one")

        with pytest.raises(UsageError, match="asks something else"):
            client.submit(lease, types=["classification"], labels=["a", "b"], run_name="one")
        with pytest.raises(TimeoutError):
            client.run("one").wait(timeout=0)


def test_the_client_for_asyncio(client: Client, stage: Stage, database_url: SecretStr) -> None:
    client.close()

    async def work(file: Path) -> tuple[list[str], int]:
        asynchronous = AsyncClient(
            config=stage.folder / "chordwise.toml",
            home=stage.folder / "home",
            database_url=database_url.get_secret_value(),
            broker_url=stage.processes.environment["CHORDWISE_BROKER_URL"],
        )
        async with asynchronous:
            run = await asynchronous.submit(file, types=["sentiment"], model="extractive")
            found = [each.document async for each in run.results(as_completed=True)]
            account = await run.wait(timeout=30)
            assert account.is_complete
            return found, await run.cancel()

    assert asyncio.run(work(stage.folder / "lease.txt")) == (["lease.txt"], 0)
