"""What every page works with: the settings, the database, the signed-in user, and its layout."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from chordwise.domain.json_values import JsonValue, encoded
from chordwise.domain.marked_text import words_at
from chordwise.domain.money import dollars
from chordwise.domain.visible_text import visible
from chordwise.domain.wording import approximate, counted, money, score, share, span
from chordwise.settings import Settings
from chordwise.storage.database import Database

if TYPE_CHECKING:
    from chordwise.pipeline.intake.background import BackgroundIntakes
    from chordwise.pipeline.runtime.context import Context

FOLDER = Path(__file__).parent
CSRF_FIELD = "csrf"


class Closable(Protocol):
    """Something that ends with the site."""

    def close(self) -> None:
        """Give up what it holds."""
        ...


@dataclass(kw_only=True)
class Site:
    """One per process, and safe to share between threads; the settings hold the addresses.

    `is_stopping` tells whether the server is about to end: streams end then. `pages` are the
    addresses of the pages in the navigation, by title. `opened` is what pages share and the end of
    the site closes, by its class.
    """

    settings: Settings
    database: Database
    is_stopping: Callable[[], bool] = field(default=lambda: False)
    pages: Mapping[str, str] = field(default_factory=dict)
    opened: dict[type, Closable] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @cached_property
    def _context(self) -> Context:
        # Celery comes with it: a site that is only read does without.
        from chordwise.pipeline.runtime.startup import open_context  # noqa: PLC0415 - see above

        return open_context(self.settings, "web")

    @cached_property
    def _intakes(self) -> BackgroundIntakes:
        from chordwise.pipeline.intake.background import BackgroundIntakes  # noqa: PLC0415 - as above

        return BackgroundIntakes(self._context)

    def context(self) -> Context:
        """Return the context that runs are begun, retried and resumed with."""
        with self._lock:
            return self._context

    def intakes(self) -> BackgroundIntakes:
        """Return what takes in for the runs that are begun and resumed here."""
        with self._lock:
            return self._intakes

    def close(self) -> None:
        """Close what the pages have opened."""
        for each in self.opened.values():
            each.close()
        if "_intakes" in self.__dict__:
            self._intakes.close()
        if "_context" in self.__dict__:
            self._context.leases.close()
            self._context.database.close()


def site_of(request: Request) -> Site:
    """Return the site that a request was sent to."""
    site: Site = request.app.state.site
    return site


def form_of(request: Request) -> FormData:
    """Return what was sent with a POST; its CSRF token is checked already."""
    form: FormData = request.state.form
    return form


def text_in(request: Request, name: str) -> str:
    """Return a field of a form as text without NUL characters, empty where it is missing."""
    value = form_of(request).get(name)
    return value.replace("\0", "") if isinstance(value, str) else ""


def user_of(request: Request) -> str:
    """Return the name of the signed-in user, empty where there is none."""
    return str(getattr(request.state, "user", ""))


def csrf_of(request: Request) -> str:
    """Return the session's token, which every POST has to send; the first call makes one up."""
    if CSRF_FIELD not in request.session:
        request.session[CSRF_FIELD] = secrets.token_urlsafe(24)
    return str(request.session[CSRF_FIELD])


def render(
    request: Request, template: str, /, *, status_code: int = 200, **values: object
) -> HTMLResponse:
    """Return a page; every text in it is escaped, and has nothing invisible."""
    said = request.session.pop("said", "")
    html = _TEMPLATES.get_template(template).render(
        pages=site_of(request).pages,
        path=request.url.path,
        user=user_of(request),
        csrf=csrf_of(request),
        said=said,
        **values,
    )
    return HTMLResponse(html, status_code)


def fragment(request: Request, template: str, /, **values: object) -> str:
    """Return a part of a page for a stream or for htmx, with the same care."""
    return _TEMPLATES.get_template(template).render(csrf=csrf_of(request), **values)


def see(request: Request, address: str, said: str = "") -> RedirectResponse:
    """Send the browser to a page after a POST; the page shows what there is to say."""
    if said:
        request.session["said"] = said
    return RedirectResponse(address, 303)


def _shown(value: object) -> object:
    """Return what a template prints: texts of others hold nothing invisible."""
    return visible(value) if type(value) is str else value


def _prose(sentence: str) -> Markup:
    """Return a sentence with what stands between backticks as code."""
    parts = visible(sentence).split("`")
    if len(parts) % 2 == 0:
        return escape(visible(sentence))
    shown = [
        Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(parts)
    ]
    return Markup("").join(shown)


def _moment(when: datetime) -> Markup:
    """Return a moment in UTC; the script shows it on the clock of the browser."""
    return Markup('<time datetime="{}">{}</time>').format(
        f"{when:%Y-%m-%dT%H:%M:%SZ}", f"{when:%Y-%m-%d %H:%M} UTC"
    )


def _dollars(usd: Decimal | None) -> str:
    return "unknown" if usd is None else dollars(usd)


def _in_line(text: str, width: int) -> str:
    """Return a text on one line; of a longer one the beginning."""
    line = " ".join(visible(text).split())
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


def _marked(text: str, sought: Collection[str]) -> Markup:
    """Return a text with the words of a search marked."""
    shown, end = Markup(), 0
    for start, stop in words_at(text, sought):
        word = Markup("<mark>{}</mark>").format(text[start:stop])
        shown, end = shown + visible(text[end:start]) + word, stop
    return shown + visible(text[end:])


def _placed(text: str, start: int) -> Markup:
    """Return a part of a document whose pieces say where they stand in it, from `start` on."""
    shown, at = Markup(), start
    for _, run in groupby(text, lambda each: each == visible(each)):
        piece = "".join(run)
        part = Markup('<span data-start="{}" data-end="{}">{}</span>')
        shown, at = shown + part.format(at, at + len(piece), visible(piece)), at + len(piece)
    return shown


def _file_name(source: str) -> str:
    """Return the last part of the name of a document, without its folders."""
    return source.rstrip("/").rpartition("/")[2] or source


def _folder(source: str) -> str:
    """Return the folders in the name of a document; empty where it has none."""
    return source.removesuffix(_file_name(source))


def _as_text(value: JsonValue) -> str:
    """Return a value for people: texts as they are, anything else as JSON."""
    if isinstance(value, list) and value:
        return "; ".join(map(_as_text, value))
    return value if isinstance(value, str) else encoded(value)


def _as_json(value: JsonValue) -> str:
    """Return a value as JSON on several lines."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(
        prose=_prose, moment=_moment, dollars=_dollars, share=share, score=score
    )
    environment.filters.update(number="{:,}".format, approximate=approximate, span=span)
    environment.filters.update(
        in_line=_in_line, marked=_marked, placed=_placed, file_name=_file_name, folder=_folder
    )
    environment.filters.update(as_text=_as_text, as_json=_as_json)
    environment.globals.update(counted=counted, money=money)
    return environment


_TEMPLATES = _environment()
