"""The insight page: throughput, speed, quality and cost as plots with their numbers.

The report has the same figures in one self-contained file.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from importlib.metadata import version
from typing import Final

from markupsafe import Markup
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from chordwise.domain.json_values import JsonObject
from chordwise.domain.money import dollars
from chordwise.domain.visible_text import visible
from chordwise.errors import UsageError
from chordwise.pipeline.runs import insight
from chordwise.pipeline.runs.insight import Cell, Plot
from chordwise.storage import clock
from chordwise.web.site import (
    FOLDER,
    TEMPLATES,
    SitePage,
    fragment,
    log_export,
    render,
    site_of,
)

DEFAULT_DAYS = 30
MAX_DAYS = 3_660
_STYLES = ("chordwise.css", "vendor/uPlot.min.css", "plots.css")
_SCRIPTS = ("vendor/uPlot.iife.min.js", "plots.js")
_SPANS = (7, 30, 90, 365)
_DAYS = re.compile(r"[0-9]{1,4}")
HEADS: Final = {
    "Results": ("results",),
    "Need review": ("needing_review",),
    "Calls": ("calls",),
    "Tokens": ("input_tokens", "output_tokens"),
    "Cost": ("cost_usd",),
    "Saved": ("cache_saved_usd", "routing_saved_usd"),
    "Failures": ("failures",),
}
"""The totals at the head of the page, each with the sums that it adds up."""


def _insight(request: Request) -> Response:
    """Return the page without numbers; the browser loads them in parts."""
    return render(
        request,
        "insight.html",
        figures=insight.FIGURES,
        leading={
            figure.key for figure in insight.FIGURES if insight.figures_sharing_query(figure.key)
        },
        heads=HEADS,
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
    figures = [figure(plot) for plot in plots]
    return fragment(request, "insight_part.html", figures=figures, totals=totals(plots))


def _report(request: Request) -> Response:
    with site_of(request).database.read() as session:
        html, _ = report(session, _days(request))
    log_export(request, "insight report")
    headers = {"Content-Disposition": 'attachment; filename="chordwise-report.html"'}
    return HTMLResponse(html, headers=headers)


def _days(request: Request) -> int:
    value = request.query_params.get("days", str(DEFAULT_DAYS))
    days = int(value) if _DAYS.fullmatch(value) else 0
    if not 1 <= days <= MAX_DAYS:
        raise UsageError(f"“{value}” is not a number of days from 1 to {MAX_DAYS:,}.")
    return days


def totals(plots: Sequence[Plot]) -> dict[str, str]:
    """Return the formatted totals for the head of the page that these plots have the sums for."""
    sums = insight.totals(plots)
    added = {
        name: sum(sums[column] for column in columns)
        for name, columns in HEADS.items()
        if sums.keys() >= set(columns)
    }
    return {
        name: dollars(Decimal(str(number))) if HEADS[name][0].endswith("_usd") else f"{number:,.0f}"
        for name, number in added.items()
    }


def report(session: Session, days: int) -> tuple[str, JsonObject]:
    """Return the report of the last `days` days as HTML, and its sums.

    Styles and scripts are inline, and the Content Security Policy of the page forbids loading and
    sending anything.
    """
    plots = insight.plots(session, days)
    scripts = list(map(_asset, _SCRIPTS))
    html = TEMPLATES.get_template("report.html").render(
        styles=Markup("\n".join(map(_asset, _STYLES))),  # noqa: S704 - ours
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - ours
        policy=_policy(scripts),
        figures=[figure(plot) for plot in plots],
        totals=totals(plots),
        days=days,
        made_at=f"{clock.read(session).astimezone(dt.UTC):%Y-%m-%d %H:%M}",
        version=version("chordwise"),
    )
    return html, {name: round(number, 8) for name, number in insight.totals(plots).items()}


def figure(plot: Plot) -> Mapping[str, object]:
    """Return a figure for its template: `data` is plotted, `columns` and `rows` are the table.

    The names contain no invisible characters.
    """
    names = [visible(name) for name in plot.series]
    series = [
        {"name": name, "values": list(values)}
        for name, values in zip(names, plot.series.values(), strict=True)
    ]
    numeric = [
        any(isinstance(row[index], int | float | Decimal) for row in plot.rows)
        for index in range(len(plot.columns))
    ]
    unit, is_curve = plot.figure.unit.value, plot.figure.is_curve
    return {
        "key": plot.figure.key,
        "title": plot.figure.title,
        "note": plot.figure.note,
        "data": {"unit": unit, "isCurve": is_curve, "x": list(plot.x), "series": series},
        "series": names,
        "columns": plot.columns,
        "numeric": numeric,
        "rows": [
            [_written(name, cell) for name, cell in zip(plot.columns, row, strict=True)]
            for row in reversed(plot.rows)
        ],
    }


def _written(column: str, cell: Cell) -> str:
    match cell:
        case None:
            return "–"
        case Decimal() if column.endswith("_usd"):
            return dollars(cell)
        case int():
            return f"{cell:,}"
        case float() | Decimal():
            return f"{cell:,.0f}" if cell == int(cell) else f"{cell:,.3f}"
    return visible(str(cell))


def _asset(name: str) -> str:
    return (FOLDER / "static" / name).read_text("utf-8")


def _policy(scripts: Sequence[str]) -> str:
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


ROUTES = (
    Route("/insight", _insight),
    Route("/insight/figures/{key}", _figures),
    Route("/insight/report", _report),
)
PAGE = SitePage(ROUTES, "Insight", rank=5)
