"""What all pages share: the settings, the database, the signed-in user, and the layout."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from threading import BoundedSemaphore, Event, RLock
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.routing import Route

from chordwise.domain.json_values import JsonValue, encoded
from chordwise.domain.learning.certification import advice, outlook
from chordwise.domain.marked_text import words_at
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import approximate, counted, money, score, share, span
from chordwise.domain.people import Right
from chordwise.domain.visible_text import visible
from chordwise.errors import ServiceUnavailableError
from chordwise.kinds import Kinds
from chordwise.settings import Settings
from chordwise.storage import audit_events, closed_profiles
from chordwise.storage.database import Database
from chordwise.telemetry.metrics import count_here

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from chordwise.pipeline.intake.background import BackgroundIntakes
    from chordwise.pipeline.runs.page_pictures import PagePictures
    from chordwise.pipeline.runtime.context import Context, ReadingContext

FOLDER = Path(__file__).parent
_PICTURE_LANES = 3
CSRF_FIELD = "csrf"
API_PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class SitePage:
    """A page and its parts; with a title it is in the navigation, in the order of the ranks.

    Its forms need the right to make the `changes`.
    """

    routes: Sequence[Route]
    title: str = ""
    rank: int = 100
    changes: Right = Right.SUBMIT


PAGES: Kinds[SitePage] = Kinds("chordwise.web.pages", "PAGE")


def _navigation() -> Mapping[str, str]:
    """Return the addresses of the pages by title."""
    pages = sorted(PAGES.values(), key=lambda page: page.rank)
    return {page.title: page.routes[0].path for page in pages if page.title}


@dataclass(kw_only=True)
class Site:
    """The state of the web process, safe to share between threads.

    The settings hold the addresses of the services. `is_stopping` returns whether the server is
    shutting down; streams end then.
    """

    settings: Settings
    database: Database
    is_stopping: Callable[[], bool] = field(default=lambda: False)
    picture_lanes: Sequence[asyncio.Lock] = field(
        default_factory=lambda: [asyncio.Lock() for _ in range(_PICTURE_LANES)]
    )
    _lock: RLock = field(default_factory=RLock)
    _has_closed_profiles: bool = False
    _context: Context | None = None
    _intakes: BackgroundIntakes | None = None
    _pictures: PagePictures | None = None
    _metrics: CollectorRegistry | None = None

    def context(self) -> Context:
        """Return the context for starting, retrying and resuming runs."""
        # This imports Celery, which a site that is only read does not need.
        from chordwise.pipeline.runtime.startup import open_context  # noqa: PLC0415 - see above

        with self._lock:
            if self._context is None:
                self._context = open_context(self.settings, "web")
            return self._context

    def close_profiles(self) -> None:
        """Close the profiles of the settings, once for the process."""
        with self._lock:
            if not self._has_closed_profiles:
                with self.database.write() as session:
                    readers = self.settings.readers_of_profiles
                    closed_profiles.update(session, readers, "the pages")
                self._has_closed_profiles = True

    def reading_context(self) -> ReadingContext:
        """Return a context for questions and estimates, which need no broker."""
        from chordwise.pipeline.runtime import context  # noqa: PLC0415 - slow

        return context.reading_context(self.settings, self.database)

    def intakes(self) -> BackgroundIntakes:
        """Return the background intakes of the runs started and resumed in this process."""
        from chordwise.pipeline.intake.background import BackgroundIntakes  # noqa: PLC0415 - as above

        with self._lock:
            if self._intakes is None:
                self._intakes = BackgroundIntakes(self.context())
            return self._intakes

    def pictures(self) -> PagePictures:
        """Return the renderer of pages."""
        from chordwise.pipeline.runs.page_pictures import PagePictures  # noqa: PLC0415 - as above

        with self._lock:
            if self._pictures is None:
                self._pictures = PagePictures(self.settings.readers)
            return self._pictures

    def metrics(self) -> CollectorRegistry:
        """Return the figures for Prometheus; the calls of this process count from now on."""
        from chordwise.pipeline.diagnosis.shared_figures import SharedFigures  # noqa: PLC0415 - rare

        with self._lock:
            if self._metrics is None:
                self._metrics = count_here(SharedFigures(self.settings, self.database))
            return self._metrics

    def close(self) -> None:
        """Close the resources that the pages have opened."""
        if self._pictures is not None:
            self._pictures.close()
        if self._intakes is not None:
            self._intakes.close()
        if self._context is not None:
            self._context.leases.close()
            self._context.database.close()


def site_of(request: Request) -> Site:
    """Return the site that received a request."""
    site: Site = request.app.state.site
    return site


def form_of(request: Request) -> FormData:
    """Return the form of a POST request; its CSRF token has been checked."""
    form: FormData = request.state.form
    return form


def text_in(request: Request, name: str) -> str:
    """Return a form field without NUL characters, or an empty string if it is missing."""
    value = form_of(request).get(name)
    return value.replace("\0", "") if isinstance(value, str) else ""


def end_of(request: Request) -> Event:
    """Return an event that is set when the response is complete or its client has left.

    The form of the request has been received.
    """
    ended = Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        ended.set()

    request.state.watcher = asyncio.create_task(watch())  # an unreferenced task may be collected
    return ended


def user_of(request: Request) -> str:
    """Return the name of the signed-in user, or an empty string."""
    return str(getattr(request.state, "user", ""))


def may(request: Request, right: Right) -> bool:
    """Return whether the signed-in user has a right."""
    return right in getattr(request.state, "rights", ())


def log_sign_in(request: Request, name: str, how: str, action: str = "signed in") -> None:
    """Add an attempt to sign in to the audit log."""
    with site_of(request).database.write() as session:
        audit_events.record(session, name, action, how)


def log_export(request: Request, subject: str) -> None:
    """Add an export of the user to the audit log."""
    with site_of(request).database.write() as session:
        audit_events.record(session, user_of(request), "exported", subject)


@contextmanager
def taking_a_place(places: BoundedSemaphore, refusal: str) -> Iterator[None]:
    """Take one of the places for work that must leave threads for the other pages.

    Raises:
        ServiceUnavailableError: All places are taken, as the refusal says.
    """
    if not places.acquire(blocking=False):
        raise ServiceUnavailableError(refusal, "Try again in a moment.")
    try:
        yield
    finally:
        places.release()


def csrf_of(request: Request) -> str:
    """Return the session's CSRF token, which every POST has to send; create it if missing."""
    if CSRF_FIELD not in request.session:
        request.session[CSRF_FIELD] = secrets.token_urlsafe(24)
    return str(request.session[CSRF_FIELD])


