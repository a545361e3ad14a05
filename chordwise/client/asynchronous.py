"""The client for asyncio; each call runs in a thread."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack

from chordwise.client.client import NO_OPTIONS, Client, Paths
from chordwise.client.run import Run
from chordwise.pipeline.intake.run_options import RunArguments
from chordwise.pipeline.learning.refresh import RefreshArguments
from chordwise.settings import Profile

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")
Of = TypeVar("Of")
Returned = TypeVar("Returned")


class _Asynchronous(Generic[Of]):
    """Runs the methods of an object in threads; `sync` is the object."""

    def __init__(self, sync: Of) -> None:
        self.sync = sync


def _in_a_thread(
    method: Callable[Concatenate[Of, Arguments], Returned],
) -> Callable[Concatenate[_Asynchronous[Of], Arguments], Coroutine[None, None, Returned]]:
    """Return a coroutine function that runs a method in a thread."""

    @functools.wraps(method)
    async def call(
        self: _Asynchronous[Of], /, *args: Arguments.args, **options: Arguments.kwargs
    ) -> Returned:
        return await asyncio.to_thread(method, self.sync, *args, **options)

    return call


def _each(
    method: Callable[Concatenate[Of, Arguments], Iterator[Item]],
) -> Callable[Concatenate[_Asynchronous[Of], Arguments], AsyncIterator[Item]]:
    """Return a function that iterates over the items of a method in threads."""

    @functools.wraps(method)
    async def call(
        self: _Asynchronous[Of], /, *args: Arguments.args, **options: Arguments.kwargs
    ) -> AsyncIterator[Item]:
        items = method(self.sync, *args, **options)
        while (item := await asyncio.to_thread(next, items, None)) is not None:
            yield item

    return call


class AsyncClient(_Asynchronous[Client]):
    """`Client` for asyncio; its methods have the same arguments."""

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
        super().__init__(
            Client(
                database_url=database_url,
                broker_url=broker_url,
                config=config,
                home=home,
                **settings,
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    close = _in_a_thread(Client.close)
    quote = _in_a_thread(Client.quote)
    certify = _in_a_thread(Client.certify)
    decide = _in_a_thread(Client.decide)
    stale_answers = _in_a_thread(Client.stale_answers)
    start_experiment = _in_a_thread(Client.start_experiment)
    experiment = _in_a_thread(Client.experiment)
    conclude_experiment = _in_a_thread(Client.conclude_experiment)
    sql = _in_a_thread(Client.sql)
    ask = _in_a_thread(Client.ask)
    results = _each(Client.results)
    cells_to_check = _each(Client.cells_to_check)
    answers_to_check = _each(Client.answers_to_check)

    async def submit(
        self, paths: Paths, options: Profile = NO_OPTIONS, **arguments: Unpack[RunArguments]
    ) -> AsyncRun:
        """Take in documents and return the run that analyzes them; see `Client.submit`."""
        return AsyncRun(await asyncio.to_thread(self.sync.submit, paths, options, **arguments))

    async def run(self, name: str = "latest") -> AsyncRun:
        """Return a run by its name or id."""
        return AsyncRun(await asyncio.to_thread(self.sync.run, name))

    async def runs(self, limit: int = 100) -> list[AsyncRun]:
        """Return the newest runs, newest first."""
        return [AsyncRun(run) for run in await asyncio.to_thread(self.sync.runs, limit)]

    async def refresh(
        self, name: str | None = None, **arguments: Unpack[RefreshArguments]
    ) -> AsyncRun | None:
        """Renew the stale answers of a run or a profile in a new run; `None` if there are none."""
        run = await asyncio.to_thread(self.sync.refresh, name, **arguments)
        return None if run is None else AsyncRun(run)


class AsyncRun(_Asynchronous[Run]):
    """`Run` for asyncio; its methods have the same arguments."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.id = run.id
        self.name = run.name

    progress = _in_a_thread(Run.progress)
    account = _in_a_thread(Run.account)
    failures = _in_a_thread(Run.failures)
    feedback = _in_a_thread(Run.feedback)
    to_arrow = _in_a_thread(Run.to_arrow)
    to_pandas = _in_a_thread(Run.to_pandas)
    to_polars = _in_a_thread(Run.to_polars)
    wait = _in_a_thread(Run.wait)
    retry = _in_a_thread(Run.retry)
    cancel = _in_a_thread(Run.cancel)
    results = _each(Run.results)
