"""A TLS server on loopback that forwards every connection to a Unix socket."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PIECE = 65_536


@contextmanager
def tls_tunnel(context: ssl.SSLContext, target: Path) -> Iterator[int]:
    """Listen inside the block; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, context, target), daemon=True).start()
        yield int(listener.getsockname()[1])


def _accept(listener: socket.socket, context: ssl.SSLContext, target: Path) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the block has ended
        threading.Thread(target=_serve, args=(client, context, target), daemon=True).start()


def _serve(client: socket.socket, context: ssl.SSLContext, target: Path) -> None:
    # A client that does not trust the certificate disconnects during the handshake.
    with (
        client,
        suppress(OSError),
        context.wrap_socket(client, server_side=True) as source,
        socket.socket(socket.AF_UNIX) as server,
    ):
        server.connect(str(target))
        relay(source, server)


def relay(client: socket.socket, server: socket.socket) -> None:
    """Forward bytes in both directions until both have ended."""
    back = threading.Thread(target=_copy, args=(server, client), daemon=True)
    back.start()
    _copy(client, server)
    back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
