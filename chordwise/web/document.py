"""The page of a document: its answers, the position of each value, and how each answer was made."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from chordwise.domain import document_flags, json_values, marked_text, missing_rows
from chordwise.domain.analysis_tasks import Stage
from chordwise.domain.marked_text import MarkedSpan, Segment, segments, window_of
from chordwise.domain.places import Place, PlaceKind
from chordwise.domain.states import FAILED_CHUNKS
from chordwise.errors import ReadError, UsageError
from chordwise.pipeline.runs import explanation, page_pictures
from chordwise.pipeline.runs.explanation import ExplainedFact, Explanation
from chordwise.pipeline.runs.page_pictures import Named
from chordwise.storage import documents
from chordwise.storage.sql_text import SEARCHED_CHARACTERS
from chordwise.web.site import Site, fragment, render, site_of

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
_LATER_STAGES = (Stage.SYNTHESIZE, Stage.CRITIQUE, Stage.REVISE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """A line of a quote on a page, in points; `begins` is set for the first line of a quote."""

    fact: ExplainedFact
    x: float
    y: float
    width: float
    height: float
    begins: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A segment of the text, the headings and the chunk that begin at it, and the facts in it."""

    segment: Segment
    headings: Sequence[str]
    chunk: int | None
    facts: Sequence[str]
    marks: Sequence[str]
    begins: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """An excerpt of the text, its number from 1, and the number of excerpts."""

    pieces: Sequence[_Piece]
    number: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """The part of a document that is requested: a job, a fact of it, pages or text, and an excerpt.

    `words` are the words of the search that linked to the page.
    """

    job_id: uuid.UUID
    fact_id: uuid.UUID | None = None
    as_text: bool = False
    excerpt: int | None = None
    words: str = ""
    all_facts: bool = False


def _document(request: Request) -> Response:
    document_id: uuid.UUID = request.path_params["document_id"]
    site = site_of(request)
    with site.database.read() as session:
        shown = _shown(session, request, document_id)
        found = explanation.explain(session, site.settings, shown.job_id, parts=())
        places = documents.listed_places(session, document_id)
        text = documents.text_of(session, document_id)
        names = page_pictures.names_of(session, document_id)
    result = found.result
    losses = missing_rows.from_json(result["missing_rows"] if result else None)
    critique = (result["critique"] if result else None) or {}
    is_there = _is_there(site, found, names)
    # Only pages with a known size, which is in points, can be shown.
    pages = [
        each
        for each in places
        if each.kind is PlaceKind.PAGE and each.number and each.width and each.height
    ]
    as_pages = bool(is_there and pages and not shown.as_text)
    return render(
        request,
        "document.html",
        found=found,
        shown=shown,
        facts=_first(found.facts, shown),
        is_paged=bool(pages),
        is_there=is_there,
        has_pictures=_has_pictures(found.document.media_type),
        pictured=pages[:_MAX_PAGES] if as_pages else (),
        boxes=_boxes_by_page(found.facts),
        page_count=len(pages),
        text=None if as_pages else _text(text, places, found, shown),
        flags=document_flags.from_json(found.document.flags),
        losses=missing_rows.sentences(losses),
        checks=json_values.objects(result["failed_checks"] if result else None),
        violations=json_values.objects(critique.get("violations")),
        samples=max((call.sample for call in found.calls), default=1),
        has_steps=any(call.stage in _LATER_STAGES for call in found.calls),
    )


