"""The client for asyncio: the same, with each call in a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Self, Unpack

from chordwise.client.client import (
    AnalysisArguments,
    Client,
    ExperimentArguments,
    Paths,
    RefreshArguments,
    RunArguments,
)
from chordwise.client.run import Result, Run
from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.truths import Verdict
from chordwise.domain.tasks import AnalysisType
from chordwise.pipeline.learning.certification import Certified
from chordwise.pipeline.learning.experiments import Status
from chordwise.pipeline.learning.refresh import Stale
from chordwise.pipeline.learning.review import Question
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

    async def certify(
        self,
        name: str | None = None,
        *,
        types: Sequence[AnalysisType | str] = (),
        max_error: float | str = 0.02,
        risk: float | str = 0.05,
    ) -> Sequence[Certified]:
        """Mark what may be accepted without looking, and return what that says of each field."""
        return await asyncio.to_thread(
            self._client.certify, name, types=types, max_error=max_error, risk=risk
        )

    async def to_check(
        self, field: str, name: str | None = None, *, types: Sequence[AnalysisType | str] = ()
    ) -> AsyncIterator[Question]:
        """Yield the answers that certifying a field or label needs checked."""
        found = self._client.to_check(field, name, types=types)
        while (question := await asyncio.to_thread(next, found, None)) is not None:
            yield question

    async def decide(
        self,
        question: Question,
        verdict: Verdict | str,
        value: JsonValue = None,
        *,
        author: str = "",
    ) -> bool:
        """Say of an answer that it is approved, rejected, or corrected; return if that is new."""
        return await asyncio.to_thread(self._client.decide, question, verdict, value, author=author)

    async def stale(
        self, name: str | None = None, **arguments: Unpack[RefreshArguments]
    ) -> Sequence[Stale]:
        """Return how many answers of a run or a profile are stale, and why."""
        return await asyncio.to_thread(self._client.stale, name, **arguments)

    async def refresh(
        self, name: str | None = None, **arguments: Unpack[RefreshArguments]
    ) -> AsyncRun | None:
        """Ask again where answers of a run or a profile are stale; `None` where none is."""
        run = await asyncio.to_thread(self._client.refresh, name, **arguments)
        return None if run is None else AsyncRun(run)

    async def start_experiment(
        self,
        name: str,
        profile: str,
        variants: Mapping[str, Mapping[str, object]],
        **arguments: Unpack[ExperimentArguments],
    ) -> Status:
        """Compare a profile with variants of it."""
        return await asyncio.to_thread(
            self._client.start_experiment, name, profile, variants, **arguments
        )

    async def experiment(self, name: str) -> Status:
        """Return how the variants of an experiment compare by now."""
        return await asyncio.to_thread(self._client.experiment, name)

    async def conclude_experiment(self, name: str) -> Status:
        """End an experiment; its answers stay."""
        return await asyncio.to_thread(self._client.conclude_experiment, name)

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
