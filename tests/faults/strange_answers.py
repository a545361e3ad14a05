"""Answers as no provider should give them, each a treatment for `Provider.treat`."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from chordwise.domain.json_values import JsonObject, JsonValue
from tests.faults.provider import CALL_HEADER, Treatment
from tests.peers.answering_server import AnsweringHandler, completion, summary

_MEGABYTE = 1_048_576
BOMB_MEGABYTES = 200
_MEETING_SECONDS = 5.0
_NO_HEADERS: Mapping[str, str] = {}


def sends(
    payload: bytes, *, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS
) -> Treatment:
    return wraps(lambda _: payload, status=status, headers=headers)


def wraps(
    wrap: Callable[[bytes], bytes], *, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS
) -> Treatment:
    """Send what `wrap` makes of the proper answer."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        proper = json.dumps(completion(summary(user))).encode()
        handler.reply(status, wrap(proper), headers)

    return Treatment(answering=answer)


def says(content: str | None, finish_reason: str = "stop", **message: JsonValue) -> Treatment:
    """Send a complete answer with this content, and with more members in its message."""
    return rewrites(lambda _: content, finish_reason, **message)


def rewrites(
    rewrite: Callable[[str], str | None], finish_reason: str = "stop", **message: JsonValue
) -> Treatment:
    """Send a complete answer with what `rewrite` makes of the proper content."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        body = completion(rewrite(summary(user)))
        choice: JsonObject = {"index": 0, "finish_reason": finish_reason}
        choice["message"] = {"role": "assistant", "content": rewrite(summary(user)), **message}
        handler.reply(200, json.dumps(body | {"choices": [choice]}).encode())

    return Treatment(answering=answer)


def counts(usage: JsonValue) -> Treatment:
    """Send the proper answer with this usage; `None` leaves it out."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        body = completion(summary(user)) | {"usage": usage}
        kept = {name: value for name, value in body.items() if value is not None}
        handler.reply(200, json.dumps(kept).encode())

    return Treatment(answering=answer)


def refuses(status: int, code: str, message: str) -> Treatment:
    error = {"error": {"message": message, "type": "invalid_request_error", "code": code}}
    return sends(json.dumps(error).encode(), status=status)


def floods(megabytes: int = BOMB_MEGABYTES) -> Treatment:
    """Send so much white space, as long as anybody listens."""

    def answer(handler: AnsweringHandler, _: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(megabytes * _MEGABYTE))
        handler.end_headers()
        try:
            for _megabyte in range(megabytes):
                handler.wfile.write(b" " * _MEGABYTE)
        except OSError:
            handler.close_connection = True

    return Treatment(answering=answer)


def explodes(times: int = 1) -> Treatment:
    """Send white space packed `times` over, which unpacks to what `floods` sends."""
    encoding = ", ".join(["gzip"] * times)
    return sends(_bomb(times), headers={"Content-Encoding": encoding})


def answers_twice() -> Treatment:
    """Send the proper answer, and at once the same again, which was not asked for."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        payload = json.dumps(completion(summary(user))).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        handler.wfile.write(2 * (head + payload))

    return Treatment(answering=answer)


@dataclass(slots=True)
class _Asked:
    """A request that waits for another one to change answers with."""

    user: str
    call_id: str
    other: _Asked | None = None
    met: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Mixer:
    """A gateway that sends each of two requests the answer to the other; `echoes` with its id."""

    echoes: bool
    mixed_up: int = 0
    _waiting: _Asked | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def treatment(self) -> Treatment:
        """Return what mixes up two requests that are there at the same time."""
        return Treatment(answering=self._answer)

    def _answer(self, handler: AnsweringHandler, user: str) -> None:
        asked = _Asked(user=user, call_id=handler.headers.get(CALL_HEADER, ""))
        other = self._other(asked)
        headers = {CALL_HEADER: other.call_id} if self.echoes else {}
        handler.reply(200, json.dumps(completion(summary(other.user))).encode(), headers)

    def _other(self, asked: _Asked) -> _Asked:
        """Return the one that came at the same time; where none comes, the request itself."""
        with self._guard:
            partner, self._waiting = self._waiting, None if self._waiting else asked
            if partner is not None:
                partner.other = asked
                self.mixed_up += 2
                partner.met.set()
                return partner
        asked.met.wait(_MEETING_SECONDS)
        with self._guard:
            if self._waiting is asked:
                self._waiting = None
        return asked.other or asked


@cache
def _bomb(times: int) -> bytes:
    packed = b" " * (BOMB_MEGABYTES * _MEGABYTE)
    for _ in range(times):
        packed = gzip.compress(packed, compresslevel=1 if len(packed) > _MEGABYTE else 9)
    return packed
