"""A collector of OpenTelemetry traces on loopback, which keeps the spans that it receives."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class OtlpCollector(ThreadingHTTPServer):
    """Refuses the first request; accepts the others at `/v1/traces`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.refused: list[bytes] = []
        self.lock = Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def traces(self) -> dict[str, dict[bytes, Span]]:
        """Return the spans by their ids, for each trace."""
        traces: dict[str, dict[bytes, Span]] = {}
        with self.lock:
            bodies = list(self.bodies)
        for body in bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        traces.setdefault(span.trace_id.hex(), {})[span.span_id] = span
        return traces


class _Handler(BaseHTTPRequestHandler):
    server: OtlpCollector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_first = not self.server.refused
        with self.server.lock:
            (self.server.refused if is_first else self.server.bodies).append(body)
        self.send_response(400 if is_first or self.path != "/v1/traces" else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Log nothing."""


def attributes(span: Span) -> dict[str, object]:
    """Return the attributes of a span."""
    return {attribute.key: _value(attribute.value) for attribute in span.attributes}


def _value(value: AnyValue) -> object:
    if value.WhichOneof("value") == "array_value":
        return [_value(element) for element in value.array_value.values]
    plain: object = getattr(value, value.WhichOneof("value") or "string_value")
    return plain
