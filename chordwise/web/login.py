"""Signing in with a password, and signing out."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from chordwise.domain.number_formats import counted
from chordwise.domain.people import Person, identified_person, unidentified_person
from chordwise.storage import api_tokens
from chordwise.web.access_control import rules_of, sessions_of, verify_password
from chordwise.web.site import log_sign_in, redirect, render, site_of, text_in, user_of

_LONGEST_NAME = 80
_NO_ROLE = (
    "The password is right, but its users have no role: an operator can add “*” to web.roles."
)


class Attempts:
    """Counts attempts to sign in before they are checked, in a sliding window of 15 minutes.

    After a few of them there is a wait, which doubles with each further attempt. The long waits are
    those of a name at an address. As a name can be made up, an address has waits too, but short
    ones, since all users behind a proxy have the same address. Safe to share between threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._attempts: deque[tuple[float, str, str]] = deque(maxlen=_MAX_ATTEMPTS)

    def begin(self, name: str, address: str) -> int:
        """Count an attempt and return 0; or return the seconds to wait before it may be made."""
        with self._lock:
            now = self._clock()
            while self._attempts and now - self._attempts[0][0] >= _WINDOW_SECONDS:
                self._attempts.popleft()
            of_address = [attempt for attempt in self._attempts if attempt[2] == address]
            of_name = [attempt for attempt in of_address if attempt[1] == name]
            until = max(_next_at(of_name, *_OF_NAME), _next_at(of_address, *_OF_ADDRESS))
            if until > now:
                return math.ceil(until - now)
            self._attempts.append((now, name, address))
            return 0

    def succeed(self, name: str, address: str) -> None:
        """Forget the attempts of a name at an address, since the last one was right."""
        with self._lock:
            rest = [attempt for attempt in self._attempts if attempt[1:] != (name, address)]
            self._attempts = deque(rest, maxlen=_MAX_ATTEMPTS)


def _next_at(attempts: Sequence[tuple[float, str, str]], free: int, max_seconds: float) -> float:
    """Return when the next attempt may be made; `free` attempts may be made without a wait."""
    if len(attempts) < free:
        return 0.0
    return attempts[-1][0] + min(2.0 ** (len(attempts) - free), max_seconds)


_WINDOW_SECONDS = 900.0
_MAX_ATTEMPTS = 10_000
_OF_NAME = 5, 300.0
_OF_ADDRESS = 30, 8.0


def _login(request: Request) -> Response:
    if user_of(request) or not rules_of(request).password_hash:
        return RedirectResponse("/")
    return _form(request, "", request.query_params.get("next", "/"))


def _sign_in(request: Request) -> Response:
    attempts: Attempts = request.app.state.attempts
    name, to = _entered_name(request), text_in(request, "next")
    key = name.casefold(), request.client.host if request.client else ""
    if seconds := attempts.begin(*key):
        message = f"Too many wrong passwords. Try again in {counted(seconds, 'second')}."
        return _form(request, message, to, 429, {"Retry-After": str(seconds)})
    person = _person(request, name or "unnamed")
    if person is None:
        log_sign_in(request, name, key[1], "was refused")
        is_right = verify_password(text_in(request, "password"), rules_of(request).password_hash)
        message = _NO_ROLE if is_right else "This password is wrong."
        return _form(request, message, to, 403)
    attempts.succeed(*key)
    log_sign_in(request, person.name, f"{key[1]}, {'token' if person.token else 'password'}")
    sessions_of(request).open(request, person)
    return redirect(request, to if _is_page(to) else "/")


def _person(request: Request, name: str) -> Person | None:
    """Return whom a password or a token admits: a token says who signs in, a password does not."""
    rules, password = rules_of(request), text_in(request, "password")
    if verify_password(password, rules.password_hash):
        return unidentified_person(name, rules.roles)
    token = api_tokens.find(site_of(request).database, password)
    person = identified_person(token.name, rules.roles, token.scopes.split()) if token else None
    return person and replace(person, token=password)


def _sign_out(request: Request) -> Response:
    sessions_of(request).end(request)
    return redirect(request, "/")


def _form(
    request: Request,
    error: str,
    to: str,
    status_code: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    name = _entered_name(request) if error else ""
    page = render(request, "login.html", status_code=status_code, error=error, next=to, name=name)
    page.headers.update(headers or {})
    return page


def _entered_name(request: Request) -> str:
    return text_in(request, "name").strip()[:_LONGEST_NAME]


def _is_page(address: str) -> bool:
    """Return whether an address is a path on this site."""
    return address.startswith("/") and not address.startswith(("//", "/\\"))


ROUTES = (
    Route("/login", _login),
    Route("/login", _sign_in, methods=["POST"]),
    Route("/logout", _sign_out, methods=["POST"]),
)
