"""The page of a document: its answers, the position of each value, and how each answer was made."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from psycopg import Connection
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chordwise.domain import document_flags, json_values, marked_text, missing_rows
from chordwise.domain.analysis_tasks import Stage
from chordwise.domain.marked_text import MarkedSpan, segments, window_of
from chordwise.domain.people import READING_AS
from chordwise.domain.places import Place, PlaceKind
from chordwise.domain.states import FAILED_CHUNKS
from chordwise.errors import ReadError, UsageError
from chordwise.pipeline.runs import explanation, page_pictures
from chordwise.pipeline.runs.explanation import Reconstruction
from chordwise.pipeline.runs.page_pictures import SourceFile
from chordwise.relations import jobs
from chordwise.relations.jobs import JOBS, NEWEST_ANSWER
from chordwise.relations.relation import Row, rows
from chordwise.storage import documents
from chordwise.storage.database import driver
from chordwise.storage.sql_text import SEARCHED_CHARACTERS
from chordwise.web.site import Site, SitePage, fragment, render, site_of

_EXCERPT_CHARACTERS = 40_000
_MAX_FACTS = 300
_MAX_PAGES = 300
_PICTURE_VERSION = 1
_DIGITS = 6
_MAX_DIGITS_OF_A_NUMBER = 9
_HEADING_CHARACTERS = 300
_MAX_WORDS = 200
_MARKS = ("headline", "suspicious", "uncovered", "sought")
_HEADING, _SUSPICIOUS, _UNCOVERED, _SOUGHT = _MARKS
_JOB_OF_FACT = "SELECT job_id FROM facts WHERE id = %(fact_id)s"
_LATER_STAGES = (Stage.SYNTHESIZE, Stage.CRITIQUE, Stage.REVISE)


def _document(request: Request) -> Response:
    document_id: uuid.UUID = request.path_params["document_id"]
    site = site_of(request)
    with site.database.read() as session:
        shown = _shown(driver(session), request, document_id)
        account = explanation.explain(session, shown["job"])
        places = documents.listed_places(session, document_id)
        text = documents.text_of(session, document_id)
        sources = page_pictures.sources_of(session, document_id)
    document, result, calls = account["document"], account["result"], account["calls"]
    losses = missing_rows.from_json(result["missing_rows"] if result else None)
    critique = (result["critique"] if result else None) or {}
    is_there = _is_there(site, document["media_type"], sources)
    # Only pages with a known size, which is in points, can be shown.
    pages = [
        place
        for place in places
        if place.kind is PlaceKind.PAGE and place.number and place.width and place.height
    ]
    as_pages = bool(is_there and pages and not shown["as_text"])
    return render(
        request,
        "document.html",
        account=account,
        shown=shown,
        facts=_listed_facts(account["facts"], shown),
        is_paged=bool(pages),
        is_there=is_there,
        has_pictures=_has_pictures(document["media_type"]),
        pictured=pages[:_MAX_PAGES] if as_pages else (),
        boxes=_boxes_by_page(account["facts"]),
        page_count=len(pages),
        text=None if as_pages else _text(text, places, account, shown),
        flags=document_flags.from_json(document["flags"]),
        losses=missing_rows.sentences(losses),
        checks=json_values.objects(result["failed_checks"] if result else None),
        violations=json_values.objects(critique.get("violations")),
        samples=max((call["sample"] for call in calls), default=1),
        has_steps=any(call["stage"] in _LATER_STAGES for call in calls),
    )


def _shown(connection: Connection, request: Request, document_id: uuid.UUID) -> Row:
    """Return the requested job, fact and part; without a job, the newest answer of the document.

    `words` are the words of the search that linked to the page.
    """
    query = request.query_params
    job_id, fact_id = _id(query.get("job", "")), _id(query.get("fact", ""))
    if fact_id is not None:
        # A corrected or replaced result has new facts.
        facts = rows(connection, _JOB_OF_FACT, {"fact_id": fact_id})
        job_id = facts[0]["job_id"] if facts else job_id
    matching = JOBS.read(
        connection,
        {"document_id": document_id, "job_id": job_id},
        order=NEWEST_ANSWER,
        limit=1,
    )
    if not matching or (fact_id is not None and job_id is None):
        raise HTTPException(404, "There is no such document, or no such answer about it.")
    number = query.get("excerpt", "")
    return {
        "job": matching[0],
        "fact_id": fact_id,
        "as_text": query.get("view") == "text",
        "excerpt": max(0, int(number[:_DIGITS]) - 1) if number.isdecimal() else None,
        "words": query.get("words", "")[:_MAX_WORDS],
        "all_facts": query.get("facts") == "all",
    }


def _id(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text) if text else None
    except ValueError as error:
        raise UsageError(f"“{text}” is not an id.") from error


def _is_there(site: Site, media_type: str, sources: Sequence[SourceFile]) -> bool:
    """Return whether the original file is still at its path and can be shown page by page."""
    if not _has_pictures(media_type):
        return False
    original = site.pictures().original(sources)
    if original is not None:
        original[0].close()
    return original is not None


def _has_pictures(media_type: str) -> bool:
    return media_type == "application/pdf" or media_type.startswith("image/")


def _listed_facts(facts: Sequence[Row], shown: Row) -> Sequence[Row]:
    """Return the facts to list: the first ones, and the requested one."""
    if shown["all_facts"]:
        return facts
    rest = [fact for fact in facts[_MAX_FACTS:] if fact["id"] == shown["fact_id"]]
    return [*facts[:_MAX_FACTS], *rest]


# Pages


def _boxes_by_page(facts: Sequence[Row]) -> Mapping[int, list[dict[str, object]]]:
    """Return the lines of quotes on each page, in points; `begins` is true for the first line."""
    boxes: dict[int, list[dict[str, object]]] = defaultdict(list)
    for fact in facts:
        for number, (page, left, top, right, bottom) in enumerate(fact["boxes"] or ()):
            edges = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            boxes[int(page)].append({"fact": fact, "begins": number == 0, **edges})
    return boxes


def _number(request: Request) -> int:
    """Return the number of a page or part in the address."""
    text = str(request.path_params["number"])
    if not text.isdecimal() or len(text) > _MAX_DIGITS_OF_A_NUMBER:
        raise HTTPException(404)
    return int(text)


async def _page(request: Request) -> Response:
    """Return the image of a page, one after another of a document.

    Those that wait occupy no thread, so that other pages do not wait for them.
    """
    lanes = site_of(request).picture_lanes
    async with lanes[request.path_params["document_id"].int % len(lanes)]:
        return await run_in_threadpool(_picture, request)


def _picture(request: Request) -> Response:
    """Return the image of a page; the browser caches it and revalidates it by its ETag."""
    site, number = site_of(request), _number(request)
    with site.database.read() as session:
        sources = page_pictures.sources_of(session, request.path_params["document_id"])
    original = site.pictures().original(sources)
    if original is None:
        raise HTTPException(404, "The file was moved or deleted.")
    file, sha256 = original
    tag = f'"{sha256[:32]}-{number}-{_PICTURE_VERSION}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    with file:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        try:
            picture = site.pictures().png(file, sha256, max(1, number))
        except ReadError as error:
            raise HTTPException(404, f"The file {error.what}") from error
    return Response(picture, media_type="image/png", headers=headers)


# Text


def _text(content: str, places: Sequence[Place], account: Row, shown: Row) -> Mapping[str, object]:
    """Return an excerpt of the text in pieces, its number from 1, and the number of excerpts."""
    count = max(1, -(-len(content) // _EXCERPT_CHARACTERS))
    number = min(_number_of_excerpt(content, account, shown), count - 1)
    window = window_of(content, number, _EXCERPT_CHARACTERS)
    sought = marked_text.sought_in(shown["words"])
    words = (
        MarkedSpan(start_char=window[0] + start, end_char=window[0] + end, mark=_SOUGHT)
        for start, end in marked_text.words_at(content[slice(*window)], sought)
    )
    spans = [*_spans(account), *_section_titles(content, places), *words]
    labels = _labels(places, window[0])
    several = account["chunks"] if len(account["chunks"]) > 1 else ()
    chunks = {chunk["start_char"]: chunk["position"] for chunk in several}
    begun: set[str] = set()
    pieces = []
    for segment in segments(content, window, spans, [*labels, *chunks]):
        marks = [mark for mark in segment.marks if mark in _MARKS]
        facts = [mark for mark in segment.marks if mark not in _MARKS]
        anchors = [mark for mark in segment.marks if mark == _SOUGHT or mark in facts]
        piece = {
            "text": segment.text,
            "headings": labels.get(segment.start_char, ()),
            "chunk": chunks.get(segment.start_char),
            "facts": facts,
            "marks": marks,
            "begins": [mark for mark in anchors if mark not in begun],
        }
        begun.update(anchors)
        pieces.append(piece)
    return {"pieces": pieces, "number": number + 1, "count": count}


def _number_of_excerpt(content: str, account: Row, shown: Row) -> int:
    """Return the number of the requested excerpt, from 0.

    A requested fact determines it, otherwise the request, otherwise the first word of the search.
    """
    facts = (fact for fact in account["facts"] if fact["id"] == shown["fact_id"])
    start: int | None = next((fact["start_char"] for fact in facts), None)
    if start is None and shown["excerpt"] is None:
        searched = content[:SEARCHED_CHARACTERS]
        words = marked_text.words_at(searched, marked_text.sought_in(shown["words"]))
        start = next(words, (None, None))[0]
    if start is None:
        return int(shown["excerpt"] or 0)
    number = start // _EXCERPT_CHARACTERS
    return number if start >= window_of(content, number, _EXCERPT_CHARACTERS)[0] else number - 1


def _labels(places: Sequence[Place], start: int) -> Mapping[int, list[str]]:
    """Return the labels of the places that begin from `start` on, and of the one that contains it.

    Sections are omitted, since their titles are in the text.
    """
    labels: dict[int, list[str]] = defaultdict(list)
    current = ""
    for place in places:
        if place.kind is PlaceKind.SECTION:
            continue
        if place.start_char < start:
            current = place.label if place.end_char > start else current
        else:
            labels[place.start_char].append(place.label)
    if current and start not in labels:
        labels[start].append(f"{current}, continued")
    return labels


def _spans(account: Row) -> Iterator[MarkedSpan]:
    for fact in account["facts"]:
        if fact["start_char"] is not None and fact["end_char"] is not None:
            yield _marked(fact, str(fact["id"]))
    for flag in document_flags.from_json(account["document"]["flags"]):
        yield MarkedSpan(start_char=flag.start_char, end_char=flag.end_char, mark=_SUSPICIOUS)
    for chunk in account["chunks"]:
        if chunk["status"] in FAILED_CHUNKS:
            yield _marked(chunk, _UNCOVERED)


def _marked(row: Row, mark: str) -> MarkedSpan:
    return MarkedSpan(start_char=row["start_char"], end_char=row["end_char"], mark=mark)


def _section_titles(content: str, places: Sequence[Place]) -> Iterator[MarkedSpan]:
    """Yield the first line of each section."""
    for place in places:
        if place.kind is PlaceKind.SECTION:
            inside = content[place.start_char : place.start_char + _HEADING_CHARACTERS]
            start = place.start_char + len(inside) - len(inside.lstrip())
            line = inside.lstrip().partition("\n")[0]
            yield MarkedSpan(start_char=start, end_char=start + len(line), mark=_HEADING)


# How the answer was made


def _chunk(request: Request) -> Response:
    """Return the question about a chunk and its answer; the page loads them on demand."""
    number = _number(request)
    with _of_visible_job(request) as session:
        questions = _questions(session, request)
        if number >= len(questions.job["chunks"]):
            raise HTTPException(404, "The job has no such part.")
        part = questions.about_chunk(number)
    return fragment(request, "document_part.html", part=part)


def _steps(request: Request) -> Response:
    """Return the questions after those about the chunks; the page loads them on demand."""
    with _of_visible_job(request) as session:
        steps = _questions(session, request).after_chunks()
    return fragment(request, "document_steps.html", steps=steps)


def _questions(session: Session, request: Request) -> Reconstruction:
    job = jobs.find(driver(session), str(request.path_params["job_id"]))
    account = explanation.explain(session, job)
    return Reconstruction(driver(session), site_of(request).settings, account)


@contextmanager
def _of_visible_job(request: Request) -> Iterator[Session]:
    """Open a session for a job that the person may see; it also reads stored completions."""
    database = site_of(request).database
    with database.read() as session:
        jobs.find(driver(session), str(request.path_params["job_id"]))
    READING_AS.set(None)
    with database.read() as session:
        yield session


ROUTES = (
    Route("/documents/{document_id:uuid}", _document),
    Route("/documents/{document_id:uuid}/pages/{number}.png", _page),
    Route("/jobs/{job_id:uuid}/parts/{number}", _chunk),
    Route("/jobs/{job_id:uuid}/steps", _steps),
)
PAGE = SitePage(ROUTES)
