"""A provider that records every request and treats some of them as a script demands."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.faults.proxy import Target
from tests.peers.answering_server import AnsweringHandler, AnsweringServer
from tests.peers.serving import serving_in_a_thread

Answering: TypeAlias = Callable[[AnsweringHandler, str], None]

CALL_HEADER = "X-Client-Request-Id"
_MARK = re.compile(r"TEXT-[0-9a-f]+")
_MAX_HOLD_SECONDS = 600.0


@dataclass(slots=True, kw_only=True)
class Request:
    """A received request; `call_id` is that of the ledger, if the request has it.

    `answered_at` is set when a good answer was sent, which the client may not have received.
    """

    arrived_at: float
    call_id: str | None
    prompt: str
    authorization: str
    answered_at: float | None = None

    @property
    def question(self) -> str:
        """Return the question, which is the same for each repetition."""
        return _MARK.sub("TEXT", self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """The treatment of a request, in this order: delay, wait for release, error.

    `status` 0 is a good answer; `hangs_up` closes the connection without a response; `answering`
    writes a custom answer for a prompt.
    """

    delay_seconds: float = 0.0
    holds: bool = False
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs_up: bool = False
    answering: Answering | None = None


HOLD = Treatment(holds=True)
HANG_UP = Treatment(hangs_up=True)
OVERLOADED = Treatment(status=503)


@dataclass(slots=True, kw_only=True)
class _Rule:
    treatment: Treatment
    containing: str
    left: int


Hook: TypeAlias = Callable[[Request], None]


class Provider(AnsweringServer):
    """Returns good answers except where `treat` applies; `on_arrival` is called first."""

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(delay_seconds, _JournalingHandler)
        self.on_arrival: Hook | None = None
        self._requests: list[Request] = []
        self._rules: list[_Rule] = []
        self._released = threading.Event()
        self._guard = threading.Lock()

    @property
    def target(self) -> Target:
        return Target(port=int(self.server_address[1]))

    @property
    def requests(self) -> list[Request]:
        with self._guard:
            return list(self._requests)

    @property
    def extra_calls(self) -> int:
        """Return the number of requests that repeated an earlier question."""
        requests = self.requests
        return len(requests) - len({request.question for request in requests})

    def treat(self, treatment: Treatment, *, times: int = 1, containing: str = "") -> None:
        """Treat the next `times` requests whose prompt contains a text."""
        self._released.clear()
        with self._guard:
            self._rules.append(_Rule(treatment=treatment, containing=containing, left=times))

    def forgive(self) -> None:
        """Drop all treatments, release held requests, and return good answers from now on."""
        with self._guard:
            self._rules.clear()
        self.release()

    def release(self) -> None:
        self._released.set()

    def wait_for_release(self) -> None:
        """Wait for `release`."""
        self._released.wait(_MAX_HOLD_SECONDS)

    def write_down(self, call_id: str | None, prompt: str, authorization: str) -> Request:
        """Add a request to the journal, and call the hook."""
        request = Request(
            arrived_at=time.time(), call_id=call_id, prompt=prompt, authorization=authorization
        )
        with self._guard:
            self._requests.append(request)
        if self.on_arrival is not None:
            self.on_arrival(request)
        return request

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing, because experiments kill clients."""

    def treatment_of(self, request: Request) -> Treatment:
        with self._guard:
            for rule in self._rules:
                if rule.left > 0 and rule.containing in request.prompt:
                    rule.left -= 1
                    return rule.treatment
        return Treatment(delay_seconds=self.delay_seconds)


class _JournalingHandler(AnsweringHandler):
    server: Provider

    def converse(self, user: str) -> None:
        headers = self.headers
        request = self.server.write_down(
            headers.get(CALL_HEADER), user, headers.get("Authorization", "")
        )
        treatment = self.server.treatment_of(request)
        time.sleep(treatment.delay_seconds)  # noqa: TID251 - a slow provider
        if treatment.holds:
            self.server.wait_for_release()
        if treatment.hangs_up:
            self.close_connection = True
        elif treatment.answering is not None:
            treatment.answering(self, user)
        elif treatment.status:
            error = {"error": {"message": "scripted", "type": "scripted", "code": None}}
            self.reply(treatment.status, json.dumps(error).encode(), treatment.headers)
        elif self.answer(user):
            request.answered_at = time.time()


@contextmanager
def providing(delay_seconds: float = 0.0) -> Iterator[Provider]:
    """Serve on a free port inside the block."""
    provider = Provider(delay_seconds)
    with serving_in_a_thread(provider):
        try:
            yield provider
        finally:
            provider.forgive()
