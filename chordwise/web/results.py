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

from chordwise.domain.analyses.catalog import headline
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.marked_text import sought_in
from chordwise.domain.states import JobStatus
from chordwise.errors import UsageError
from chordwise.pipeline.exports import selection, writers
from chordwise.pipeline.runs import result_lists
from chordwise.pipeline.runs.result_lists import ResultFilter, ResultOrder, RowMark
from chordwise.web.lists import PAGE_ROWS, Key, Listing, listing_of, no_page
from chordwise.web.site import render, site_of

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
    wanted = _wanted(listing)
    with site_of(request).database.read() as session:
        found = result_lists.read(session, wanted, PAGE_ROWS + 1, _mark(listing.after))
        limit = _MAX_COUNTED_WITH_WORDS if wanted.words else _MAX_COUNTED
        count = result_lists.count(session, wanted, limit + 1)
        choices = result_lists.choices(session)
    shown = found[:PAGE_ROWS]
    more = ""
    if len(found) > PAGE_ROWS:
        more = listing.next_page((shown[-1].confidence, str(shown[-1].result_id)))
    return render(
        request,
        "results.html",
        listing=listing,
        sought=sought_in(wanted.words),
        results=[(each, headline(each.analysis_type, each.output)) for each in shown],
        count=f"{count:,}" if count <= limit else f"more than {limit:,}",
        more=more,
        choices={
            "type": [each.value for each in AnalysisType],
            "run": choices["run"],
            "profile": choices["saved_as"],
            "label": choices["label"],
        },
        statuses=[each.value for each in _STATUSES],
        sql=result_lists.as_sql(wanted),
        formats=[each.value for each in ExportFormat],
        query=request.url.query,
    )


def _export(request: Request) -> Response:
    """Write all rows of the list into a temporary file, which is deleted after it was sent."""
    wanted = _wanted(_listing(request))
    chosen = next((e for e in ExportFormat if e == request.path_params["format"]), None)
    if chosen is None:
        raise UsageError("There is no such format.", f"One of {', '.join(ExportFormat)}.")
    writers.require(chosen)
    database_url = site_of(request).settings.require_sql_url()
    with tempfile.NamedTemporaryFile(prefix="chordwise-", delete=False) as file:
        path = Path(file.name)
        try:
            with selection.opened(database_url, result_lists.as_sql(wanted)) as table:
                writers.write(cast("BinaryIO", file), table, chosen)
        except BaseException:
            path.unlink()
            raise
    return FileResponse(path, filename=f"results.{chosen}", background=BackgroundTask(path.unlink))


def _listing(request: Request) -> Listing:
    return listing_of(request, _FILTERS, ("created", "confidence"), "-created")


def _wanted(listing: Listing) -> ResultFilter:
    given = listing.filters
    chosen = given.get("type", "")
    if chosen and chosen not in set(AnalysisType):
        raise UsageError(f"There is no analysis type “{chosen}”.", f"{', '.join(AnalysisType)}.")
    return ResultFilter(
        run=given.get("run", ""),
        saved_as=given.get("profile", ""),
        analysis_type=AnalysisType(chosen) if chosen else None,
        status=given.get("status", ""),
        label=given.get("label", ""),
        document=given.get("document", ""),
        words=given.get("words", ""),
        min_confidence=_number(given.get("from", "")),
        max_confidence=_number(given.get("to", "")),
        grounded=_YES_OR_NO.get(given.get("grounded", "")),
        needs_review=_YES_OR_NO.get(given.get("review", "")),
        order=_SORTS[listing.sort, listing.is_descending],
    )


def _number(given: str) -> float | None:
    try:
        found = float(given) if given else None
    except ValueError:
        found = -1.0
    if found is not None and not 0 <= found <= 1:
        raise UsageError(f"“{given}” is not a confidence.", "It is a number from 0 to 1.")
    return found


def _mark(key: Key) -> RowMark | None:
    if not key:
        return None
    try:
        confidence, result_id = key
        return RowMark(float(str(confidence)), uuid.UUID(str(result_id)))
    except ValueError as error:
        raise no_page() from error


ROUTES = (
    Route("/results", _results),
    Route("/results/export.{format}", _export),
)
