"""The pages of runs: the list, one run with its progress, and the actions on it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal, InvalidOperation

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from chordwise.domain.number_formats import counted
from chordwise.domain.states import RETRYABLE_JOBS, RunStatus
from chordwise.errors import ServiceUnavailableError, UsageError
from chordwise.pipeline.intake.run_options import run_options
from chordwise.pipeline.intake.submit import Resume
from chordwise.pipeline.jobs import run_control as control
from chordwise.relations import accounts, progress
from chordwise.relations.accounts import CAPS, COSTS, NOTICES, RUNS, Account
from chordwise.relations.jobs import jobs_of_run
from chordwise.relations.judgments import IN_FORCE
from chordwise.relations.progress import Pace
from chordwise.relations.relation import Row
from chordwise.settings import Profile
from chordwise.storage import runs as stored_runs
from chordwise.storage.answer_tables import AnswerTable
from chordwise.storage.database import driver
from chordwise.storage.runs import Run
from chordwise.web.lists import PAGE_ROWS, listing_of
from chordwise.web.operations import begin
from chordwise.web.site import SitePage, form_of, fragment, redirect, render, site_of, text_in

MAX_FAILURES = 50
_FILTERS = ("status",)


def _runs(request: Request) -> Response:
    listing = listing_of(request, _FILTERS)
    status = listing.filters.get("status", "")
    with site_of(request).database.read() as session:
        connection, before = driver(session), listing.after_id
        runs = accounts.newest(connection, PAGE_ROWS + 1, before=before, status=status)
    page, more = listing.page_of(runs, PAGE_ROWS, lambda account: (str(account.run_id),))
    return render(
        request,
        "runs.html",
        listing=listing,
        runs=page,
        more=more,
        query=request.url.query,
        statuses=tuple(RunStatus),
        profiles=sorted(site_of(request).settings.profiles),
    )


def _costs(request: Request) -> Response:
    """Return the costs of the runs on one page of the list; the page loads them on demand."""
    listing = listing_of(request, _FILTERS)
    status = listing.filters.get("status", "")
    with site_of(request).database.read() as session:
        connection = driver(session)
        newest = {"before": listing.after_id, "status": status}
        ids = [run["id"] for run in RUNS.read(connection, newest, limit=PAGE_ROWS)]
        costs = {row["run_id"]: row for row in COSTS.read(connection, {"run_ids": ids})}
    return fragment(request, "run_costs.html", run_ids=ids, costs=costs)


def _run(request: Request) -> Response:
    listing = listing_of(request, ())
    with site_of(request).database.read() as session:
        run = stored_runs.find(session, _name(request))
        snapshot = _snapshot(session, run.id, Pace(), is_counted=False)
        account: Account = snapshot["account"]
        jobs = jobs_of_run(driver(session), run.id, PAGE_ROWS + 1, after=listing.after_id)
        page, more = listing.page_of(jobs, PAGE_ROWS, lambda job: (str(job["job_id"]),))
        limit = MAX_FAILURES + 1 if account.problems else 0
        failures = accounts.failures(driver(session), account.run, limit)
        return render(
            request,
            "run.html",
            run=snapshot,
            account=account,
            table=run.saved_as if session.get(AnswerTable, run.saved_as or "") else "",
            model=run.options.get("model"),
            can_continue=account.is_interrupted
            or any(account.states[status] for status in RETRYABLE_JOBS),
            can_cancel=account.status != RunStatus.CANCELLED and account.unfinished > 0,
            failures=failures[:MAX_FAILURES],
            has_more_failures=len(failures) > MAX_FAILURES,
            notices=NOTICES.read(driver(session), {"run_id": run.id}, limit=MAX_FAILURES),
            certified=IN_FORCE.read(driver(session), {"run": run.name, "profile": ""}),
            jobs=page,
            more=more,
            is_first=not listing.after,
        )


def _snapshot(session: Session, run_id: uuid.UUID, pace: Pace, *, is_counted: bool = True) -> Row:
    """Return the state of a run at one moment, as its page shows it.

    Unless `is_counted` is set, chunks and calls are not known yet. `in_words` is for screen
    readers, and changes in steps of 10 %. A rate is `None` without enough data.
    """
    connection = driver(session)
    state = (progress.read if is_counted else progress.read_jobs)(connection, run_id)
    pace.record(time.monotonic(), state)
    caps = CAPS.read(connection, {"run_id": run_id})
    of_run = (cap["cap_usd"] for cap in caps if cap["scope"].startswith("run:"))
    jobs, words = state.jobs, ""
    if not state.is_over and jobs.total:
        words = f"{jobs.done * 10 // jobs.total * 10} % of the analyses are done."
    return {
        "progress": state,
        "is_counted": is_counted,
        "account": accounts.of_run(connection, run_id),
        "caps": caps,
        "cap_usd": next(of_run, None),
        "in_words": words,
        "documents_per_minute": pace.documents_per_minute(),
        "remaining": pace.remaining(),
    }


_MIN_SECONDS = 1.0
# A large run is polled less often, which limits polling to a small share of the time.
_LOOKING_SHARE = 20
_POLL_SECONDS = 0.25
_AWAY = "<p class='notice warn'>The database is unavailable; this page tries again.</p>"


def _progress(request: Request) -> Response:
    """Return the progress of a finished run with its calls, which its page leaves out."""
    run_id = _stored_run(request).id
    with site_of(request).database.read() as session:
        snapshot = _snapshot(session, run_id, Pace())
    return fragment(request, "run_progress.html", run=snapshot)


async def _live(request: Request) -> Response:
    """Stream the progress of a run as HTML fragments until it finishes."""
    run = await run_in_threadpool(_stored_run, request)
    return StreamingResponse(_events(request, run.id), media_type="text/event-stream")


async def _events(request: Request, run_id: uuid.UUID) -> AsyncIterator[str]:
    site, pace, last = site_of(request), Pace(), ""

    def look() -> tuple[str, bool]:
        try:
            with site.database.read() as session:
                snapshot = _snapshot(session, run_id, pace)
        except ServiceUnavailableError:
            return _AWAY, False
        part = bytes(fragment(request, "run_progress.html", run=snapshot).body).decode()
        return part, snapshot["progress"].is_over

    while not site.is_stopping():
        begun = time.monotonic()
        part, is_over = await run_in_threadpool(look)
        yield _event("part", part) if part != last else ": nothing has changed\n\n"
        last = part
        if is_over:
            yield _event("end", "")
            return
        until = begun + max(_MIN_SECONDS, (time.monotonic() - begun) * _LOOKING_SHARE)
        while time.monotonic() < until and not site.is_stopping():  # noqa: ASYNC110 - a signal sets it
            await asyncio.sleep(_POLL_SECONDS)


def _event(kind: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {kind}\n{lines}\n"


def _begin(request: Request) -> Response:
    """Start a run with the uploaded files."""
    site, profile = site_of(request), text_in(request, "profile")
    if profile and profile not in site.settings.profiles:
        raise UsageError(f"There is no profile “{profile}”.", "Load the page again.")
    files = [file for file in form_of(request).getlist("files") if isinstance(file, UploadFile)]
    files = [file for file in files if file.filename]
    if not files:
        raise UsageError("No file was sent.", "Choose one or more, or drop them on the page.")
    profile_options = site.settings.profiles.get(profile, Profile())
    options = run_options(site.settings, profile_options, profile_name=profile)
    run = begin(site, options, files)
    return redirect(request, f"/runs/{run['id']}", f"{counted(len(files), 'file')} sent.")


def _cancel(request: Request) -> Response:
    run = _stored_run(request)
    count = control.cancel(site_of(request).database, run.id)
    return redirect(request, f"/runs/{run.id}", f"{counted(count, 'analysis')} cancelled.")


def _continue(request: Request) -> Response:
    site, run = site_of(request), _stored_run(request)

    def refuse(_seconds: float) -> None:
        raise UsageError(
            "Another process is reading the files of this run, or was until just now.",
            "Try again in a minute.",
        )

    count = control.retry(site.context(), run.id, _budget(request))
    rest = Resume(site.context(), lambda _sentence: None, refuse).resume(run.id)
    message = f"{counted(count, 'analysis')} retried."
    if rest is not None:
        site.intakes().take_in(rest)
        message += " The remaining files are being read."
    return redirect(request, f"/runs/{run.id}", message)


def _budget(request: Request) -> Decimal | None:
    text = text_in(request, "budget").strip()
    try:
        return Decimal(text) if text else None
    except InvalidOperation as error:
        raise UsageError(f"“{text}” is not an amount.", "Example: 2.50, in US dollars.") from error


def _stored_run(request: Request) -> Run:
    with site_of(request).database.read() as session:
        return stored_runs.find(session, _name(request))


def _name(request: Request) -> str:
    return str(request.path_params["run"])


ROUTES = (
    Route("/runs", _runs),
    Route("/runs", _begin, methods=["POST"]),
    Route("/run-costs", _costs),
    Route("/runs/{run:path}/live", _live),
    Route("/runs/{run:path}/progress", _progress),
    Route("/runs/{run:path}/cancel", _cancel, methods=["POST"]),
    Route("/runs/{run:path}/continue", _continue, methods=["POST"]),
    # The name of a run may contain slashes.
    Route("/runs/{run:path}", _run),
)
PAGE = SitePage(ROUTES, "Runs", rank=1)
