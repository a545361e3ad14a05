"""Tests of the transport with slow, malformed, aborted and misrouted responses."""

from __future__ import annotations

import gzip
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Barrier

import pytest

from chordwise.errors import ModelAccessError, ModelTransportError
from chordwise.llm.transport import CALL_HEADER, JsonResponse, JsonTransport
from tests.peers import faulty_server as peer
from tests.peers.certificates import OPENSSL_IS_ABSENT, self_signed

DEADLINE_SECONDS = 0.4
PATIENT_SECONDS = 30.0


def packed(body: bytes, encoding: str = "gzip") -> peer.Behavior:
    return peer.answer(body, headers={"content-encoding": encoding})


@pytest.fixture
def server() -> Iterator[peer.FaultyServer]:
    with peer.faulty_server() as server:
        yield server


@pytest.fixture
def transport() -> Iterator[JsonTransport]:
    transport = JsonTransport(max_body_bytes=1_000_000, max_file_bytes=2_000_000)
    yield transport
    transport.close()


def test_a_late_call_shortens_no_other(server: peer.FaultyServer, transport: JsonTransport) -> None:
    server.play(peer.body_drip, peer.answer({"fine": True}))
    with pytest.raises(ModelTransportError):
        transport.post_json(server.base_url, {}, {}, DEADLINE_SECONDS)

    assert transport.post_json(server.base_url, {}, {}, PATIENT_SECONDS).body == {"fine": True}
    assert server.connections == 2


@pytest.mark.parametrize(
    ("behavior", "sentence"),
    [
        (peer.reset_mid_body, r"broke off"),
        (peer.hang_up, r"broke off"),
        (peer.endless_body, r"more than 1,000,000 bytes"),
        (peer.answer(b'{"choices": [{"mess'), r"19 bytes that are not JSON"),
        (peer.answer(b""), r"0 bytes that are not JSON"),
        (peer.answer(b"[" * 100_000), r"not JSON"),
        (peer.answer(b"\xff\xfe\x00"), r"not JSON"),
        (packed(gzip.compress(b" " * 2_000_000)), r"more than 1,000,000 bytes"),
        (packed(b"no gzip"), r"invalid compressed body"),
        (packed(b"", "gzip, gzip"), r"unsupported compression \(gzip, gzip\)"),
    ],
)
def test_an_incomplete_answer_is_a_transient_error(
    server: peer.FaultyServer, transport: JsonTransport, behavior: peer.Behavior, sentence: str
) -> None:
    server.play(behavior)

    with pytest.raises(ModelTransportError, match=sentence):
        transport.post_json(server.base_url, {}, {}, PATIENT_SECONDS)


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_downloaded_file_is_decompressed(
    server: peer.FaultyServer, transport: JsonTransport, encoding: str
) -> None:
    content = b'{"fine": true}\n' * 100_000
    server.play(packed(gzip.compress(content)) if encoding else peer.answer(content))
    target = io.BytesIO()

    assert transport.download(server.base_url, {}, target, PATIENT_SECONDS) is None
    assert target.getvalue() == content


@pytest.mark.parametrize(
    ("behavior", "sentence"),
    [
        (packed(gzip.compress(b" " * 30_000_000)), r"more than 2,000,000 bytes"),
        (peer.endless_body, r"more than 2,000,000 bytes"),
        (packed(gzip.compress(gzip.compress(b" ")), "gzip, gzip"), r"unsupported compression"),
        (packed(b"no gzip"), r"invalid compressed body"),
    ],
)
def test_the_size_of_a_download_is_limited_after_decompression(
    server: peer.FaultyServer, transport: JsonTransport, behavior: peer.Behavior, sentence: str
) -> None:
    server.play(behavior)
    target = io.BytesIO()

    with pytest.raises(ModelTransportError, match=sentence):
        transport.download(server.base_url, {}, target, PATIENT_SECONDS)

    assert len(target.getvalue()) <= 2_000_000


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_an_unsolicited_answer_is_rejected(
    server: peer.FaultyServer, transport: JsonTransport, share: float
) -> None:
    """What a server sends after an answer is not the answer to the next request.

    It may arrive before that request or, if the server is slow, after it.
    """

    def first_and_more(connection: peer.Connection) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n"
        answer = head + b'{"about": "the first"}'.ljust(40)
        connection.send(answer + answer[: int(share * len(answer))])
        # The client may close the connection before its second request can be read here.
        if peer.receive(connection) is not None:
            connection.send(b" " * 20)
            peer.answer({"about": "the second"})(connection)

    server.play(first_and_more, peer.answer({"about": "the third"}))
    first = transport.post_json(server.base_url, {}, {}, PATIENT_SECONDS)

    with pytest.raises(ModelTransportError):
        transport.post_json(server.base_url, {}, {}, PATIENT_SECONDS)

    third = transport.post_json(server.base_url, {}, {}, PATIENT_SECONDS)
    assert (first.body, third.body) == ({"about": "the first"}, {"about": "the third"})
    assert server.connections == 2


