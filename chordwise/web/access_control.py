"""Access to the pages: the link's token, a password or a proxy's user header, and browser checks.

A request passes these checks in order: its Host header has to name this server (protection against
DNS rebinding), a change has to come from a page of this server (Origin), and the request needs a
session. A change also needs the session's CSRF token, which `guarded` checks for every POST.
"""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import hmac
import ipaddress
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Final, TypeAlias, cast
from urllib.parse import urlencode, urlsplit

import structlog
from pydantic import IPvAnyNetwork, SecretStr
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chordwise.domain.people import READING_AS, Person, Right, Role, identified_person
from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    InternalError,
    ServiceUnavailableError,
)
from chordwise.settings import WebSettings
from chordwise.storage import api_tokens
from chordwise.web.site import (
    CSRF_FIELD,
    Site,
    csrf_of,
    error_page,
    is_call,
    log_sign_in,
    may,
    problem,
    redirect,
    site_of,
    user_of,
)

log = structlog.get_logger(__name__)
Endpoint: TypeAlias = Callable[[Request], Response | Awaitable[Response]]

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that value, browsers send the Origin of a form as null.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
TOKEN = "token"  # noqa: S105 - the name of the parameter
_OPEN_PATHS = ("/static/", "/login", "/health")
_HOST = re.compile(r"(?P<name>[\w.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_MAX_SESSIONS = 10_000
_MEBIBYTE = 1024 * 1024
_BODY_SECONDS = 30.0
# Otherwise the server would receive and discard the rest of a refused body.
_CLOSING = {"Connection": "close"}
MAX_FIELDS = 1_000
MAX_FILES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Who may sign in, and the URL of the server for browsers; an empty entry allows nothing."""

    token: str = ""
    password_hash: str = ""
    user_header: str = ""
    proxies: Sequence[IPvAnyNetwork] = ()
    public_url: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict)

    @property
    def is_https(self) -> bool:
        """Whether browsers connect over TLS, so that the cookie can be restricted to it."""
        return self.public_url.startswith("https://")


class Sessions:
    """The sessions that users have opened and not ended, up to a limit; safe between threads.

    They end with the process. A cookie holds only the id of its session, so that one that was
    copied before its user signed out is of no use afterwards.
    """

    def __init__(self) -> None:
        self._people: dict[str, Person] = {}

    def open(self, request: Request, person: Person) -> None:
        """Sign a person in, in a cleared session with a new CSRF token."""
        self.end(request)
        if len(self._people) >= _MAX_SESSIONS:
            self._people.pop(next(iter(self._people)), None)
        request.session["id"] = session_id = secrets.token_urlsafe(24)
        self._people[session_id] = person
        csrf_of(request)

    def end(self, request: Request) -> None:
        """Sign a person out."""
        self._people.pop(str(request.session.get("id", "")), None)
        request.session.clear()

    def person(self, request: Request) -> Person | None:
        """Return who has opened the session of a request, if there is one."""
        return self._people.get(str(request.session.get("id", "")))


def sessions_of(request: Request) -> Sessions:
    """Return the sessions of the server that received a request."""
    sessions: Sessions = request.app.state.sessions
    return sessions


def rules_for(settings: WebSettings, address: str, token: str) -> Rules:
    """Return the access rules of a server that listens at an address.

    The token is valid only where the server listens on the loopback interface.

    Raises:
        ConfigurationError: Other machines can reach the address, and no access control is set.
    """
    is_local = address == "localhost" or _is_loopback(address)
    password_hash = settings.password_hash.get_secret_value()
    if not is_local and not password_hash and not settings.trusted_user_header:
        raise ConfigurationError(
            f"The pages would be open to every user who can reach {address}.",
            "Set web.password_hash to the output of `chordwise web --set-password`, or let a "
            "proxy check users: web.trusted_user_header (docs/web.md).",
        )
    return Rules(
        token=token if is_local else "",
        password_hash=password_hash,
        user_header=settings.trusted_user_header,
        proxies=settings.trusted_proxies,
        public_url=settings.public_url.rstrip("/"),
        roles=settings.roles,
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name, which may resolve to any address
        return False


_COST = 2**14
_BLOCK_SIZE = 8


def hash_password(password: str) -> str:
    """Return the stored form of a password: `scrypt:salt:hash`.

    It contains no dollar sign, which Compose would interpolate.
    """
    salt = secrets.token_bytes(16)
    return f"scrypt:{_encoded(salt)}:{_encoded(_scrypt(password, salt))}"


def verify_password(password: str, stored_hash: str) -> bool:
    """Return whether a password matches a stored hash; see `hash_password`."""
    try:
        _, salt, digest = stored_hash.split(":")
        return hmac.compare_digest(
            _scrypt(password, urlsafe_b64decode(salt)), urlsafe_b64decode(digest)
        )
    except ValueError:
        return False


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_COST, r=_BLOCK_SIZE, p=1)


def _encoded(value: bytes) -> str:
    return urlsafe_b64encode(value).decode()


class SecurityHeaders:
    """Adds the security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and add the headers to its response."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                # Browsers revalidate static files, which are sent again only if they changed.
                is_static = scope.get("path", "").startswith("/static/")
                headers.setdefault("Cache-Control", "no-cache" if is_static else "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class Access:
    """Passes on the requests that are allowed and answers the others itself.

    A request for `/metrics` with the token of the scrapers needs no other check.
    """

    def __init__(self, app: ASGIApp, rules: Rules, scrapers_token: SecretStr) -> None:
        self._app = app
        self._rules = rules
        token = scrapers_token.get_secret_value()
        self._scrapers = f"Bearer {token}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal: Response | None
        READING_AS.set(None)
        if scope["path"] == "/metrics" and "authorization" in request.headers:
            credentials = request.headers["authorization"].encode("latin-1")
            is_scraper = self._scrapers and hmac.compare_digest(credentials, self._scrapers)
            refusal = None if is_scraper else PlainTextResponse("The token is wrong.\n", 401)
        else:
            refusal = self._refused_call(request) if is_call(request) else self._refusal(request)
        await (refusal or self._app)(scope, receive, send)

    def _refused_call(self, request: Request) -> Response | None:
        """Refuse a call of the API from a page of another site; it checks tokens itself."""
        flaw = self._flaw(request)
        if flaw is None and "origin" in request.headers:
            is_ours = _is_same_origin(request, self._rules)
            flaw = None if is_ours else (403, "Another site sent this request.")
        return flaw and problem(*flaw)

    def _flaw(self, request: Request) -> tuple[int, str] | None:
        """Return what is wrong with an address, with the status code; `None` if nothing is."""
        if not _is_ours(",".join(request.headers.getlist("host")), self._rules.public_url):
            text = "This server does not accept that host name. Set web.public_url if it should."
            return 421, text
        # Not that of `request.url`, which is made from the Host header.
        path: str = request.scope["path"]
        if not path.startswith("/") or path.startswith("//"):
            return 400, "This is not the address of a page."
        if b"%00" in request.scope["raw_path"] + request.scope["query_string"]:
            return 400, "The address contains a NUL character."
        return None

    def _refusal(self, request: Request) -> Response | None:
        if flaw := self._flaw(request):
            return PlainTextResponse(f"{flaw[1]}\n", flaw[0])
        path: str = request.scope["path"]
        if request.method not in SAFE_METHODS and not _is_same_origin(request, self._rules):
            return error_page(request, 403, "No access", "Another site requested this change.", "")
        if request.method in SAFE_METHODS and TOKEN in request.query_params:
            return self._exchange(request)
        person, name = self._person(request)
        if person is not None:
            act_as(request, person)
        if person is not None or path.startswith(_OPEN_PATHS):
            return None
        if name:
            hint = "An operator can add you to web.roles."
            return error_page(request, 403, "No access", f"{name} has no role.", hint)
        if self._rules.password_hash:
            return redirect(request, f"/login?{_next(request)}")
        hint = (
            _LINK
            if self._rules.token
            else "Open the pages through the proxy that authenticates you."
        )
        return error_page(request, 403, "No access", "You are not signed in.", hint)

    def _exchange(self, request: Request) -> Response:
        """Open a session for the token of the link and redirect to the address without it."""
        token = request.query_params[TOKEN].encode()
        if not self._rules.token or not hmac.compare_digest(token, self._rules.token.encode()):
            return error_page(request, 403, "No access", "This link is not valid.", _LINK)
        local = Person(getpass.getuser(), Role.OPERATOR.rights, sees_all=True)
        sessions_of(request).open(request, local)
        rest = [
            (name, value) for name, value in request.query_params.multi_items() if name != TOKEN
        ]
        address = f"{request.scope['path']}?{urlencode(rest)}".rstrip("?")
        recorded = BackgroundTask(_log_link, request, local.name)
        return RedirectResponse(address, 303, background=recorded)

    def _person(self, request: Request) -> tuple[Person | None, str]:
        """Return who sends a request, and the name which a trusted proxy states."""
        client = request.client
        if self._rules.user_header and client is not None:
            names = request.headers.getlist(self._rules.user_header)
            sender = ipaddress.ip_address(client.host)
            # A second name may be one that the client sent to the proxy.
            is_trusted = any(sender in network for network in self._rules.proxies)
            if len(names) == 1 and names[0] and is_trusted:
                return identified_person(names[0], self._rules.roles), names[0]
        return sessions_of(request).person(request), ""


def _log_link(request: Request, name: str) -> None:
    with suppress(ServiceUnavailableError):  # then there is nothing to read either
        log_sign_in(request, name, "the link")


_LINK = "Open the link that `chordwise web` has printed; `chordwise web --link` prints it again."


def rules_of(request: Request) -> Rules:
    """Return the access rules of the server that received a request."""
    rules: Rules = request.app.state.rules
    return rules


def _is_ours(host: str, public_url: str) -> bool:
    """Return whether a Host header is an IP address, `localhost` or the host of `web.public_url`.

    This prevents DNS rebinding: a page of an attacker whose name resolves to this server cannot
    read the pages. Nothing but a name and a port is accepted, since addresses are made from it.
    """
    match = _HOST.fullmatch(host)
    name = match["name"].lower().strip("[]") if match else ""
    if name == "localhost" or (public_url and name == urlsplit(public_url).hostname):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_origin(request: Request, rules: Rules) -> bool:
    """Return whether a change comes from a page of this server, by scheme, host and port.

    Without `web.public_url` the scheme is http, since this server does not speak TLS itself.
    """
    public, direct = _origin(rules.public_url), _origin(f"http://{request.headers['host']}")
    origin = _origin(request.headers.get("origin", ""))
    # A page of the public host that was not sent over TLS may come from anybody on the way.
    is_public_host = rules.is_https and direct[1] == public[1]
    return bool(origin[1]) and (origin == public or (origin == direct and not is_public_host))


def _origin(address: str) -> tuple[str, str, int]:
    """Return the scheme, host and port of an address; all are empty if it is not a valid one."""
    try:
        parts = urlsplit(address)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", "", 0
    return parts.scheme, parts.hostname or "", port


def _next(request: Request) -> str:
    """Return the parameter of the login page that names the page to return to.

    It is the requested page, or `/` for a change.
    """
    path = request.scope["path"] if request.method in SAFE_METHODS else "/"
    query = request.scope["query_string"].decode("latin-1")
    return urlencode({"next": f"{path}?{query}".rstrip("?") if path != "/" else "/"})


def act_as(request: Request, person: Person) -> None:
    """Let a request read and do what a person may."""
    request.state.user, request.state.rights = person.name, person.rights
    request.state.token = person.token
    READING_AS.set(person.reader)


def _is_valid(site: Site, token: str) -> bool:
    READING_AS.set(None)  # in this thread
    return api_tokens.find(site.database, token) is not None


async def admit(request: Request) -> None:
    """Check that a token which opened the session is not revoked; close profiles on first use.

    Raises:
        HTTPException: The token is revoked; the session ends.
    """
    token = getattr(request.state, "token", "")
    if token and not await run_in_threadpool(_is_valid, site_of(request), token):
        sessions_of(request).end(request)
        raise HTTPException(403, "The token with which you signed in is revoked.")
    if READING_AS.get() is not None:
        await run_in_threadpool(site_of(request).close_profiles)


def guarded(route: Route, max_upload_bytes: int, changes: Right | None = None) -> Route:
    """Return a route whose POST requests are limited in size and checked for the CSRF token.

    They need the right to make the `changes`. The form of such a request is in `form_of(request)`
    until the response is made.
    """
    endpoint: Endpoint = route.endpoint

    async def respond(request: Request) -> Response:
        with reporting_defects(request):
            await admit(request)
            return await answer(request)

    async def answer(request: Request) -> Response:
        if request.method in SAFE_METHODS:
            return await _answer(endpoint, request)
        if changes is not None and not may(request, changes):
            raise HTTPException(403, f"Your role does not allow this: it lacks “{changes}”.")
        request = Request(request.scope, bounded(request, max_upload_bytes))
        token = request.headers.get("x-csrf-token")
        if token is not None:  # before the body is received
            _require_token(request, token)
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS) as form:
            if token is None:
                _require_token(request, str(form.get(CSRF_FIELD, "")))
            request.state.form = form
            return await _answer(endpoint, request)

    methods = None if route.methods is None else sorted(route.methods)
    return Route(route.path, respond, methods=methods, name=route.name)


@contextmanager
def reporting_defects(request: Request) -> Iterator[None]:
    """Log an unexpected error, and let the answer say that the log has it."""
    try:
        yield
    except (ChordwiseError, HTTPException):
        raise
    except Exception as error:
        log.exception("web.defect", path=request.scope["path"])
        raise InternalError(
            f"An internal error occurred: {type(error).__name__}.",
            "The log of this server has the details.",
        ) from error


async def _answer(endpoint: Endpoint, request: Request) -> Response:
    if iscoroutinefunction(endpoint):
        answered: Response = await endpoint(request)
        return answered
    return await run_in_threadpool(cast("Callable[[Request], Response]", endpoint), request)


def _require_token(request: Request, sent_token: str) -> None:
    token = str(request.session.get(CSRF_FIELD, ""))
    if not token or not hmac.compare_digest(sent_token.encode(), token.encode()):
        raise HTTPException(403, "This page is out of date: reload it and repeat the change.")


def bounded(request: Request, max_upload_bytes: int) -> Receive:
    """Return a `receive` function that refuses a body that is too large or too slow.

    Only signed-in users may upload files. Each part of an upload has a time limit; any other body
    has one as a whole. What follows the body, which is the end of the connection, has none.
    """
    is_multipart = request.headers.get("content-type", "").startswith("multipart/")
    is_upload = is_multipart and bool(user_of(request))
    limit = max_upload_bytes if is_upload else _MEBIBYTE
    clock = asyncio.get_running_loop().time
    received, until, is_complete = 0, clock() + _BODY_SECONDS, False

    async def receive() -> Message:
        nonlocal received, until, is_complete
        if is_complete:
            return await request.receive()
        try:
            async with asyncio.timeout_at(until):
                message = await request.receive()
        except TimeoutError as error:
            raise HTTPException(408, "The request did not arrive in time.", _CLOSING) from error
        if is_upload:
            until = clock() + _BODY_SECONDS
        received += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if received > limit:
            raise HTTPException(413, too_much, _CLOSING)
        return message

    too_much = f"A request may have at most {limit // _MEBIBYTE} MB."
    if int(Headers(scope=request.scope).get("content-length") or 0) > limit:
        raise HTTPException(413, too_much, _CLOSING)
    return receive
