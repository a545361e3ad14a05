"""The client for asyncio: the same, with each call in a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Self, Unpack

from chordwise.client.client import AnalysisArguments, Client, Paths, RunArguments
from chordwise.client.run import Result, Run
from chordwise.domain.json_values import JsonValue
from chordwise.pipeline.quoting.quote import Quote
from chordwise.pipeline.runs.accounts import Account
from chordwise.pipeline.runs.progress import Progress


class AsyncClient:
    """`Client` for asyncio; see there."""

    def __init__(
        self,
        *,
        database_url: str | None = None,
        broker_url: str | None = None,
        config: str | os.PathLike[str] | None = None,
        home: str | os.PathLike[str] | None = None,
        **settings: object,
    ) -> None:
        """Read the settings."""
        self._client = Client(
            database_url=database_url, broker_url=broker_url, config=config, home=home, **settings
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; runs go on."""
        await asyncio.to_thread(self._client.close)

    async def submit(self, paths: Paths, **arguments: Unpack[RunArguments]) -> AsyncRun:
        """Take documents in, and return the run that analyzes them."""
        return AsyncRun(await asyncio.to_thread(self._client.submit, paths, **arguments))

    async def quote(self, paths: Paths, **arguments: Unpack[AnalysisArguments]) -> Quote:
        """Return what an analysis would take and cost."""
        return await asyncio.to_thread(self._client.quote, paths, **arguments)

    async def run(self, name: str = "latest") -> AsyncRun:
        """Return a run by its name or id."""
        return AsyncRun(await asyncio.to_thread(self._client.run, name))

    async def sql(self, statement: str) -> list[dict[str, object]]:
        """Return the rows of a statement that reads."""
        return await asyncio.to_thread(self._client.sql, statement)


class AsyncRun:
    """`Run` for asyncio; `sync` is the run itself, with everything else that it can."""

    def __init__(self, run: Run) -> None:
        self.sync = run
        self.id = run.id
        self.name = run.name

    async def progress(self) -> Progress:
        """Return how far the run has come."""
        return await asyncio.to_thread(self.sync.progress)

    async def wait(self, *, timeout: float | None = None) -> Account:  # noqa: ASYNC109 - as in Run
        """Wait until the run is over, and return its account."""
        return await asyncio.to_thread(self.sync.wait, timeout=timeout)

    async def results(
        self, *, as_completed: bool = False, types: Sequence[str] = ()
    ) -> AsyncIterator[Result]:
        """Yield the results: those there are, or as they are made."""
        found = self.sync.results(as_completed=as_completed, types=types)
        while (result := await asyncio.to_thread(next, found, None)) is not None:
            yield result

    async def retry(self, *, budget_usd: Decimal | float | None = None) -> int:
        """Retry what has not succeeded; return how many analyses that are."""
        return await asyncio.to_thread(self.sync.retry, budget_usd=budget_usd)

    async def cancel(self) -> int:
        """Cancel what has not ended; return how many analyses that were."""
        return await asyncio.to_thread(self.sync.cancel)

    async def correct(self, document: str, values: Mapping[str, JsonValue]) -> int:
        """Say what values of a document should be; return how much was new."""
        return await asyncio.to_thread(self.sync.feedback, document, correct=values)