def test_login_pages_have_their_title(server: peer.FaultyServer, transport: JsonTransport) -> None:
    """A web page with status 200 means a wrong address, which a person has to correct."""
    page = b"<!doctype html><html><head><title>Sign in &amp; go\x1b[31m</title></head></html>"
    server.play(peer.answer(page, content_type="text/html"))

    with pytest.raises(ModelAccessError) as caught:
        transport.post_json(server.base_url, {}, {}, PATIENT_SECONDS)

    assert "“Sign in & go\\x1b[31m”" in caught.value.what
    assert "login page" in caught.value.hint


def test_error_pages_keep_their_status(server: peer.FaultyServer, transport: JsonTransport) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head></html>"
    server.play(peer.answer(page, status=502, content_type="text/html"))

    response = transport.post_json(server.base_url, {}, {}, PATIENT_SECONDS)

    assert (response.status, response.body, response.excerpt) == (502, None, "502 Bad Gateway")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused(
    server: peer.FaultyServer, transport: JsonTransport, status: int
) -> None:
    elsewhere = {"location": f"{server.base_url}/elsewhere"}
    server.play(peer.answer({}, status=status, headers=elsewhere), peer.answer({"taken": True}))

    with pytest.raises(ModelAccessError, match="elsewhere"):
        transport.post_json(server.base_url, {}, {}, PATIENT_SECONDS)

    assert len(server.received) == 1


