"""The tables of answers: a row for each document, and the document beside a cell."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import partial
from tempfile import TemporaryFile
from threading import BoundedSemaphore
from urllib.parse import urlencode

from psycopg import Connection
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from chordwise.domain.answer_tables import AnswerColumn
from chordwise.errors import UsageError
from chordwise.relations import review
from chordwise.relations.answer_tables import MAX_LIST_ROWS, NUMBERS, DocumentTable, is_limited
from chordwise.relations.relation import Row
from chordwise.storage import answer_tables
from chordwise.storage.answer_tables import SCHEMA
from chordwise.storage.database import driver
from chordwise.web.lists import Listing, listing_of, no_page
from chordwise.web.pages.review import id_of, last_decision, name_of
from chordwise.web.site import (
    SitePage,
    fragment,
    log_export,
    render,
    site_of,
    taking_a_place,
)

_PAGE_ROWS = 100
_PART_BYTES = 65_536
_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_WORKBOOKS = BoundedSemaphore(2)
_OFFSET = re.compile(r"[0-9]{1,9}")
STATES = {
    "check": "to check",
    "unread": "not known",
    "silent": "not mentioned",
    "supported": "supported",
    "certified": "certified",
    "corrected": "corrected",
    "confirmed": "confirmed",
}
"""The states of a cell, in words."""


def _tables(request: Request) -> Response:
    with site_of(request).database.read() as session:
        tables = [DocumentTable(stored) for stored in answer_tables.gather(session)]
    return render(request, "answer_tables.html", tables=tables)


def _table(request: Request) -> Response:
    with site_of(request).database.read() as session:
        table, listing = _filtered(request, session)
        rows, more = _rows(request, table, listing, driver(session))
        is_preview = table.is_preview(driver(session))
    return render(
        request,
        "answer_table.html",
        table=table,
        listing=listing,
        query=request.url.query,
        is_preview=is_preview,
        rows=rows,
        more=more,
        numbers=NUMBERS,
    )


def _workbook(request: Request) -> Response:
    from chordwise.pipeline.exports import answer_workbook  # noqa: PLC0415 - slow to import

    site = site_of(request)
    with site.database.read() as session:
        stored = _stored(request, session).stored
    with taking_a_place(_WORKBOOKS, "Other workbooks are being written."):
        sink = TemporaryFile()  # noqa: SIM115 - closed after the last part
        answer_workbook.write(sink, site.settings, stored, raw=False, all_columns=False)
    sink.seek(0)
    log_export(request, f"{SCHEMA}.{stored.name}")
    headers = {"Content-Disposition": f'attachment; filename="{stored.name}.xlsx"'}
    return StreamingResponse(
        iter(partial(sink.read, _PART_BYTES), b""),
        media_type=_XLSX,
        headers=headers,
        background=BackgroundTask(sink.close),
    )


def _further(request: Request) -> Response:
    """Return the rows from an offset on."""
    with site_of(request).database.read() as session:
        table, listing = _filtered(request, session)
        rows, more = _rows(request, table, listing, driver(session))
    values = {"rows": rows, "more": more, "table": table, "numbers": NUMBERS, "oob": False}
    return fragment(request, "answer_rows.html", **values)


def _rows(
    request: Request, table: DocumentTable, listing: Listing, connection: Connection
) -> tuple[list[Row], str]:
    """Return a page of rows, and the address of the following ones, empty at the end.

    With `until`, the page is as long as needed to contain a cell to check.
    """
    query = dict(request.query_params)
    is_until = query.pop("until", "") == "check"
    written = query.get("offset", "0")
    if not _OFFSET.fullmatch(written):
        raise no_page()
    offset = int(written)
    order = table.order(listing.sort, is_descending=listing.is_descending, offset=offset)
    limit = None if is_until else _PAGE_ROWS + 1
    documents = table.read(connection, listing.filters, order, limit)
    ahead = (number for number, row in enumerate(documents, 1) if is_until and row["needs_check"])
    count = max(_PAGE_ROWS, next(ahead, 0))
    rows = table.rows(connection, [row["document_id"] for row in documents[:count]])
    if len(documents) <= count:
        return rows, ""
    return rows, f"{listing.path}/rows?{urlencode({**query, 'offset': offset + count})}"


def _totals(request: Request) -> Response:
    """Return the numbers of cells by state and column, and the number of documents."""
    with site_of(request).database.read() as session:
        table, listing = _filtered(request, session)
        totals = table.totals(driver(session), listing.filters)
    states = Counter[str]()
    for cells in totals["columns"].values():
        states.update({state: cells[state] for state in STATES})
    states["check"] = totals["to_check"]
    shown = {"table": table, "listing": listing, "totals": totals, "numbers": NUMBERS}
    return fragment(request, "answer_totals.html", states=states, words=STATES, **shown)


def _summary(request: Request) -> Response:
    """Return the number of documents, and of cells to check, in words."""
    with site_of(request).database.read() as session:
        table = _stored(request, session)
        documents = table.documents.read(driver(session))
    to_check = sum(row["needs_check"] for row in documents)
    totals = {"documents": len(documents), "to_check": to_check}
    return fragment(request, "answer_summary.html", totals=totals)


def _column(request: Request) -> Response:
    """Return the menu of a column: its filters and its distribution."""
    with site_of(request).database.read() as session:
        table, listing = _filtered(request, session)
        column = _column_of(table, str(request.path_params["column"]))
        # The distribution is that of the rows that the filters of the other columns select.
        others = {k: v for k, v in listing.filters.items() if k.partition(".")[2] != column.name}
        values = table.distribution(driver(session), others, column)
    menu = {"table": table, "listing": listing, "column": column, "is_limited": is_limited(column)}
    return fragment(request, "answer_column.html", **menu, **values)


def _cell(request: Request) -> Response:
    """Return the panel of a cell: its value in the document, or the rows of its list.

    With `updated`, the row of the document is returned as well.
    """
    query = request.query_params
    document_id = id_of(query.get("document", ""))
    name, of_list, parent = (query.get(key, "") for key in ("column", "list", "row"))
    with site_of(request).database.read() as session:
        table, connection = _stored(request, session), driver(session)
        values: dict[str, object] = {"table": table, "list": of_list, "document_id": document_id}
        shown = (parent, name)
        values["ahead"] = of_list and table.next_in_list(connection, of_list, document_id, shown)
        if of_list and not name and not parent:
            values["nested"] = table.list_rows(connection, of_list, document_id)
        else:
            column = _column_of(table, name, of_list) if name else None
            if place := table.cell(connection, document_id, column, parent):
                question = review.item(connection, *place)
                values |= {"question": question, "name": name_of(question)}
                values["undo"] = last_decision(session, *place)
        values["rows"] = table.rows(connection, [document_id]) if "updated" in query else []
    address = f"{request.url.path}?{urlencode({**query, 'updated': 1})}"
    panel = fragment(
        request,
        "answer_cell.html",
        **values,
        address=address,
        numbers=NUMBERS,
        max_rows=MAX_LIST_ROWS,
        notice=request.session.pop("notice", ""),
    )
    if "updated" in query:
        panel.headers["HX-Trigger"] = "decided"
    return panel


def _filtered(request: Request, session: Session) -> tuple[DocumentTable, Listing]:
    table = _stored(request, session)
    listing = listing_of(request, tuple(table.documents.filters), table.sorts, "document")
    if listing.filters.get("trust", "check") not in STATES:
        raise UsageError("There is no such state.", f"States: {', '.join(STATES)}.")
    return table, replace(listing, path=f"/tables/{table.name}", after=())


def _column_of(table: DocumentTable, name: str, of_list: str = "") -> AnswerColumn:
    columns = table.of_list(of_list) if of_list else table.columns.values()
    for column in columns:
        if column.name == name:
            return column
    raise UsageError(f"The table has no column “{name}”.", "Load its page again.")


def _stored(request: Request, session: Session) -> DocumentTable:
    return DocumentTable(answer_tables.get(session, str(request.path_params["name"])))


ROUTES = (
    Route("/tables", _tables),
    Route("/tables/{name}", _table),
    Route("/tables/{name}/workbook", _workbook),
    Route("/tables/{name}/rows", _further),
    Route("/tables/{name}/totals", _totals),
    Route("/tables/{name}/summary", _summary),
    Route("/tables/{name}/columns/{column}", _column),
    Route("/tables/{name}/cell", _cell),
)
PAGE = SitePage(ROUTES, "Tables", rank=2)
