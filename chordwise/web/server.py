"""The server of the pages: the port, the link with its token, and shutdown on a signal."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from signal import Signals

import uvicorn
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from chordwise.embedded import processes, stack
from chordwise.embedded.home import (
    Home,
    ServerAddress,
    home_at,
    make_folder,
    write_private,
)
from chordwise.errors import ConfigurationError, ServiceUnavailableError
from chordwise.settings import Settings
from chordwise.storage import closed_profiles
from chordwise.storage.database import Database, open_engine, require_compatible
from chordwise.storage.postgresql import admitted
from chordwise.web import uploads
from chordwise.web.access_control import TOKEN, rules_for
from chordwise.web.application import create_app
from chordwise.web.site import Site

_CONNECTIONS = 10
_KEEP_ALIVE_SECONDS = 30.0
_FORGET_SECONDS = 3_600.0
_LEAVING_SECONDS = 1
_REQUEST_SECONDS = 20.0
_WRITE_SECONDS = 30.0
# Each connection has a file descriptor, and the database and the files need others.
_MAX_CONNECTIONS = min(400, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
# The server accepts as many connections at once, before it counts them.
_BACKLOG = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The running server: its link, and `stop`, which any thread may call.

    The link contains a token if the pages are for this machine only.
    """

    link: str
    stop: Callable[[], None]


def serve(settings: Settings, on_ready: Callable[[Served], None]) -> None:
    """Serve the pages until a signal arrives; the settings hold the addresses of the services.

    Raises:
        ConfigurationError: The address cannot be used, or the pages would be open to others.
    """
    url = settings.require_database_url()
    home = home_at(settings.home)
    for folder in (home.path, home.run, home.web):
        make_folder(folder)
    rules = rules_for(settings.web, settings.web.address, secrets.token_urlsafe())
    engine = open_engine(url, pool_size=_CONNECTIONS, name="chordwise web")
    site = Site(settings=settings, database=Database(engine, closed_profiles.restrict))
    try:
        with suppress(ServiceUnavailableError):  # the pages report it and retry
            admitted(lambda: require_compatible(engine))
        # Browsers share cookies between all ports of a host.
        digest = hashlib.sha256(bytes(home.path)).hexdigest()
        app = create_app(site, rules, f"chordwise-{digest[:8]}")
        # An embedded stack in the background keeps running while pages are served.
        keep_up = partial(stack.touch_last_used, settings.home)
        forget = partial(uploads.forget, home, site.database)
        with (
            _listener(settings, home) as listener,
            processes.repeating(keep_up, _KEEP_ALIVE_SECONDS),
            processes.repeating(forget, _FORGET_SECONDS),
        ):
            base = rules.public_url or _address(listener)
            link = f"{base}/?{TOKEN}={rules.token}" if rules.token else f"{base}/"
            server = _Server(app)
            served = Served(link=link, stop=server.stop)
            server.while_serving = partial(_published, home, served, on_ready)
            site.is_stopping = lambda: server.should_exit
            server.run(sockets=[listener])
    finally:
        site.close()
        # Threads that still run a query first return their connections to the pool.
        processes.wait_until(lambda: _is_idle(engine), _LEAVING_SECONDS)
        engine.dispose()


def _is_idle(engine: Engine) -> bool:
    return not isinstance(engine.pool, QueuePool) or engine.pool.checkedout() == 0


class _Connection(H11Protocol):
    """A connection that is closed if its client takes too long to send a request or to receive.

    If there are too many, the one is closed that has waited longest for a request. None of this is
    logged, since anybody can cause it.
    """

    request_timer: asyncio.TimerHandle
    _write_timer: asyncio.TimerHandle

    def connection_made(
        self,
        transport: asyncio.Transport,  # type: ignore[override]  # as in uvicorn
    ) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_request()
        if len(self.connections) > _MAX_CONNECTIONS:
            peers = (peer for peer in self.connections if isinstance(peer, _Connection))
            waiting = (peer for peer in peers if not peer.is_answering)
            longest = min(waiting, key=lambda peer: peer.request_timer.when())
            self.connections.discard(longest)
            longest.transport.abort()

    @property
    def is_answering(self) -> bool:
        """Whether a request has arrived and is not answered yet."""
        last: RequestResponseCycle | None = self.cycle
        return last is not None and not last.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection."""
        self.request_timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request; this may begin to answer one that has arrived."""
        self.request_timer.cancel()
        self._await_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Begin to wait for the client to receive what was sent."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(_WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has received it."""
        self._write_timer.cancel()
        super().resume_writing()

    def _await_request(self) -> None:
        answered = self.cycle

        def close() -> None:
            if self.cycle is answered:
                self.transport.abort()

        self.request_timer = self.loop.call_later(_REQUEST_SECONDS, close)


class _Server(uvicorn.Server):
    """A server that stops on SIGINT and SIGTERM without re-raising them."""

    while_serving: Callable[[], AbstractContextManager[None]]

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
                backlog=_BACKLOG,
                log_config=None,
                access_log=False,
                server_header=False,
                # Otherwise every local process could forge the client's address.
                proxy_headers=False,
                timeout_graceful_shutdown=_LEAVING_SECONDS,
                lifespan="off",
            )
        )

    def stop(self) -> None:
        """Make `run` return within a moment."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on the first signal; further signals have no additional effect."""
        with processes.handle_signals((Signals.SIGINT, Signals.SIGTERM), self.handle_exit):
            yield

    async def main_loop(self) -> None:
        """Serve requests until the server stops, inside `while_serving`."""
        with self.while_serving():
            await super().main_loop()


@contextmanager
def _published(home: Home, served: Served, on_ready: Callable[[Served], None]) -> Iterator[None]:
    """Call `on_ready`, and store the link in a private file until the block ends."""
    address = ServerAddress(url=served.link, server=processes.own_identity())
    write_private(home.web_link_file, address.model_dump_json())
    try:
        on_ready(served)
        yield
    finally:
        home.web_link_file.unlink(missing_ok=True)


def _listener(settings: Settings, home: Home) -> socket.socket:
    """Return a socket at the address; port 0 reuses the port chosen last time if it is free.

    Raises:
        ConfigurationError: The port is in use, or the address does not belong to this machine.
    """
    address, port = settings.web.address, settings.web.port
    port_file = home.web / "port"
    with suppress(OSError, ValueError):
        return _bound(address, port or int(port_file.read_text("utf-8")))
    try:
        listener = _bound(address, port)
    except OSError as error:
        raise ConfigurationError(
            f"The pages cannot be served at {address}, port {port}: {error.strerror}.",
            "Choose another --port; 0 selects a free one.",
        ) from error
    write_private(port_file, str(listener.getsockname()[1]))
    return listener


def _bound(address: str, port: int) -> socket.socket:
    family, kind, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError:
        listener.close()
        raise
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