def render(
    request: Request, template: str, /, *, status_code: int = 200, **values: object
) -> HTMLResponse:
    """Return a page; the texts in it are HTML-escaped, and invisible characters are escaped."""
    html = TEMPLATES.get_template(template).render(
        path=request.url.path,
        user=user_of(request),
        may=partial(may, request),
        csrf=csrf_of(request),
        notice=request.session.pop("notice", ""),
        **values,
    )
    return HTMLResponse(html, status_code)


def fragment(request: Request, template: str, /, **values: object) -> HTMLResponse:
    """Return a part of a page for htmx, escaped as `render` does it."""
    return HTMLResponse(
        TEMPLATES.get_template(template).render(
            csrf=csrf_of(request), may=partial(may, request), **values
        )
    )


def error_page(
    request: Request, status_code: int, title: str, what: str, hint: str
) -> HTMLResponse:
    """Return a page that says what is wrong and what to do."""
    return render(request, "error.html", status_code=status_code, title=title, what=what, hint=hint)


def is_call(request: Request) -> bool:
    """Return whether a request is a call of the API."""
    return str(request.scope["path"]).startswith(f"{API_PREFIX}/")


def problem(status_code: int, what: str, hint: str = "", code: str = "") -> JSONResponse:
    """Return an error of the API (RFC 9457); `code` is stable, the sentences are for people."""
    phrase = HTTPStatus(status_code).phrase
    content = {
        "type": f"urn:chordwise:{code}" if code else "about:blank",
        "title": phrase,
        "status": status_code,
        "detail": what,
        "hint": hint,
    }
    headers = {"Retry-After": "5"} if status_code == HTTPStatus.SERVICE_UNAVAILABLE else None
    return JSONResponse(content, status_code, headers, "application/problem+json")


