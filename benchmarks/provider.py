"""An OpenAI-compatible server with a fixed latency, in a separate process.

    python -m benchmarks.provider --latency 0.5 --content TEXT

The process prints its port and serves until it is terminated. `GET /stats` returns the counts since
the last `GET /reset`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import cast

from benchmarks.machine import raise_file_limit

# A valid answer to every question about a summary; each document contains the quotes.
SUMMARY = {
    "main_topic": "A document.",
    "key_findings": [
        {"finding": "First.", "quote": "Document"},
        {"finding": "Second.", "quote": "the"},
        {"finding": "Third.", "quote": "and"},
    ],
    "conclusions": ["It ends."],
    "confidence": 8,
}
_BACKLOG = 4096


@dataclass(slots=True, kw_only=True)
class Counts:
    """Calls since the last reset; `first` and `last` are seconds on the provider's clock."""

    calls: int = 0
    in_flight: int = 0
    peak: int = 0
    first: float = 0.0
    last: float = 0.0

    @property
    def seconds(self) -> float:
        """Time from the first request to the last response."""
        return self.last - self.first


class _Connection(asyncio.Protocol):
    """A connection: answers each request after the latency."""

    def __init__(self, counts: Counts, latency: float, answer: bytes) -> None:
        self._counts = counts
        self._latency = latency
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from those of asyncio.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            _, _, length = head.partition(b"content-length:")
            size = end + 4 + int(length.split(b"\r\n")[0] or 0)
            if len(self._received) < size:
                return
            self._received = self._received[size:]
            self._serve(head.split(b" ")[1])

    def _serve(self, path: bytes) -> None:
        if path == b"/stats":
            self._transport.write(_response(json.dumps(asdict(self._counts)).encode()))
        elif path == b"/reset":
            self._counts.calls = self._counts.peak = 0
            self._counts.first = self._counts.last = 0.0
            self._transport.write(_response(b"{}"))
        else:
            self._counts.in_flight += 1
            self._counts.peak = max(self._counts.peak, self._counts.in_flight)
            self._counts.first = self._counts.first or time.monotonic()
            asyncio.get_running_loop().call_later(self._latency, self._reply)

    def _reply(self) -> None:
        self._counts.in_flight -= 1
        self._counts.calls += 1
        self._counts.last = time.monotonic()
        if not self._transport.is_closing():
            self._transport.write(self._answer)


def _response(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def _completion(content: str) -> bytes:
    message = {"role": "assistant", "content": content, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 800, "completion_tokens": 60, "total_tokens": 860}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
    return _response(json.dumps({**body, "choices": [choice], "usage": usage}).encode())


async def _serve(latency: float, content: str) -> None:
    counts, answer = Counts(), _completion(content)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(counts, latency, answer), "127.0.0.1", 0, backlog=_BACKLOG
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A running provider, as seen by the process that started it."""

    port: int
    latency: float

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def reset(self) -> None:
        """Reset the counts."""
        self._get("reset")

    def counts(self) -> Counts:
        """Return the counts since the last reset."""
        return Counts(**json.loads(self._get("stats")))

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}") as response:
            return bytes(response.read())


@contextlib.contextmanager
def running(latency: float, content: str = "") -> Iterator[Provider]:
    """Run a provider that answers after `latency` seconds, by default with a valid summary."""
    command = [sys.executable, "-m", "benchmarks.provider", "--latency", str(latency)]
    command += ["--content", content or json.dumps(SUMMARY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - requested above
            yield Provider(port=int(process.stdout.readline()), latency=latency)
        finally:
            process.terminate()


def main() -> None:
    """Serve until the process is terminated."""
    import uvloop  # noqa: PLC0415 - only this process needs it

    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, required=True)
    parser.add_argument("--content", required=True)
    options = parser.parse_args()
    raise_file_limit()
    uvloop.run(_serve(options.latency, options.content))


if __name__ == "__main__":
    main()