def test_the_error_of_a_closed_port_names_the_host(transport: JsonTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(ModelTransportError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        transport.post_json(f"http://127.0.0.1:{port}", {}, {}, PATIENT_SECONDS)

    assert "base_url" in caught.value.hint


@pytest.mark.skipif(OPENSSL_IS_ABSENT, reason="makes its certificate with openssl")
def test_an_untrusted_certificate_pauses_the_run(transport: JsonTransport, tmp_path: Path) -> None:
    """A retry cannot make a certificate trusted, so the error has a hint for a person."""
    context = self_signed(tmp_path, "stranger").context()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        greeter = threading.Thread(target=greet_once, args=(listener, context))
        greeter.start()
        address = f"https://localhost:{listener.getsockname()[1]}"

        with pytest.raises(ModelAccessError, match="not trusted: self-signed") as caught:
            transport.post_json(address, {}, {}, PATIENT_SECONDS)

        greeter.join()
    assert "SSL_CERT_FILE" in caught.value.hint


def greet_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Accept one connection and start a handshake that the client will abort."""
    accepted, _ = listener.accept()
    with accepted, suppress(OSError):
        context.wrap_socket(accepted, server_side=True).close()


def test_threads_reuse_connections(server: peer.FaultyServer, transport: JsonTransport) -> None:
    server.play(peer.answer({}))

    def call() -> None:
        for _ in range(3):
            transport.post_json(server.base_url, {}, {}, PATIENT_SECONDS)

    call()
    connections_of_one_thread = server.connections
    other = threading.Thread(target=call)
    other.start()
    other.join()

    assert connections_of_one_thread == 1
    assert server.connections == 2
    assert len(server.received) == 6


def test_proxies_of_the_environment_are_not_used(
    server: peer.FaultyServer, transport: JsonTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents are sent to the configured address, and a .netrc does not replace the key."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    server.play(peer.answer({}))

    transport.post_json(server.base_url, {"authorization": "Bearer k"}, {}, PATIENT_SECONDS)

    assert server.received[0].headers["authorization"] == "Bearer k"


def test_lone_surrogates_are_sent(server: peer.FaultyServer, transport: JsonTransport) -> None:
    server.play(peer.answer({}))

    transport.post_json(server.base_url, {}, {"text": "a\ud800b"}, PATIENT_SECONDS)

    assert server.received[0].body == {"text": "a?b"}


WHOLE_SECONDS = 2.0
TOLERANCE = 0.1


# This is more than the buffers of any socket.
LARGE = b'{"text": "' + b"a" * 40_000_000 + b'"}'
_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


# A handshake record of 16 kB whose greeting is never complete.
_TLS_RECORD = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"


def dripping(head: bytes, start: bytes = b"", drops: bytes = b" ") -> peer.Behavior:
    def drip(connection: peer.Connection) -> None:
        connection.send(head)
        connection.drip(start + drops * (peer.DRIPPED_BYTES // len(drops)))

    return drip


def body_of(status: bytes) -> peer.Behavior:
    return dripping(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2000\r\n\r\n")


def slow_reading(connection: peer.Connection) -> None:
    while not connection.stopped.wait(peer.DRIP_SECONDS) and connection.socket.recv(1_024):
        pass


AFTER_THE_REQUEST: Mapping[str, peer.Behavior] = {
    "silence": peer.silence,
    "head": peer.header_drip,
    "interim answers": peer.interim_drip,
    "body": peer.body_drip,
    "chunk": dripping(_CHUNKED + b"1000\r\n"),
    "chunks": dripping(_CHUNKED, drops=b"1\r\n \r\n"),
    "size of a chunk": dripping(_CHUNKED, b"1;padding=", b"a"),
    "trailer": dripping(_CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-padding: ", b"a"),
    "body of an error": body_of(b"500 Internal Server Error"),
    "body of a refusal": body_of(b"429 Too Many Requests"),
    "body of a redirect": body_of(b"307 Temporary Redirect\r\nlocation: http://127.0.0.1/"),
}
BEFORE_THE_REQUEST: Mapping[str, tuple[str, peer.Behavior]] = {
    "TLS, silence": ("https", peer.silence),
    "TLS, greeting": ("https", dripping(b"", _TLS_RECORD)),
    "request not read": ("http", peer.silence),
    "request read slowly": ("http", slow_reading),
}


@pytest.fixture
def addresses() -> Iterator[dict[str, str]]:
    urls = {}
    with ExitStack() as servers:
        for name, behavior in AFTER_THE_REQUEST.items():
            server = servers.enter_context(peer.faulty_server())
            server.play(behavior)
            urls[name] = server.base_url
        for name, (scheme, greeting) in BEFORE_THE_REQUEST.items():
            server = servers.enter_context(peer.faulty_server())
            server.greeting = greeting
            urls[name] = server.base_url.replace("http:", f"{scheme}:")
        yield urls


def test_every_kind_of_slow_server_is_timed_out_at_the_deadline(addresses: dict[str, str]) -> None:
    """Even if bytes arrive one by one, the call ends at its deadline within a tenth.

    All servers are slow at the same time, each for a thread with connected sockets.
    """
    transport = JsonTransport()
    ready = Barrier(len(addresses))

    def share_of_the_deadline(name: str) -> float:
        content = LARGE if name in BEFORE_THE_REQUEST else b"{}"
        transport.post_json(answering.base_url, {}, {}, PATIENT_SECONDS)
        ready.wait(PATIENT_SECONDS)
        started = time.monotonic()
        with pytest.raises(ModelTransportError, match=r"time|within 2 s"):
            transport.send("POST", addresses[name], {}, content, WHOLE_SECONDS)
        return (time.monotonic() - started) / WHOLE_SECONDS

    with peer.faulty_server() as answering, ThreadPoolExecutor(len(addresses)) as threads:
        answering.play(peer.answer({"fine": True}))
        shares = dict(zip(addresses, threads.map(share_of_the_deadline, addresses), strict=True))
    transport.close()

    assert {name: share for name, share in shares.items() if abs(share - 1) > TOLERANCE} == {}


# UUIDv7, as created by the ledger.
OWN_ID = "01a21236-8fe4-769e-a599-1bc2ea2fea46"
OTHER_ID = "01a21236-8fe5-7a01-8c1d-0d5c2e6b7f10"


def ask(server: peer.FaultyServer, transport: JsonTransport, id_: str = OWN_ID) -> JsonResponse:
    return transport.post_json(server.base_url, {CALL_HEADER: id_}, {}, PATIENT_SECONDS)


@pytest.mark.parametrize(
    "theirs",
    [
        {},
        {CALL_HEADER: OWN_ID.upper()},
        {CALL_HEADER: "f47ac10b-58cc-4372-a567-0e02b2c3d479"},
        {CALL_HEADER: "gateway-4711"},
        {CALL_HEADER: ""},
        {CALL_HEADER: OWN_ID, CALL_HEADER.title(): OWN_ID},
        {CALL_HEADER: f"gateway-4711, {OWN_ID}"},
    ],
)
def test_our_id_and_those_of_a_gateway_are_accepted(
    server: peer.FaultyServer, transport: JsonTransport, theirs: Mapping[str, str]
) -> None:
    server.play(peer.answer({"fine": True}, headers=theirs))

    assert [ask(server, transport).body for _ in range(2)] == [{"fine": True}] * 2


def test_ids_in_our_form_must_be_ours(server: peer.FaultyServer, transport: JsonTransport) -> None:
    """A gateway whose answers are all late by one request sends those of others."""
    server.play(peer.answer({"about": "another"}, headers={CALL_HEADER: OTHER_ID}))

    for _ in range(4):
        with pytest.raises(ModelTransportError, match=rf"another request \({OTHER_ID}\)"):
            ask(server, transport)
    server.play(peer.answer({"about": "ours"}))

    assert ask(server, transport).body == {"about": "ours"}
    assert server.connections == 5


def test_a_gateway_that_returned_our_id_must_not_send_another(
    server: peer.FaultyServer, transport: JsonTransport
) -> None:
    """An id of any form is then that of another customer's request."""
    server.play(peer.answer({"fine": True}, headers={CALL_HEADER: OWN_ID}))
    ask(server, transport)
    server.play(peer.answer({"about": "another"}, headers={CALL_HEADER: "customer-4711"}))

    with pytest.raises(ModelTransportError, match=r"another request \(customer-4711\)"):
        ask(server, transport, OTHER_ID)
