"""Which answers are refused because of the id that comes back with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from chordwise.errors import ModelTransportError
from chordwise.llm.transport import CALL_HEADER, JsonResponse, JsonTransport
from tests.peers import faulty_server as peer

PATIENT_SECONDS = 30.0
# As the ledger gives them: UUIDv7.
OWN_ID = "01a21236-8fe4-769e-a599-1bc2ea2fea46"
OTHER_ID = "01a21236-8fe5-7a01-8c1d-0d5c2e6b7f10"


@pytest.fixture
def server() -> Iterator[peer.FaultyServer]:
    """Return a server that answers as it is told."""
    with peer.faulty_server() as server:
        yield server


@pytest.fixture
def transport() -> Iterator[JsonTransport]:
    """Return a transport that has met nobody yet."""
    transport = JsonTransport()
    yield transport
    transport.close()


def ask(server: peer.FaultyServer, transport: JsonTransport, id_: str = OWN_ID) -> JsonResponse:
    """Ask with an id."""
    return transport.post_json(server.base_url, {CALL_HEADER: id_}, {}, PATIENT_SECONDS)


@pytest.mark.parametrize(
    "theirs",
    [
        {CALL_HEADER: "f47ac10b-58cc-4372-a567-0e02b2c3d479"},
        {CALL_HEADER: "gateway-4711"},
        {CALL_HEADER: ""},
        {CALL_HEADER: OWN_ID, CALL_HEADER.title(): OWN_ID},
        {CALL_HEADER: f"gateway-4711, {OWN_ID}"},
    ],
)
def test_ids_of_a_gateway_break_no_call(
    server: peer.FaultyServer, transport: JsonTransport, theirs: Mapping[str, str]
) -> None:
    """Its own have a form that ours never have; and it may add its own to ours, or ours twice."""
    server.play(peer.answer({"fine": True}, headers=theirs))

    assert [ask(server, transport).body for _ in range(2)] == [{"fine": True}] * 2


def test_an_id_that_could_be_ours_is_never_taken(
    server: peer.FaultyServer, transport: JsonTransport
) -> None:
    """However often: so looks a gateway whose every answer is late by one request."""
    server.play(peer.answer({"about": "another"}, headers={CALL_HEADER: OTHER_ID}))

    for _ in range(4):
        with pytest.raises(ModelTransportError, match="another request"):
            ask(server, transport)


def test_who_sends_ours_back_writes_none_of_its_own(
    server: peer.FaultyServer, transport: JsonTransport
) -> None:
    """An id of whatever form is then that of another customer's request."""
    server.play(peer.answer({"fine": True}, headers={CALL_HEADER: OWN_ID}))
    ask(server, transport)
    server.play(peer.answer({"about": "another"}, headers={CALL_HEADER: "customer-4711"}))

    with pytest.raises(ModelTransportError, match=r"another request \(customer-4711\)"):
        ask(server, transport, OTHER_ID)
