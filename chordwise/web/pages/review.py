"""The review page: decide on one value after another by keyboard."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlencode

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.feedback_input import FeedbackInput, parsed
from chordwise.domain.learning.truths import Verdict
from chordwise.domain.people import Right
from chordwise.domain.visible_text import restored
from chordwise.errors import UsageError
from chordwise.pipeline.learning import certification, feedback
from chordwise.pipeline.learning.scope import Scope
from chordwise.relations import review
from chordwise.relations.relation import Row
from chordwise.settings import Settings
from chordwise.storage import runs as stored_runs
from chordwise.storage.database import driver
from chordwise.storage.feedback import Feedback
from chordwise.storage.jobs import Job
from chordwise.web.lists import Listing, listing_of
from chordwise.web.operations import require_visible
from chordwise.web.site import SitePage, redirect, render, site_of, text_in, user_of

_PLACE = re.compile(r"[0-9]{1,9}")
_WAYS = re.compile(r"/review(\?|$)|/tables/\w+/cell\?")
_FILTERS = ("run", "analysis_type", "queue", "profile")
_MAX_RUNS = 50
_SAID = {
    Verdict.APPROVED: "Accepted",
    Verdict.CORRECTED: "Corrected",
    Verdict.REJECTED: "Rejected",
    Verdict.SEEN: "Seen",
}


def _review(request: Request) -> Response:
    listing = listing_of(request, _FILTERS)
    query = request.query_params
    question: Row | None
    with site_of(request).database.read() as session:
        connection = driver(session)
        if "job" in query:
            question = review.item(connection, id_of(query["job"]), query.get("path", ""))
            following = listing.address()
        elif "queue" in listing.filters:
            question, following = _queued(session, site_of(request).settings, listing)
        else:
            after = review.place_of(listing.after)
            question = review.next_item(connection, listing.filters, after)
            following = listing.address() if after else ""
            if question:
                following = listing.next_page(question["place"])
        page = render(
            request,
            "review.html",
            question=question,
            name=name_of(question) if question else "",
            following=following,
            decisions=review.decisions(connection),
            listing=listing,
            choices=_choices(session, listing),
        )
    # htmx replaces a part of the page; the pushed address makes a reload show the same.
    page.headers["HX-Push-Url"] = f"{request.url.path}?{request.url.query}"
    return page


def _queued(session: Session, settings: Settings, listing: Listing) -> tuple[Row | None, str]:
    """Return the next answer to check for certification, and the address that follows it.

    At the end of the queue the address is that of the skipped answers, or empty if all are checked.
    """
    filters = listing.filters
    scope = Scope(
        settings=settings,
        run=stored_runs.find(session, filters["run"]) if "run" in filters else None,
        profile=filters.get("profile", ""),
        types=tuple(kind for kind in AnalysisType if kind == filters.get("analysis_type")),
    )
    queue = certification.queue(session, scope, filters["queue"])
    after = str(listing.after[0]) if listing.after else ""
    left = [row for row in queue["candidates"] if f"{row['place']:04}" > after]
    if not left:
        return None, listing.address() if queue["candidates"] else ""
    question = review.item(driver(session), left[0]["job_id"], left[0]["path"])
    return {**question, "left": len(left)}, listing.next_page((f"{left[0]['place']:04}",))


def _choices(session: Session, listing: Listing) -> Mapping[str, object]:
    """Return the options of the filters of both pages, and the query string of the filters set."""
    runs = stored_runs.newest_names(session, _MAX_RUNS)
    chosen = listing.filters.get("run", "")
    return {
        "runs": runs if chosen in ("", *runs) else [chosen, *runs],
        "types": tuple(AnalysisType),
        "query": f"?{urlencode(listing.filters)}" if listing.filters else "",
    }


def _decide(request: Request) -> Response:
    """Store a decision and redirect to the next value, or back to the cell of a table."""
    entered = _entered(request)
    job_id, result_id = id_of(text_in(request, "job")), id_of(text_in(request, "result"))
    require_visible(site_of(request), Job, job_id)
    with site_of(request).database.write() as session:
        stored = feedback.decide(session, job_id, result_id, entered)
    said = f"{_SAID[entered.verdict]}." if stored else "Your earlier decision was the same."
    return redirect(request, _way_on(request), said)


def _withdraw(request: Request) -> Response:
    """Withdraw a decision and show its value again.

    The panel of a table names the value: a newer decision on it was not shown, and stays.
    """
    feedback_id, way_back = id_of(text_in(request, "feedback")), _way_on(request)
    is_panel = bool(text_in(request, "job"))
    require_visible(site_of(request), Feedback, feedback_id)
    with site_of(request).database.write() as session:
        if is_panel and feedback_id != last_decision(
            session, id_of(text_in(request, "job")), text_in(request, "path")
        ):
            return redirect(request, way_back, "Another decision was made in the meantime.")
        taken = feedback.withdraw(session, feedback_id, user_of(request))
    if not is_panel:
        filters = {name: text_in(request, name) for name in _FILTERS if text_in(request, name)}
        value = {"job": str(taken.job_id), "path": taken.path}
        way_back = f"/review?{urlencode({**filters, **value})}"
    return redirect(request, way_back, "Withdrawn.")


def last_decision(session: Session, job_id: uuid.UUID, path: str) -> uuid.UUID | None:
    """Return the id of the last decision on a value, or on the whole answer; `None` without one."""
    with suppress(UsageError):
        last = feedback.last(session, feedback.one(session, str(job_id)), path)
        return last.id if path or not last.path else None
    return None


def _entered(request: Request) -> FeedbackInput:
    """Return the decision in the form, signed by the user."""
    try:
        verdict = Verdict(text_in(request, "verdict"))
    except ValueError as error:
        raise UsageError("Nothing was decided.") from error
    value: JsonValue = None
    if verdict is Verdict.CORRECTED:
        value = parsed(restored(text_in(request, "value")))
    edges = [text_in(request, name) for name in ("start_char", "end_char")]
    span = (int(edges[0]), int(edges[1])) if all(map(_PLACE.fullmatch, edges)) else None
    path, author = text_in(request, "path"), user_of(request)
    return FeedbackInput(verdict=verdict, path=path, value=value, span=span, author=author)


def name_of(question: Row) -> str:
    """Return the name of what is decided on, in the words of the model's question."""
    if question["value"] is None:
        return f"the whole {question['analysis_type']}"
    return ("" if question["choices"] else question["value"]["item"]) or "label"


def _way_on(request: Request) -> str:
    """Return the address to redirect to: a part of the review page or of a table."""
    address = text_in(request, "next")
    return address if _WAYS.match(address) else "/review"


def id_of(written: str) -> uuid.UUID:
    """Return the id in an address or a form.

    Raises:
        UsageError: It is not an id.
    """
    try:
        return uuid.UUID(written)
    except ValueError as error:
        raise UsageError("There is no such result.") from error


ROUTES = (
    Route("/review", _review),
    Route("/review/decisions", _decide, methods=["POST"]),
    Route("/review/withdrawals", _withdraw, methods=["POST"]),
)
PAGE = SitePage(ROUTES, "Review", rank=4, changes=Right.DECIDE)
