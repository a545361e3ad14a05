"""Invalid and malformed answers as treatments for `Provider.treat`."""

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
    """Send the good answer changed by `wrap`."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        proper = json.dumps(completion(summary(user))).encode()
        handler.reply(status, wrap(proper), headers)

    return Treatment(answering=answer)


def says(content: str | None, finish_reason: str = "stop", **message: JsonValue) -> Treatment:
    """Send a complete answer with this content and further members of the message."""
    return rewrites(lambda _: content, finish_reason, **message)


def rewrites(
    rewrite: Callable[[str], str | None], finish_reason: str = "stop", **message: JsonValue
) -> Treatment:
    """Send a complete answer with the good content changed by `rewrite`."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        body = completion(rewrite(summary(user)))
        choice: JsonObject = {"index": 0, "finish_reason": finish_reason}
        choice["message"] = {"role": "assistant", "content": rewrite(summary(user)), **message}
        handler.reply(200, json.dumps(body | {"choices": [choice]}).encode())

    return Treatment(answering=answer)


def counts(usage: JsonValue) -> Treatment:
    """Send the good answer with this usage; `None` omits it."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        body = completion(summary(user)) | {"usage": usage}
        kept = {name: value for name, value in body.items() if value is not None}
        handler.reply(200, json.dumps(kept).encode())

    return Treatment(answering=answer)


def refuses(status: int, code: str, message: str) -> Treatment:
    error = {"error": {"message": message, "type": "invalid_request_error", "code": code}}
    return sends(json.dumps(error).encode(), status=status)


def floods(megabytes: int = BOMB_MEGABYTES) -> Treatment:
    """Send this much white space as long as the client reads."""

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
    """Send white space compressed `times` over, which decompresses to the output of `floods`."""
    encoding = ", ".join(["gzip"] * times)
    return sends(_bomb(times), headers={"Content-Encoding": encoding})


def answers_twice() -> Treatment:
    """Send the good answer, followed by the same answer without a request."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        payload = json.dumps(completion(summary(user))).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        handler.wfile.write(2 * (head + payload))

    return Treatment(answering=answer)


@dataclass(slots=True)
class _Asked:
    """A request that waits for another one, to swap their answers."""

    user: str
    call_id: str
    other: _Asked | None = None
    met: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Mixer:
    """A gateway that swaps the answers of two requests; with `echoes` also their ids."""

    echoes: bool
    mixed_up: int = 0
    _waiting: _Asked | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def treatment(self) -> Treatment:
        """Return the treatment that swaps the answers of two concurrent requests."""
        return Treatment(answering=self._answer)

    def _answer(self, handler: AnsweringHandler, user: str) -> None:
        question = _Asked(user=user, call_id=handler.headers.get(CALL_HEADER, ""))
        other = self._other(question)
        headers = {CALL_HEADER: other.call_id} if self.echoes else {}
        handler.reply(200, json.dumps(completion(summary(other.user))).encode(), headers)

    def _other(self, question: _Asked) -> _Asked:
        """Return a concurrent request; without one, the request itself."""
        with self._guard:
            partner, self._waiting = self._waiting, None if self._waiting else question
            if partner is not None:
                partner.other = question
                self.mixed_up += 2
                partner.met.set()
                return partner
        question.met.wait(_MEETING_SECONDS)
        with self._guard:
            if self._waiting is question:
                self._waiting = None
        return question.other or question


@cache
def _bomb(times: int) -> bytes:
    packed = b" " * (BOMB_MEGABYTES * _MEGABYTE)
    for _ in range(times):
        packed = gzip.compress(packed, compresslevel=1 if len(packed) > _MEGABYTE else 9)
    return packed
