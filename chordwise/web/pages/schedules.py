"""The schedules page: the next occurrences, the past ones, and starting one now."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chordwise.pipeline.schedules import occurrences
from chordwise.storage.database import driver
from chordwise.web.site import SitePage, redirect, render, site_of

_MAX_PAST = 50


def _schedules(request: Request) -> Response:
    site = site_of(request)
    with site.database.read() as session:
        rows = occurrences.listed(driver(session))
        past = occurrences.OCCURRENCES.read(driver(session), limit=_MAX_PAST)
    unseen = sorted(site.settings.schedules.keys() - {row["name"] for row in rows})
    return render(request, "schedules.html", schedules=rows, past=past, unseen=unseen)


def _run_now(request: Request) -> Response:
    site, name = site_of(request), str(request.path_params["name"])
    with site.database.write() as session:
        occurrences.run_now(session, site.settings, name)
    return redirect(request, "/schedules", f"A scheduler will start {name} within seconds.")


ROUTES = (
    Route("/schedules", _schedules),
    Route("/schedules/{name}/run", _run_now, methods=["POST"]),
)
PAGE = SitePage(ROUTES, "Schedules", rank=7)
