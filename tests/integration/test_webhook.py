"""Requests go where they may, signed and once; whatever else the receiver does is a failure."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

import httpcore
import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook as Verifier

from chordwise.errors import DeliveryError, DeliveryRefusedError
from chordwise.llm.connections import Deadline
from chordwise.pipeline.deliveries.webhook import GuardedNetwork, Webhook
from chordwise.settings import DeliverySettings
from tests.peers.webhook_receiver import WebhookReceiver, receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the convention's own example
BODY = json.dumps({"run": "Überall"}, ensure_ascii=False).encode()
OUTSIDE = "1.1.1.1"


def settings_for(url: str, **values: object) -> DeliverySettings:
    """Return settings under which loopback may be told."""
    return DeliverySettings.model_validate(
        {
            "webhook_url": SecretStr(url),
            "webhook_secret": SecretStr(SECRET),
            "allow_http": True,
            "allow_private_addresses": True,
            **values,
        }
    )


def post(receiver: WebhookReceiver, **values: object) -> None:
    """Send the body now."""
    Webhook(settings_for(receiver.url, **values)).post("run_1", int(time.time()), BODY)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_a_request_is_signed_so_that_others_can_tell(status: int) -> None:
    """By an implementation of the convention that is not ours; any 2xx is a success."""
    with receiving(status) as receiver:
        post(receiver)

    (request,) = receiver.received
    assert request.body == BODY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("chordwise/")
    assert Verifier(SECRET).verify(request.body.decode(), dict(request.headers)) == {
        "run": "Überall"
    }


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """The receiver could lead us anywhere."""
    with receiving(200) as target, receiving(status) as receiver:
        receiver.location = target.url

        with pytest.raises(DeliveryError, match=f"redirects the webhook .HTTP {status}"):
            post(receiver)

    assert len(receiver.received) == 1
    assert target.received == []


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_any_other_status_is_a_failure(status: int) -> None:
    """That of the server and that of ours, and the address is not in the sentence."""
    with receiving(status) as receiver, pytest.raises(DeliveryError) as caught:
        post(receiver)

    assert not isinstance(caught.value, DeliveryRefusedError)
    assert f"HTTP {status}" in caught.value.what
    assert "secret" not in str(caught.value.args)


def test_gone_is_for_good() -> None:
    """The one status by which a receiver says that it wants no more."""
    with receiving(410) as receiver, pytest.raises(DeliveryRefusedError):
        post(receiver)


def test_a_slow_receiver_is_left() -> None:
    """At the deadline, which is of the whole request."""
    with (
        receiving(200, delay_seconds=1.0) as receiver,
        pytest.raises(DeliveryError, match=r"within 0\.2 s"),
    ):
        post(receiver, timeout_seconds=0.2)


@pytest.fixture
def dripping() -> Iterator[str]:
    """Return the address of a receiver that answers with one byte of a header after the other."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    while not over.wait(0.05):
                        connection.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        over.set()
        thread.join()


def test_a_dripping_receiver_gains_no_time(dripping: str) -> None:
    """Each byte comes in time, and the answer does not."""
    with pytest.raises(DeliveryError, match="did not answer"):
        Webhook(settings_for(dripping, timeout_seconds=0.5)).post("run_1", 1, BODY)


def test_private_addresses_are_refused_by_default() -> None:
    """Nothing is sent, and the hint says what allows it."""
    with receiving() as receiver, pytest.raises(DeliveryError, match="leads to 127") as caught:
        post(receiver, allow_private_addresses=False)

    assert "allow_private_addresses" in caught.value.hint
    assert receiver.received == []


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f.1", "2130706433", "[::ffff:7f00:1]"])
def test_no_spelling_of_an_address_helps(host: str) -> None:
    """What counts is where the name leads."""
    settings = settings_for(f"http://{host}:9/", allow_private_addresses=False)

    with pytest.raises(DeliveryError, match=r"not on the public internet|has no address"):
        Webhook(settings).post("run_1", 1, BODY)


class Recording(httpcore.NetworkBackend):
    """Connects to nothing, and notes where it should have."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def connect_tcp(
        self,
        host: str,
        port: int,  # noqa: ARG002 - the port's signature
        timeout: float | None = None,  # noqa: ARG002 - as above
        local_address: str | None = None,  # noqa: ARG002 - as above
        socket_options: Iterable[object] | None = None,  # noqa: ARG002 - as above
    ) -> httpcore.NetworkStream:
        """Note the address, and fail."""
        self.addresses.append(host)
        raise httpcore.ConnectError("nobody is there")


class Resolver:
    """A resolver whose owner changes its mind: each question has the next answer."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.questions = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        """Answer."""
        assert (host, port) == ("hook.example.org", 443)
        self.questions += 1
        return self.answers.pop(0)


def connect(resolver: Resolver) -> Sequence[str]:
    """Try to connect to a name; return the addresses that were tried."""
    deadline, sockets = Deadline(), Recording()
    deadline.start(5)
    network = GuardedNetwork(deadline, allow_private=False, resolve=resolver, sockets=sockets)
    with pytest.raises(httpcore.ConnectError):
        network.connect_tcp("hook.example.org", 443)
    return sockets.addresses


def test_what_was_looked_at_is_what_is_connected_to() -> None:
    """A name that leads inside when it is asked again is not asked again (DNS rebinding)."""
    resolver = Resolver([OUTSIDE, "2606:4700:4700::1111"], ["127.0.0.1"])

    tried = connect(resolver)

    assert tried == [OUTSIDE, "2606:4700:4700::1111"]
    assert resolver.questions == 1


def test_one_address_inside_is_one_too_many() -> None:
    """Whoever mixes them hopes for the second try."""
    resolver = Resolver([OUTSIDE, "169.254.169.254"])
    deadline, sockets = Deadline(), Recording()
    deadline.start(5)
    network = GuardedNetwork(deadline, allow_private=False, resolve=resolver, sockets=sockets)

    with pytest.raises(DeliveryError, match=r"169\.254\.169\.254"):
        network.connect_tcp("hook.example.org", 443)

    assert sockets.addresses == []


def test_the_guard_stands_in_the_way_of_the_webhook() -> None:
    """The sender asks the resolver that it is given, and refuses what it says."""
    settings = settings_for("https://hook.example.org/", allow_private_addresses=False)

    with pytest.raises(DeliveryError, match=r"leads to 10\.0\.0\.1"):
        Webhook(settings, Resolver(["10.0.0.1"])).post("run_1", 1, BODY)


def test_nobody_there_is_a_failure() -> None:
    """As is a name that nobody knows."""
    with receiving() as receiver:
        url = receiver.url

    with pytest.raises(DeliveryError, match="cannot be reached"):
        Webhook(settings_for(url)).post("run_1", 1, BODY)
    with pytest.raises(DeliveryError, match="has no address"):
        Webhook(settings_for("http://nobody.invalid/")).post("run_1", 1, BODY)
