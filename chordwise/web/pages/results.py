"""The results page: a list with filters, search and order, its SQL, and exports of it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from chordwise.domain.analysis import headline
from chordwise.domain.analysis_tasks import AnalysisType, analysis_type
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.marked_text import sought_in
from chordwise.domain.states import JobStatus
from chordwise.errors import UsageError
from chordwise.pipeline.exports import selection, writers
from chordwise.relations import results as stored_results
from chordwise.relations.relation import Values
from chordwise.relations.results import Mark, ResultOrder
from chordwise.storage.database import driver
from chordwise.web.lists import PAGE_ROWS, Key, Listing, listing_of, no_page
from chordwise.web.site import SitePage, log_export, render, site_of

_FILTERS = (
    *("run", "profile", "type", "status", "label", "document", "words"),
    *("from", "to", "grounded", "review"),
)
_SORTS: Mapping[tuple[str, bool], ResultOrder] = {
    ("created", True): ResultOrder.NEWEST,
    ("created", False): ResultOrder.OLDEST,
    ("confidence", True): ResultOrder.MOST_CONFIDENT,
    ("confidence", False): ResultOrder.LEAST_CONFIDENT,
}
_STATUSES = (JobStatus.SUCCEEDED, JobStatus.PARTIAL)
_YES_OR_NO = {"": None, "yes": True, "no": False}
# Counting the matches of a frequent word reads each document that contains it.
_MAX_COUNTED, _MAX_COUNTED_WITH_WORDS = 1_000, 100


def _results(request: Request) -> Response:
    listing = _listing(request)
    values = _values(listing)
    limit = _MAX_COUNTED_WITH_WORDS if values["words"] else _MAX_COUNTED
    with site_of(request).database.read() as session:
        connection = driver(session)
        results = stored_results.listed(
            connection, values, _order(listing), PAGE_ROWS + 1, _after(listing.after)
        )
        count = stored_results.count_listed(connection, values, limit + 1)
        choices = stored_results.choices(connection)
    page, more = listing.page_of(
        results, PAGE_ROWS, lambda row: (row["confidence"], str(row["result_id"]))
    )
    return render(
        request,
        "results.html",
        listing=listing,
        sought=sought_in(str(values["words"])),
        results=[(row, headline(row["analysis_type"], row["output"])) for row in page],
        count=f"{count:,}" if count <= limit else f"more than {limit:,}",
        more=more,
        choices={
            "type": AnalysisType,
            "run": choices["run"],
            "profile": choices["saved_as"],
            "label": choices["label"],
        },
        statuses=[status.value for status in _STATUSES],
        sql=_sql(listing),
        formats=[kind.value for kind in ExportFormat],
        query=request.url.query,
    )


def _export(request: Request) -> Response:
    """Write all rows of the list into a temporary file, which is deleted after it was sent."""
    listing = _listing(request)
    kind = next((e for e in ExportFormat if e == request.path_params["format"]), None)
    if kind is None:
        raise UsageError("There is no such format.", f"One of {', '.join(ExportFormat)}.")
    writers.require(kind)
    database_url = site_of(request).settings.require_sql_url()
    with tempfile.NamedTemporaryFile(prefix="chordwise-", delete=False) as file:
        path = Path(file.name)
        try:
            with selection.opened(database_url, _sql(listing)) as table:
                writers.write(cast("BinaryIO", file), table, kind)
        except BaseException:
            path.unlink()
            raise
    log_export(request, "results")
    return FileResponse(path, filename=f"results.{kind}", background=BackgroundTask(path.unlink))


def _listing(request: Request) -> Listing:
    return listing_of(request, _FILTERS, ("created", "confidence"), "-created")


def _order(listing: Listing) -> ResultOrder:
    return _SORTS[listing.sort, listing.is_descending]


def _sql(listing: Listing) -> str:
    return stored_results.listed_sql(_values(listing), _order(listing))


def _values(listing: Listing) -> Values:
    """Return the values of the filters of `LISTED`."""
    filters = listing.filters
    kind = filters.get("type", "")
    return {
        **{name: filters.get(name, "") for name in ("run", "status", "label", "document", "words")},
        "saved_as": filters.get("profile", ""),
        "analysis_type": kind and analysis_type(kind),
        "min_confidence": _number(filters.get("from", "")),
        "max_confidence": _number(filters.get("to", "")),
        "grounded": _YES_OR_NO.get(filters.get("grounded", "")),
        "needs_review": _YES_OR_NO.get(filters.get("review", "")),
    }


def _number(text: str) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        number = -1.0
    if number is not None and not 0 <= number <= 1:
        raise UsageError(f"“{text}” is not a confidence.", "It is a number from 0 to 1.")
    return number


def _after(key: Key) -> Mark | None:
    if not key:
        return None
    try:
        confidence, result_id = key
        return float(str(confidence)), uuid.UUID(str(result_id))
    except ValueError as error:
        raise no_page() from error


ROUTES = (
    Route("/results", _results),
    Route("/results/export.{format}", _export),
)
PAGE = SitePage(ROUTES, "Results", rank=3)
