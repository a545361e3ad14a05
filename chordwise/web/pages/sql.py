"""The SQL page: an editor that runs queries as the reader role, beside the readable relations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import BoundedSemaphore, Event

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from chordwise.domain.people import Right
from chordwise.errors import ChordwiseError, ServiceUnavailableError
from chordwise.pipeline.exports.table import csv_lines, is_number, text_of
from chordwise.pipeline.runs import user_sql
from chordwise.pipeline.runs.user_sql import STATEMENT_SECONDS, QueryResult
from chordwise.storage import audit_events
from chordwise.web.site import (
    SitePage,
    end_of,
    log_export,
    render,
    site_of,
    taking_a_place,
    text_in,
)

MAX_ROWS = 200
_EXAMPLE = "SELECT source, item, value, quote\nFROM fact_quotes\nWHERE grounded\nLIMIT 100"
_MAX_CELL = 2_000
# Also an address that the user has typed; other sites must not run statements.
_OWN_LINKS = frozenset({"same-origin", "none"})
_LINES_AT_ONCE = 500
# They must also leave connections of the server for the workers.
_STATEMENTS = BoundedSemaphore(10)


async def _editor(request: Request) -> Response:
    """Show the editor; the statement of a link on these pages is run at once."""
    statement = request.query_params.get("sql", "").replace("\0", "")
    is_linked = request.headers.get("Sec-Fetch-Site") in _OWN_LINKS
    if statement and is_linked:
        return await run_in_threadpool(_rows, request, statement, end_of(request))
    return await run_in_threadpool(_page, request, statement or _EXAMPLE)


@contextmanager
def _running(request: Request, statement: str, ended: Event) -> Iterator[QueryResult]:
    """Run a statement until the block or the request ends."""
    url = site_of(request).settings.require_sql_url()
    with (
        taking_a_place(_STATEMENTS, "Too many statements are running."),
        user_sql.run_query(url, statement, ended.is_set) as answer,
    ):
        yield answer


async def _answer(request: Request) -> Response:
    return await run_in_threadpool(_rows, request, _statement(request), end_of(request))


def _rows(request: Request, statement: str, ended: Event) -> Response:
    """Show the first rows of the answer below the statement, or the error."""
    try:
        with _running(request, statement, ended) as answer:
            rows = list(itertools.islice(answer.rows, MAX_ROWS + 1))
    except ServiceUnavailableError:
        raise
    except ChordwiseError as error:
        return _page(request, statement, error=error, status_code=400)
    cells = [[_cell(value) for value in row] for row in rows[:MAX_ROWS]]
    table = {"columns": answer.columns, "rows": cells, "has_more": len(rows) > MAX_ROWS}
    return _page(request, statement, answer=table)


async def _as_csv(request: Request) -> Response:
    return await run_in_threadpool(_csv, request, end_of(request))


def _csv(request: Request, ended: Event) -> Response:
    """Stream all rows as a CSV file."""
    statement = _statement(request)
    with ExitStack() as opening:
        try:
            answer = opening.enter_context(_running(request, statement, ended))
        except ServiceUnavailableError:
            raise
        except ChordwiseError as error:
            return _page(request, statement, error=error, status_code=400)
        log_export(request, audit_events.about_statement(statement))
        opened = opening.pop_all()

    def parts() -> Iterator[str]:
        with opened:
            lines = csv_lines(answer.columns, answer.rows, raw=False)
            while part := "".join(itertools.islice(lines, _LINES_AT_ONCE)):
                yield part

    headers = {"Content-Disposition": 'attachment; filename="answer.csv"'}
    return StreamingResponse(parts(), media_type="text/csv; charset=utf-8", headers=headers)


def _page(
    request: Request,
    statement: str,
    *,
    answer: Mapping[str, object] | None = None,
    error: ChordwiseError | None = None,
    status_code: int = 200,
) -> Response:
    readable = user_sql.readable(site_of(request).settings.require_sql_url())
    answers = [table for table in readable if table["name"].startswith("answers.")]
    views = [table for table in readable if table["is_view"] and table not in answers]
    return render(
        request,
        "sql.html",
        status_code=status_code,
        statement=statement,
        answer=answer,
        max_rows=MAX_ROWS,
        seconds=STATEMENT_SECONDS,
        error=error,
        groups={
            "Tables of answers": answers,
            "Views": views,
            "Tables": [table for table in readable if table not in (*answers, *views)],
        },
    )


def _statement(request: Request) -> str:
    return text_in(request, "sql").strip().removesuffix(";")


def _cell(value: object) -> tuple[str, str]:
    """Return the layout class of a cell and its text."""
    if value is None:
        return "none", "null"
    text = text_of(value)
    kind = "number" if is_number(value) else ""
    return kind, text if len(text) <= _MAX_CELL else f"{text[:_MAX_CELL]}…"


ROUTES = (
    Route("/sql", _editor),
    Route("/sql", _answer, methods=["POST"]),
    Route("/sql/csv", _as_csv, methods=["POST"]),
)
PAGE = SitePage(ROUTES, "SQL", rank=8, changes=Right.READ)
