"""Further endpoints of the provider: with TLS, or on the IPv6 loopback address."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

from tests.faults.provider import Provider
from tests.peers.tls_tunnel import relay


class Front(ThreadingTCPServer):
    """Forwards connections to the provider; `context` may be replaced while it serves."""

    daemon_threads = True

    def __init__(self, provider: Provider, context: ssl.SSLContext | None, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Carrier)
        self.provider_port = provider.target.port
        self.context = context

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Carrier(BaseRequestHandler):
    server: Front
    request: socket.socket

    def handle(self) -> None:
        client = self.request
        # A client that rejects the certificate aborts the handshake.
        with suppress(OSError):
            if self.server.context is not None:
                client = self.server.context.wrap_socket(client, server_side=True)
            with client, socket.create_connection(("127.0.0.1", self.server.provider_port)) as to:
                relay(client, to)


@contextmanager
def front_of(
    provider: Provider, *, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[Front]:
    """Serve another endpoint of the provider inside the block."""
    with Front(provider, context, host) as front:
        serving = threading.Thread(target=front.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        try:
            yield front
        finally:
            front.shutdown()
            serving.join()
