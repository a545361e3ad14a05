"""Questions over the documents of a table."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chordwise.domain import plans
from chordwise.domain.people import Right
from chordwise.errors import ChordwiseError, ServiceUnavailableError
from chordwise.relations import counts
from chordwise.storage.answer_tables import SCHEMA
from chordwise.web.site import Site, SitePage, render, site_of, taking_a_place, text_in

if TYPE_CHECKING:
    from chordwise.pipeline.runs.ask import AnsweredQuestion

_MAX_QUOTES = 100
_QUESTIONS = BoundedSemaphore(4)


def answer_to(site: Site, question: str, table: str) -> AnsweredQuestion:
    """Return the answer to a question over a table, or over all of them.

    Raises:
        ServiceUnavailableError: Too many questions are being answered.
        ChordwiseError: See `ask.ask`.
    """
    from chordwise.pipeline.runs import ask  # noqa: PLC0415 - it loads the providers

    with taking_a_place(_QUESTIONS, "Too many questions are asked."):
        return ask.ask(site.reading_context(), question, table, max_quotes=_MAX_QUOTES)


def _ask(request: Request) -> Response:
    """Show the answer with the documents outside of it, its plan and its quotes, or the error."""
    site, table = site_of(request), str(request.path_params["name"])
    question = text_in(request, "question")
    try:
        answer = answer_to(site, question, table)
    except ServiceUnavailableError:
        raise
    except ChordwiseError as error:
        return render(
            request, "ask.html", status_code=400, error=error, table=table, question=question
        )
    return render(
        request,
        "ask.html",
        table=table,
        question=question,
        error=None,
        headline=answer.sentence or counts.headline(answer.count),
        account=list(counts.account(answer.count)),
        plan=plans.in_words(answer.count.plan, SCHEMA),
        count=answer.count,
        rows=[[counts.cell(value) for value in row] for row in answer.count.rows],
        quotes=answer.quotes,
    )


ROUTES = (Route("/tables/{name}/ask", _ask, methods=["POST"]),)
PAGE = SitePage(ROUTES, changes=Right.READ)