def _shown(session: Session, request: Request, document_id: uuid.UUID) -> _Shown:
    """Return what is requested; without a job, the newest answer of the document.

    Raises:
        HTTPException: The document does not exist, or it has no such job.
    """
    asked = request.query_params
    job_id, fact_id = _id(asked.get("job", "")), _id(asked.get("fact", ""))
    jobs = explanation.jobs_of(session, document_id)
    if fact_id is not None:
        job_id = explanation.job_of_fact(session, fact_id) or job_id
    elif job_id is None and jobs:
        job_id = next((each for each in jobs if each.confidence is not None), jobs[0]).job_id
    if job_id is None or job_id not in {each.job_id for each in jobs}:
        raise HTTPException(404, "There is no such document, or no such answer about it.")
    number = asked.get("excerpt", "")
    return _Shown(
        job_id=job_id,
        fact_id=fact_id,
        as_text=asked.get("view") == "text",
        excerpt=max(0, int(number[:_DIGITS]) - 1) if number.isdecimal() else None,
        words=asked.get("words", "")[:_MAX_WORDS],
        all_facts=asked.get("facts") == "all",
    )


def _id(given: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(given) if given else None
    except ValueError as error:
        raise UsageError(f"“{given}” is not an id.") from error


def _is_there(site: Site, found: Explanation, names: Sequence[Named]) -> bool:
    """Return whether the original file is still at its path and can be shown page by page."""
    if not _has_pictures(found.document.media_type):
        return False
    original = site.pictures().original(names)
    if original is not None:
        original[0].close()
    return original is not None


def _has_pictures(media_type: str) -> bool:
    return media_type == "application/pdf" or media_type.startswith("image/")


def _first(facts: Sequence[ExplainedFact], shown: _Shown) -> Sequence[ExplainedFact]:
    """Return the facts to list: the first ones, and the requested one."""
    if shown.all_facts:
        return facts
    rest = [each for each in facts[_MAX_FACTS:] if each.id == shown.fact_id]
    return [*facts[:_MAX_FACTS], *rest]


# Pages


def _boxes_by_page(facts: Sequence[ExplainedFact]) -> Mapping[int, list[_Box]]:
    boxes: dict[int, list[_Box]] = defaultdict(list)
    for fact in facts:
        lines = fact.boxes if isinstance(fact.boxes, list) else []
        for number, line in enumerate(lines):
            edges = [json_values.number(each) for each in line] if isinstance(line, list) else []
            page, left, top, right, bottom = (each or 0.0 for each in (*edges, *[None] * 5)[:5])
            box = _Box(
                fact=fact,
                x=left,
                y=top,
                width=right - left,
                height=bottom - top,
                begins=number == 0,
            )
            boxes[int(page)].append(box)
    return boxes


def _number(request: Request) -> int:
    """Return the number of a page or part in the address.

    Raises:
        HTTPException: It is not a number, or it is too large.
    """
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
        names = page_pictures.names_of(session, request.path_params["document_id"])
    original = site.pictures().original(names)
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


def _text(content: str, places: Sequence[Place], found: Explanation, shown: _Shown) -> _Text:
    count = max(1, -(-len(content) // _EXCERPT_CHARACTERS))
    number = min(_number_of_excerpt(content, found, shown), count - 1)
    window = window_of(content, number, _EXCERPT_CHARACTERS)
    announced = _Announced.of(places, found, window[0])
    sought = marked_text.sought_in(shown.words)
    words = (
        MarkedSpan(start_char=window[0] + start, end_char=window[0] + end, mark=_SOUGHT)
        for start, end in marked_text.words_at(content[slice(*window)], sought)
    )
    spans = [*_spans(found), *_headings(content, places), *words]
    cut = segments(content, window, spans, [*announced.headings, *announced.chunks])
    begun: set[str] = set()
    return _Text(
        pieces=[_piece(each, announced, begun) for each in cut], number=number + 1, count=count
    )


def _number_of_excerpt(content: str, found: Explanation, shown: _Shown) -> int:
    """Return the number of the requested excerpt, from 0.

    A requested fact determines it, otherwise the request, otherwise the first word of the search.
    """
    fact = next((each for each in found.facts if each.id == shown.fact_id), None)
    start = None if fact is None else fact.start_char
    if start is None and shown.excerpt is None:
        searched = content[:SEARCHED_CHARACTERS]
        words = marked_text.words_at(searched, marked_text.sought_in(shown.words))
        start = next(words, (None, None))[0]
    if start is None:
        return shown.excerpt or 0
    number = start // _EXCERPT_CHARACTERS
    return number if start >= window_of(content, number, _EXCERPT_CHARACTERS)[0] else number - 1


@dataclass(frozen=True, slots=True)
class _Announced:
    """The headings at positions of the text, and the chunks that begin there."""

    headings: Mapping[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    chunks: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, places: Sequence[Place], found: Explanation, start: int) -> _Announced:
        """Return the headings from a position on, including that of the place that contains it."""
        announced = cls()
        current = ""
        for place in places:
            if place.kind is PlaceKind.SECTION:
                continue
            if place.start_char < start:
                current = place.label if place.end_char > start else current
            else:
                announced.headings[place.start_char].append(place.label)
        if current and start not in announced.headings:
            announced.headings[start].append(f"{current}, continued")
        if len(found.chunks) > 1:
            announced.chunks.update({each.start_char: each.position for each in found.chunks})
        return announced


def _spans(found: Explanation) -> Iterator[MarkedSpan]:
    for fact in found.facts:
        if fact.start_char is not None and fact.end_char is not None:
            yield MarkedSpan(start_char=fact.start_char, end_char=fact.end_char, mark=str(fact.id))
    for flag in document_flags.from_json(found.document.flags):
        yield MarkedSpan(start_char=flag.start_char, end_char=flag.end_char, mark=_SUSPICIOUS)
    for chunk in found.chunks:
        if chunk.status in FAILED_CHUNKS:
            yield MarkedSpan(start_char=chunk.start_char, end_char=chunk.end_char, mark=_UNCOVERED)


def _headings(content: str, places: Sequence[Place]) -> Iterator[MarkedSpan]:
    """Yield the first line of each section, which is its heading."""
    for place in places:
        if place.kind is PlaceKind.SECTION:
            inside = content[place.start_char : place.start_char + _HEADING_CHARACTERS]
            start = place.start_char + len(inside) - len(inside.lstrip())
            line = inside.lstrip().partition("\n")[0]
            yield MarkedSpan(start_char=start, end_char=start + len(line), mark=_HEADING)


def _piece(segment: Segment, announced: _Announced, begun: set[str]) -> _Piece:
    marks = [each for each in segment.marks if each in _MARKS]
    facts = [each for each in segment.marks if each not in marks]
    begins = [each for each in segment.marks if each not in begun and each in (*facts, _SOUGHT)]
    begun.update(begins)
    return _Piece(
        segment=segment,
        headings=announced.headings.get(segment.start_char, ()),
        chunk=announced.chunks.get(segment.start_char),
        facts=facts,
        marks=marks,
        begins=begins,
    )


# How the answer was made


def _chunk(request: Request) -> Response:
    """Return the questions and answers of one chunk; the page loads them on demand."""
    site, number = site_of(request), _number(request)
    with site.database.read() as session:
        job_id = explanation.find(session, str(request.path_params["job_id"]))
        found = explanation.explain(session, site.settings, job_id, parts=(number,))
    if number >= len(found.chunks):
        raise HTTPException(404, "The job has no such part.")
    return HTMLResponse(fragment(request, "document_part.html", part=found.chunks[number]))


def _steps(request: Request) -> Response:
    """Return the model calls after the chunks; the page loads them on demand."""
    site = site_of(request)
    with site.database.read() as session:
        job_id = explanation.find(session, str(request.path_params["job_id"]))
        steps = explanation.steps(session, site.settings, job_id)
    return HTMLResponse(fragment(request, "document_steps.html", steps=steps))


ROUTES = (
    Route("/documents/{document_id:uuid}", _document),
    Route("/documents/{document_id:uuid}/pages/{number}.png", _page),
    Route("/jobs/{job_id:uuid}/parts/{number}", _chunk),
    Route("/jobs/{job_id:uuid}/steps", _steps),
)
