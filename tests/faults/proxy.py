"""A TCP proxy that simulates network faults, switchable at any time.

`pass_on` ends a fault. A fault applies to old and new connections until the next call; `counts` are
its effects.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import TypeVar

_PIECE = 65_536
_PATIENCE_SECONDS = 5.0
_DRIP_SECONDS = 0.05
# The server's response shows that it has executed; without a response it gets this long.
_EXECUTION_SECONDS = 5.0
_HELD_BYTES = 1_048_576

Returned = TypeVar("Returned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The target of the proxy: a Unix socket, or a port of this machine."""

    path: Path | None = None
    port: int = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to the server."""
        if self.path is not None:
            return await asyncio.open_unix_connection(str(self.path), limit=_PIECE)
        return await asyncio.open_connection("127.0.0.1", self.port, limit=_PIECE)


class Mode(Enum):
    """The treatment of bytes."""

    PASSING = auto()
    REFUSING = auto()
    SWALLOWING = auto()


@dataclass(slots=True, eq=False)
class Link:
    """A client's connection; after lost bytes it is `mute`, and no bytes are forwarded."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    mute: bool = False
    doomed: bool = False
    held: bytearray = field(default_factory=bytearray)

    def reset(self) -> None:
        """Abort both sides with a RST."""
        for writer in (self.client, self.server):
            if writer is not None:
                _reset(writer)


@dataclass(slots=True, kw_only=True)
class _Trap:
    """Waits for bytes whose response is withheld from the client."""

    pattern: bytes
    holding: bytes
    left: int

    def catches(self, link: Link, data: bytes) -> bool:
        """Return whether these bytes of the client complete the awaited ones."""
        overlap = len(link.held)
        link.held += data
        position = link.held.find(self.pattern, max(0, overlap - len(self.pattern)))
        if position < 0:
            del link.held[:-_HELD_BYTES]
            return False
        caught = self.left > 0 and self.holding in link.held[:position]
        link.held.clear()
        self.left -= caught
        return caught


class Proxy:
    """Listens on a free port of an address; open it with `proxy_to`."""

    def __init__(self, target: Target, address: str) -> None:
        self.counts: Counter[str] = Counter()
        self.port = 0
        self._target = target
        self._address = address
        self._mode = Mode.PASSING
        self._delay_seconds = 0.0
        self._bytes_per_second = 0
        self._trap = _Trap(pattern=b"", holding=b"", left=0)
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._listener: asyncio.Server | None = None

    def pass_on(self) -> None:
        """Forward everything; connections that have lost bytes end on the server's side."""
        self._turn(Mode.PASSING)

    def cut(self) -> None:
        """Reset all connections; new ones are treated as before."""
        self._do(self._cut)

    def refuse(self) -> None:
        """Reset all connections, and each new one at once, until the next `pass_on`."""
        self._turn(Mode.REFUSING)
        self._do(self._cut)

    def swallow(self) -> None:
        """Keep all connections open and discard all bytes; new connections get no response."""
        self._turn(Mode.SWALLOWING)

    def delay(self, seconds: float) -> None:
        """Delay each piece of data by `seconds`, in both directions."""
        self._turn(Mode.PASSING, delay_seconds=seconds)

    def drip(self, bytes_per_second: int) -> None:
        """Limit the bytes per second in each direction of a connection."""
        self._turn(Mode.PASSING, bytes_per_second=bytes_per_second)

    def drop_answer_after(
        self, pattern: bytes, occurrences: int = 1, *, holding: bytes = b""
    ) -> None:
        """Forward bytes that contain `pattern`, then reset the client instead of responding.

        This is the ambiguous commit: psycopg ends a transaction with `COMMIT` and a zero byte. The
        bytes that the connection sent since the previous pattern must contain `holding`.
        """
        self._trap = _Trap(pattern=pattern, holding=holding, left=occurrences)

    @property
    def answers_dropped(self) -> int:
        """The number of responses that `drop_answer_after` has withheld."""
        return self.counts["answers dropped"]

    def start(self) -> None:
        self._thread.start()
        self._await(self._listen())

    def stop(self) -> None:
        """Reset open connections, stop listening, and end the thread."""
        self._await(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.close()

    def _turn(self, mode: Mode, *, delay_seconds: float = 0.0, bytes_per_second: int = 0) -> None:
        def turn() -> None:
            self._mode = mode
            self._delay_seconds = delay_seconds
            self._bytes_per_second = bytes_per_second
            if mode is Mode.PASSING:
                self._tell_servers()

        self._do(turn)

    def _tell_servers(self) -> None:
        for link in self._links:
            if link.mute and link.server is not None:
                _reset(link.server)

    def _cut(self) -> None:
        self.counts["connections cut"] += len(self._links)
        for link in list(self._links):
            link.reset()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, self._address, 0, limit=_PIECE)
        self.port = int(self._listener.sockets[0].getsockname()[1])

    async def _shut_down(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for link in list(self._links):
            link.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts["connections"] += 1
        link = Link(client=writer)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._links.add(link)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._serve(link, reader)
        finally:
            self._links.discard(link)
            link.reset()

    async def _serve(self, link: Link, reader: asyncio.StreamReader) -> None:
        if self._mode is Mode.REFUSING:
            self.counts["connections refused"] += 1
            return
        if self._mode is Mode.SWALLOWING:
            link.mute = True
            await self._hear_out(reader)
            return
        server_reader, link.server = await self._target.connect()
        up = asyncio.ensure_future(self._carry_up(link, reader))
        down = asyncio.ensure_future(self._carry_down(link, server_reader))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if link.mute and not up.done():
                await up  # a half-open connection ends when its client closes it
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _hear_out(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_PIECE):
            self.counts["bytes swallowed"] += len(data)

    async def _carry_up(self, link: Link, reader: asyncio.StreamReader) -> None:
        assert link.server is not None
        while data := await reader.read(_PIECE):
            if self._trap.pattern and self._trap.catches(link, data):
                link.doomed = True
                self._loop.call_later(_EXECUTION_SECONDS, link.reset)
            await self._carry(link, data, link.server)
        if self._mode is Mode.SWALLOWING:
            link.mute = True
            await asyncio.Event().wait()  # the server is not notified that its client has left

    async def _carry_down(self, link: Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_PIECE):
            if link.doomed:
                self.counts["answers dropped"] += 1
                link.reset()
                return
            await self._carry(link, data, link.client)
        if self._mode is Mode.SWALLOWING:
            link.mute = True

    async def _carry(self, link: Link, data: bytes, to: asyncio.StreamWriter) -> None:
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        if link.mute or self._mode is Mode.SWALLOWING:
            link.mute = True
            self.counts["bytes swallowed"] += len(data)
            return
        async for piece in self._paced(data):
            to.write(piece)
            await to.drain()

    async def _paced(self, data: bytes) -> AsyncIterator[bytes]:
        while data:
            pace = self._bytes_per_second
            step = max(1, int(pace * _DRIP_SECONDS)) if pace else len(data)
            yield data[:step]
            data = data[step:]
            if pace:
                await asyncio.sleep(step / pace)

    def _do(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        self._await(act())

    def _await(self, work: Coroutine[object, object, Returned]) -> Returned:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)


@contextmanager
def proxy_to(target: Target, address: str = "127.0.0.1") -> Iterator[Proxy]:
    """Run a proxy to a server inside the block, which listens at an address."""
    proxy = Proxy(target, address)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
