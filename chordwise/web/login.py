"""Signing in with a password, and signing out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from chordwise.web.access_control import open_session, rules_of, verify_password
from chordwise.web.site import redirect, render, text_in, user_of

_LONGEST_NAME = 80


class FailedLogins:
    """Limits failed logins in a sliding window of 15 minutes: 5 per address and 100 in total."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: deque[tuple[float, str]] = deque()

    def wait_seconds(self, address: str) -> int:
        """Return the seconds that an address has to wait before its next attempt, or 0."""
        now = self._clock()
        while self._failures and now - self._failures[0][0] >= _WINDOW_SECONDS:
            self._failures.popleft()
        own = [at for at, of in self._failures if of == address]
        if len(own) >= _MAX_FAILURES_OF_ADDRESS:
            return round(own[-_MAX_FAILURES_OF_ADDRESS] + _WINDOW_SECONDS - now) + 1
        if len(self._failures) >= _MAX_FAILURES:
            return round(self._failures[-_MAX_FAILURES][0] + _WINDOW_SECONDS - now) + 1
        return 0

    def note(self, address: str) -> None:
        """Count a failed login."""
        self._failures.append((self._clock(), address))


_WINDOW_SECONDS = 900.0
_MAX_FAILURES_OF_ADDRESS = 5
_MAX_FAILURES = 100


def _login(request: Request) -> Response:
    if user_of(request) or not rules_of(request).password_hash:
        return RedirectResponse("/")
    return _form(request, "", request.query_params.get("next", "/"))


def _sign_in(request: Request) -> Response:
    failed: FailedLogins = request.app.state.failed_logins
    address, to = request.client.host if request.client else "", text_in(request, "next")
    if seconds := failed.wait_seconds(address):
        message = f"Too many wrong passwords. Try again in {-(-seconds // 60)} minutes."
        return _form(request, message, to, 429, {"Retry-After": str(seconds)})
    rules = rules_of(request)
    if not verify_password(text_in(request, "password"), rules.password_hash):
        failed.note(address)
        return _form(request, "This password is wrong.", to, 403)
    open_session(request, _given_name(request) or "unnamed", rules)
    return redirect(request, to if _is_page(to) else "/")


def _sign_out(request: Request) -> Response:
    request.session.clear()
    return redirect(request, "/")


def _form(
    request: Request,
    error: str,
    to: str,
    status_code: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    name = _given_name(request) if error else ""
    page = render(request, "login.html", status_code=status_code, error=error, next=to, name=name)
    page.headers.update(headers or {})
    return page


def _given_name(request: Request) -> str:
    return text_in(request, "name").strip()[:_LONGEST_NAME]


def _is_page(address: str) -> bool:
    """Return whether an address is a path on this site."""
    return address.startswith("/") and not address.startswith(("//", "/\\"))


ROUTES = (
    Route("/login", _login),
    Route("/login", _sign_in, methods=["POST"]),
    Route("/logout", _sign_out, methods=["POST"]),
)
