"""The web application: routes, middleware and error pages."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from chordwise.domain.people import READING_AS, Right
from chordwise.errors import ChordwiseError, ServiceUnavailableError, UsageError
from chordwise.web import api, login
from chordwise.web.access_control import (
    SAFE_METHODS,
    Access,
    Rules,
    SecurityHeaders,
    Sessions,
    guarded,
)
from chordwise.web.site import (
    FOLDER,
    PAGES,
    Site,
    error_page,
    is_call,
    may,
    site_of,
    user_of,
)

_MEBIBYTE = 1024 * 1024


def create_app(site: Site, rules: Rules, cookie: str) -> Starlette:
    """Return the application; its session cookie is named `cookie`."""
    session = Middleware(
        SessionMiddleware,
        secret_key=secrets.token_urlsafe(),
        session_cookie=cookie,
        same_site="strict",
        https_only=rules.is_https,
    )
    access = Middleware(Access, rules=rules, scrapers_token=site.settings.metrics.token)
    app = Starlette(
        routes=_routes(site.settings.web.max_upload_megabytes * _MEBIBYTE),
        middleware=[Middleware(SecurityHeaders), session, access],
        exception_handlers={ChordwiseError: _explain, HTTPException: _explain_status},
    )
    app.state.site, app.state.rules = site, rules
    app.state.sessions, app.state.attempts = Sessions(), login.Attempts()
    return app


def _routes(max_upload_bytes: int) -> Sequence[BaseRoute]:
    return [
        Route("/", lambda _: RedirectResponse("/runs")),
        Route("/health", lambda _: PlainTextResponse("ok\n")),
        Route("/metrics", _metrics),
        *api.routes(max_upload_bytes),
        Mount("/static", StaticFiles(directory=FOLDER / "static"), name="static"),
        *(guarded(route, max_upload_bytes) for route in login.ROUTES),
        *(
            guarded(route, max_upload_bytes, page.changes)
            for page in PAGES.values()
            for route in page.routes
        ),
    ]


def _metrics(request: Request) -> Response:
    """Return the figures of all, which are kept for a moment: not to people with fewer rights."""
    if user_of(request) and not may(request, Right.SUBMIT):
        raise HTTPException(403, "Your role does not allow this: it lacks “submit”.")
    READING_AS.set(None)
    import prometheus_client  # noqa: PLC0415 - few pages are scraped

    written = prometheus_client.generate_latest(site_of(request).metrics())
    return Response(written, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _explain(request: Request, error: Exception) -> Response:
    """Return the error page of an error, which the browser retries if it is temporary."""
    assert isinstance(error, ChordwiseError)  # noqa: S101 - what the handler is registered for
    if is_call(request):
        return api.explain(error)
    if isinstance(error, ServiceUnavailableError):
        page = error_page(request, 503, "Unavailable", error.what, error.hint)
        page.headers["Retry-After"] = str(_RETRY_SECONDS)
        if request.method in SAFE_METHODS:
            page.headers["Refresh"] = str(_RETRY_SECONDS)
        return page
    status_code = 400 if isinstance(error, UsageError) else 500
    return error_page(request, status_code, "Not possible", error.what, error.hint)


_RETRY_SECONDS = 5
_TITLES = {403: "No access", 404: "No such page", 405: "No such page", 413: "Too large"}


def _explain_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    if is_call(request):
        return api.explain(error)
    title = _TITLES.get(error.status_code, "Not possible")
    is_said = error.detail != HTTPStatus(error.status_code).phrase
    what = error.detail if is_said else "There is nothing at this address."
    page = error_page(request, error.status_code, title, what, "")
    page.headers.update(error.headers or {})
    return page
