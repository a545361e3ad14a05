"""Insight: what was done, how fast, how well and at which cost, as plots with their numbers."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from chordwise.errors import UsageError
from chordwise.pipeline.runs import insight
from chordwise.web import report
from chordwise.web.report import DEFAULT_DAYS, MAX_DAYS
from chordwise.web.site import render, site_of

_SPANS = (7, 30, 90, 365)
_DAYS = re.compile(r"[0-9]{1,4}")


def _insight(request: Request) -> Response:
    days = _days(request)
    with site_of(request).database.read() as session:
        plots = insight.plots(session, days)
    return render(
        request,
        "insight.html",
        figures=report.figures(plots),
        totals=report.totals(plots),
        days=days,
        spans=_SPANS,
    )


def _report(request: Request) -> Response:
    with site_of(request).database.read() as session:
        html, _ = report.page(session, _days(request))
    named = {"Content-Disposition": 'attachment; filename="chordwise-report.html"'}
    return HTMLResponse(html, headers=named)


def _days(request: Request) -> int:
    asked = request.query_params.get("days", str(DEFAULT_DAYS))
    days = int(asked) if _DAYS.fullmatch(asked) else 0
    if not 1 <= days <= MAX_DAYS:
        raise UsageError(f"“{asked}” is no number of days from 1 to {MAX_DAYS:,}.")
    return days


ROUTES = (
    Route("/insight", _insight),
    Route("/insight/report", _report),
)