def redirect(request: Request, address: str, notice: str = "") -> RedirectResponse:
    """Redirect the browser to a page after a POST; the page shows the notice."""
    if notice:
        request.session["notice"] = notice
    return RedirectResponse(address, 303)


def _shown(value: object) -> object:
    """Return the value that a template prints, with the invisible characters of texts escaped."""
    return visible(value) if type(value) is str else value


def _prose(sentence: str) -> Markup:
    """Return a sentence as markup; text between backticks becomes code."""
    parts = visible(sentence).split("`")
    if len(parts) % 2 == 0:
        return escape(visible(sentence))
    shown = [
        Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(parts)
    ]
    return Markup("").join(shown)


def _moment(when: datetime) -> Markup:
    """Return a time in UTC as markup; the script converts it to the browser's time zone."""
    return Markup('<time datetime="{}">{}</time>').format(
        f"{when:%Y-%m-%dT%H:%M:%SZ}", f"{when:%Y-%m-%d %H:%M} UTC"
    )


def _in_line(text: str, width: int) -> str:
    """Return a text on one line, truncated to a width."""
    line = " ".join(visible(text).split())
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


def _marked(text: str, sought: Collection[str]) -> Markup:
    """Return a text with the words of a search highlighted."""
    shown, end = Markup(), 0
    for start, stop in words_at(text, sought):
        word = Markup("<mark>{}</mark>").format(text[start:stop])
        shown, end = shown + visible(text[end:start]) + word, stop
    return shown + visible(text[end:])


def _placed(text: str, start: int) -> Markup:
    """Return a part of a document as elements that carry their offsets in it, from `start` on."""
    shown, at = Markup(), start
    for _, run in groupby(text, lambda character: character == visible(character)):
        piece = "".join(run)
        part = Markup('<span data-start="{}" data-end="{}">{}</span>')
        shown, at = shown + part.format(at, at + len(piece), visible(piece)), at + len(piece)
    return shown


def _file_name(source: str) -> str:
    """Return the last part of a document's name, without its folders."""
    return source.rstrip("/").rpartition("/")[2] or source


def _folder(source: str) -> str:
    """Return the folders in a document's name, or an empty string."""
    return source.removesuffix(_file_name(source))


def _as_text(value: JsonValue) -> str:
    """Return a value for display: texts unchanged, lists joined, anything else as JSON."""
    if isinstance(value, list) and value:
        return "; ".join(map(_as_text, value))
    return value if isinstance(value, str) else encoded(value)


def _as_cell(value: object) -> str:
    """Return a value of a table on one line; empty without one."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() | Decimal():
            return f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"
        case list():
            return "; ".join(map(_as_cell, value))
        case dict():
            return encoded(value)
        case _:
            return str(value)


def _in_middle(name: str, width: int) -> str:
    """Return a name that is truncated in the middle to a width, so that its end stays."""
    name, half = visible(name), width // 2
    return name if len(name) <= width else f"{name[:half]}…{name[half - width + 1 :]}"


TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_shown,
)
TEMPLATES.filters.update(
    prose=_prose, moment=_moment, dollars=dollars, share=share, score=score, span=span
)
TEMPLATES.filters.update(number="{:,}".format, approximate=approximate, in_middle=_in_middle)
TEMPLATES.filters.update(in_line=_in_line, marked=_marked, placed=_placed, folder=_folder)
TEMPLATES.filters.update(
    file_name=_file_name,
    as_text=_as_text,
    as_json=partial(json.dumps, ensure_ascii=False, indent=2),
    as_cell=_as_cell,
)
TEMPLATES.globals.update(counted=counted, money=money, navigation=_navigation)
TEMPLATES.globals.update(advice=advice, outlook=outlook)
