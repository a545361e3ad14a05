"""Runs: the list, and one run with its progress."""

from __future__ import annotations

import uuid

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chordwise.domain.states import RunStatus
from chordwise.pipeline.runs import accounts
from chordwise.web.listing import PAGE_ROWS, listing_of
from chordwise.web.site import render, site_of


def _runs(request: Request) -> Response:
    listing = listing_of(request, ("status",))
    before = uuid.UUID(str(listing.after[0])) if listing.after else None
    with site_of(request).database.read() as session:
        found = accounts.newest(
            session, PAGE_ROWS + 1, before=before, status=listing.filters.get("status", "")
        )
        shown = found[:PAGE_ROWS]
        costs = accounts.costs(session, [each.run_id for each in shown])
    more = listing.next_page((str(shown[-1].run_id),)) if len(found) > PAGE_ROWS else ""
    return render(
        request,
        "runs.html",
        listing=listing,
        runs=shown,
        costs=costs,
        more=more,
        statuses=tuple(RunStatus),
    )


ROUTES = (Route("/runs", _runs),)
