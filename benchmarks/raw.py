"""Raw HTTP clients, which show what the machine allows.

    python -m benchmarks.raw httpx URL CALLS IN_FLIGHT

`httpx` uses one thread with its own client per call in flight; `aiohttp` uses one event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import threading

import aiohttp
import httpx

from benchmarks.documents import text
from benchmarks.machine import raise_file_limit

_TIMEOUT_SECONDS = 60.0


def ask_by_httpx(url: str, calls: int, in_flight: int) -> None:
    """Make the calls from `in_flight` threads."""
    taken = itertools.count()

    def ask() -> None:
        with httpx.Client(timeout=_TIMEOUT_SECONDS) as client:
            # Taking a number is atomic in the interpreter, so no call is made twice.
            while next(taken) < calls:
                client.post(url, json=_request()).raise_for_status().json()

    threads = [threading.Thread(target=ask) for _ in range(in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def ask_by_aiohttp(url: str, calls: int, in_flight: int) -> None:
    """Make the calls from `in_flight` coroutines."""
    taken = iter(range(calls))
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def ask() -> None:
            for _ in taken:
                async with session.post(url, json=_request()) as response:
                    response.raise_for_status()
                    await response.json()

        await asyncio.gather(*(ask() for _ in range(in_flight)))


def _request() -> dict[str, object]:
    """Return a request of the size of a Chordwise request with a chunk of 750 tokens."""
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": _TEXT}]}


_TEXT = text(0, 4000)


def main() -> None:
    """Make the calls."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=["httpx", "aiohttp"])
    parser.add_argument("url")
    parser.add_argument("calls", type=int)
    parser.add_argument("in_flight", type=int)
    options = parser.parse_args()
    raise_file_limit()
    url = f"{options.url}/chat/completions"
    if options.client == "httpx":
        ask_by_httpx(url, options.calls, options.in_flight)
    else:
        asyncio.run(ask_by_aiohttp(url, options.calls, options.in_flight))


if __name__ == "__main__":
    main()
