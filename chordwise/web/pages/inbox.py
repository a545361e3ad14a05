"""The inbox page: the files in the watched folders, their status and the reasons for failures."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chordwise.embedded import stack
from chordwise.pipeline.inbox import status
from chordwise.storage.database import driver
from chordwise.web.site import SitePage, render, site_of

_MAX_RECENT = 50


def _inbox(request: Request) -> Response:
    site = site_of(request)
    with site.database.read() as session:
        inboxes = status.accounts(driver(session), site.settings, _MAX_RECENT)
    return render(
        request,
        "inbox.html",
        inboxes=inboxes,
        is_enabled=site.settings.inbox.enabled,
        is_watched=stack.is_watching(site.settings),
    )


ROUTES = (Route("/inbox", _inbox),)
PAGE = SitePage(ROUTES, "Inbox", rank=6)
