"""The insight page: throughput, speed, quality and cost as plots with their numbers."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from chordwise.errors import UsageError
from chordwise.pipeline.runs import insight
from chordwise.web import report
from chordwise.web.report import DEFAULT_DAYS, MAX_DAYS
from chordwise.web.site import SitePage, fragment, log_export, render, site_of

_SPANS = (7, 30, 90, 365)
_DAYS = re.compile(r"[0-9]{1,4}")


def _insight(request: Request) -> Response:
    """Return the page without numbers; the browser loads them in parts."""
    return render(
        request,
        "insight.html",
        figures=insight.FIGURES,
        leading={
            figure.key for figure in insight.FIGURES if insight.figures_sharing_query(figure.key)
        },
        heads=report.HEADS,
        days=_days(request),
        spans=_SPANS,
    )


def _figures(request: Request) -> Response:
    """Return the figures that one query reads together, and the totals that they contain.

    The page requests the first figure; the others replace their placeholders by id.
    """
    group = insight.figures_sharing_query(request.path_params["key"])
    if not group:
        raise UsageError("There is no such figure.", "Load the page again.")
    with site_of(request).database.read() as session:
        plots = insight.plots(session, _days(request), group)
    figures = [report.figure(plot) for plot in plots]
    return fragment(request, "insight_part.html", figures=figures, totals=report.totals(plots))


def _report(request: Request) -> Response:
    with site_of(request).database.read() as session:
        html, _ = report.page(session, _days(request))
    log_export(request, "insight report")
    headers = {"Content-Disposition": 'attachment; filename="chordwise-report.html"'}
    return HTMLResponse(html, headers=headers)


def _days(request: Request) -> int:
    value = request.query_params.get("days", str(DEFAULT_DAYS))
    days = int(value) if _DAYS.fullmatch(value) else 0
    if not 1 <= days <= MAX_DAYS:
        raise UsageError(f"“{value}” is not a number of days from 1 to {MAX_DAYS:,}.")
    return days


ROUTES = (
    Route("/insight", _insight),
    Route("/insight/figures/{key}", _figures),
    Route("/insight/report", _report),
)
PAGE = SitePage(ROUTES, "Insight", rank=5)
