"""The operations of the API, which are also the tools of the MCP server, each declared once.

An operation is a function over relations and use cases. Its address, its parameters and its
docstring become a route, a part of the OpenAPI document, and a tool.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import FunctionType
from typing import Annotated, Literal, TypeAlias, TypeVar, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile

from chordwise.domain import json_values
from chordwise.domain.analysis import NO_LABEL, label_paths
from chordwise.domain.learning.feedback_input import FeedbackInput
from chordwise.domain.learning.truths import Verdict
from chordwise.domain.people import READING_AS, Right
from chordwise.domain.states import RunStatus
from chordwise.domain.trust import Trust
from chordwise.domain.visible_text import printable
from chordwise.embedded.home import home_at
from chordwise.errors import UsageError
from chordwise.pipeline.intake.run_options import RunOptions, requested
from chordwise.pipeline.intake.submit import open_run
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.learning import feedback
from chordwise.readers.discovery import FileList, discover
from chordwise.relations import accounts, progress, review
from chordwise.relations.answer_tables import DocumentTable
from chordwise.relations.relation import Row
from chordwise.settings.profiles import checked_profile
from chordwise.storage import answer_tables, documents
from chordwise.storage import runs as stored_runs
from chordwise.storage.answer_tables import AnswerTable
from chordwise.storage.database import driver
from chordwise.storage.documents import Document
from chordwise.storage.feedback import Feedback
from chordwise.storage.jobs import Job
from chordwise.storage.record import Record, new_id
from chordwise.storage.runs import Run
from chordwise.web import uploads
from chordwise.web.lists import cursor_of, id_after, key_of
from chordwise.web.pages.ask import answer_to
from chordwise.web.site import Site

_FIRST = 50
_BY_NAME = "t.document, t.document_id"
_READ, _SUBMIT, _DECIDE = Right
Item = TypeVar("Item")
Declared = TypeVar("Declared")

# PostgreSQL stores no NUL character.
Text: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=2_000)]
Segment: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00/]+$", max_length=200)]
Offset: TypeAlias = Annotated[int, Field(ge=0, le=2**31 - 1)]
After: TypeAlias = Annotated[Text, Field(description="The `next` of the page before.")]
Limit: TypeAlias = Annotated[int, Field(ge=1, le=200)]
RunName: TypeAlias = Annotated[Segment, Field(description="Its id, or a name without slash.")]
Profile: TypeAlias = Annotated[Text, Field(description="In the settings; empty: a summary.")]
Paths: TypeAlias = Annotated[
    tuple[Text, ...], Field(max_length=1_000, description="Of files, folders, patterns.")
]
_FILTERS = "q; has.COLUMN: a part of a value; is.COLUMN; from.COLUMN and to.COLUMN: limits."
Filters: TypeAlias = Annotated[dict[Text, Text], Field(description=_FILTERS)]


class NotFoundError(UsageError):
    """What an address names does not exist."""

    code = "not_found"


class KeyReusedError(UsageError):
    """The key of a submission belongs to a different one."""

    code = "key_reused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls an operation, by the name that signs decisions.

    `files` are those of an upload; a submission with the `key` of an earlier one is not repeated.
    """

    site: Site
    name: str
    files: Sequence[UploadFile] = ()
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A function that tokens with the scope may call; `entered` is the model of its parameters.

    One that takes files accepts them instead of paths, and an `Idempotency-Key`. The name of one
    that lists begins with `list`; it returns `items`, and the value of `after` for the `next` ones.
    """

    name: str
    method: str
    path: str
    scope: Right
    about: str
    entered: type[BaseModel]
    function: FunctionType
    takes_files: bool

    def call(self, caller: Caller, values: BaseModel) -> JsonValue:
        """Return the answer as JSON."""
        arguments = {name: getattr(values, name) for name in self.entered.model_fields}
        return json_values.as_json(self.function(caller, **arguments))


OPERATIONS: dict[str, Operation] = {}


def operation(
    scope: Right, address: str, *, takes_files: bool = False
) -> Callable[[Declared], Declared]:
    """Declare a function as the operation at an address, such as `GET /runs`."""
    method, path = address.split()

    def declare(declared: Declared) -> Declared:
        function = cast("FunctionType", declared)
        name, hints = function.__name__, get_type_hints(function, include_extras=True)
        defaults = function.__kwdefaults__ or {}
        names = [name for name in hints if name not in ("caller", "return")]
        fields = {name: (hints[name], defaults.get(name, ...)) for name in names}
        OPERATIONS[name] = Operation(
            name=name,
            method=method,
            path=path,
            scope=scope,
            about=" ".join((function.__doc__ or "").split()),
            entered=create_model(name, __config__=ConfigDict(extra="forbid"), **fields),  # type: ignore[call-overload]  # made at run time
            function=function,
            takes_files=takes_files,
        )
        return declared

    return declare


def _page(read: Sequence[Item], limit: int, key: Callable[[Item], object]) -> Row:
    """Return a page of a list, of which one more than `limit` was read."""
    more = len(read) > limit
    return {"items": read[:limit], "next": str(key(read[limit - 1])) if more else None}


@contextmanager
def _existing() -> Iterator[None]:
    """Let an error say that what is named does not exist."""
    try:
        yield
    except UsageError as error:
        raise NotFoundError(error.what, error.hint) from error


# Runs


@operation(_READ, "GET /runs")
def list_runs(
    caller: Caller, *, status: RunStatus | Literal[""] = "", after: After = "", limit: Limit = 50
) -> Row:
    """List the runs, the newest first, with their jobs by state."""
    before = id_after(after)
    with caller.site.database.read() as session:
        read = accounts.newest(driver(session), limit + 1, before=before, status=status)
    return _page(read, limit, lambda account: account.run_id)


@operation(_READ, "GET /runs/{run}")
def get_run(caller: Caller, *, run: RunName) -> Row:
    """Return the account of a run, its progress and its first failures."""
    with caller.site.database.read() as session:
        stored, connection = _run(session, run), driver(session)
        return {
            "account": accounts.of_run(connection, stored.id),
            "progress": progress.read(connection, stored.id),
            "failures": accounts.failures(connection, stored.name, _FIRST),
        }


@operation(_SUBMIT, "POST /runs/{run}/cancel")
def cancel_run(caller: Caller, *, run: RunName) -> Row:
    """Cancel the unfinished jobs of a run; return their number."""
    with caller.site.database.read() as session:
        run_id = _run(session, run).id
    return {"cancelled": run_control.cancel(caller.site.database, run_id)}


@operation(_SUBMIT, "POST /runs", takes_files=True)
def submit(
    caller: Caller,
    *,
    paths: Paths = (),
    profile: Profile = "",
    run_name: Text = "",
    budget_usd: Annotated[float, Field(ge=0, lt=1_000_000, description="0: no cap.")] = 0,
    confirmed: Annotated[bool, Field(description="Accept a cost that needs consent.")] = False,
) -> Row:
    """Analyze files in a new run; return its name. Paths must be below web.submit_folders."""
    READING_AS.set(None)  # a program may repeat a submission whose answers are closed to it
    options = _options(caller, paths, profile, run_name, budget_usd)
    request = _request(caller, [*paths, profile, run_name, budget_usd, confirmed])
    if run := _earlier(caller, request):
        return run
    try:
        return begin(caller.site, options, caller.files, request, is_confirmed=confirmed)
    except UsageError:
        if run := _earlier(caller, request):  # begun at the same time
            return run
        raise


@operation(_SUBMIT, "POST /quote", takes_files=True)
def quote(caller: Caller, *, paths: Paths = (), profile: Profile = "") -> Row:
    """Estimate the tokens and the cost of a submission; nothing is stored or sent to a model."""
    from chordwise.pipeline.quoting import quote as quoting  # noqa: PLC0415 - slow to import

    READING_AS.set(None)  # an estimate counts stored answers, and shows none
    options, context = _options(caller, paths, profile), caller.site.reading_context()
    with uploads.lent(caller.files) as copies:
        files = [*copies, *discover(options.paths)]
        return quoting.members(quoting.estimate_files(context, files, options))


def begin(
    site: Site,
    options: RunOptions,
    files: Sequence[UploadFile],
    request: tuple[str, str] | None = None,
    *,
    is_confirmed: bool = True,
) -> Row:
    """Begin a run with uploaded files, or those at the paths of its options, in the background.

    Raises:
        UsageError: Nothing matches the paths, or the expected cost needs a confirmation.
    """
    from chordwise.pipeline.intake.found_files import Entries, entry_of  # noqa: PLC0415 - as above
    from chordwise.pipeline.quoting import quote as quoting  # noqa: PLC0415 - as above

    run_id, paths = new_id(), FileList()
    now = datetime.now(UTC)  # noqa: TID251 - the clock
    for file in discover(options.paths):
        paths.append(file)
    with uploads.stored(home_at(site.settings.home), run_id, files) as copies:
        context = site.context()
        reason = "" if is_confirmed else quoting.too_expensive(context, options, paths or copies)
        if reason:
            raise UsageError(reason, "Send confirmed=true, or limit the cost with budget_usd.")
        uploaded = [entry_of(copy, copy.source) for copy in copies]
        entries = Entries(site.settings, paths) if paths else uploaded
        submission = open_run(context, options, now, entries, run_id, request)
    site.intakes().take_in(submission)
    return {"id": run_id, "name": submission.name}


def _options(
    caller: Caller, paths: Sequence[str], profile: str, run_name: str = "", budget_usd: float = 0
) -> RunOptions:
    if bool(paths) == bool(caller.files):
        raise UsageError("Send either paths or files.")
    settings = caller.site.settings
    chosen = checked_profile({"budget_usd": Decimal(str(budget_usd))} if budget_usd else {})
    options = requested(settings, chosen, {"profile": profile, "run_name": run_name})
    folders = [(settings.base_folder / f).resolve() for f in settings.web.submit_folders]
    resolved = [Path(path).resolve() for path in paths]
    for path in resolved:
        if not any(path.is_relative_to(folder) for folder in folders):
            what = f"{printable(str(path))} is not below a folder of web.submit_folders."
            raise UsageError(what, "Upload the file, or add its folder to the settings.")
    return replace(options, paths=tuple(map(str, resolved)))


def _request(caller: Caller, values: Sequence[JsonValue]) -> tuple[str, str] | None:
    """Return the key and the hash of a submission; `None` without a key."""
    if not caller.key:
        return None
    sent: list[JsonValue] = [*values]
    for file in caller.files:
        content = hashlib.file_digest(file.file, "sha256")  # type: ignore[arg-type]  # can be read
        file.file.seek(0)
        sent += [file.filename, content.hexdigest()]
    key, content = (
        hashlib.sha256(json.dumps(part).encode()) for part in ([caller.name, caller.key], sent)
    )
    return key.hexdigest(), content.hexdigest()


def _earlier(caller: Caller, request: tuple[str, str] | None) -> Row | None:
    """Return the run that the same submission with this key has begun."""
    if request is None:
        return None
    with caller.site.database.read() as session:
        run = stored_runs.requested_with(session, request[0])
        if run is not None and run.request_hash != request[1]:
            what = "This Idempotency-Key belongs to a different submission."
            raise KeyReusedError(what, "Send another key.")
        return None if run is None else {"id": run.id, "name": run.name}


def _run(session: Session, name: str) -> Run:
    with _existing():
        return stored_runs.find(session, name)


# Tables


@operation(_READ, "GET /tables")
def list_tables(caller: Caller, *, after: After = "", limit: Limit = 50) -> Row:
    """List the tables of answers with their columns."""
    with caller.site.database.read() as session:
        stored = [table for table in answer_tables.gather(session) if table.name > after]
    page = _page(stored, limit, lambda table: table.name)
    return {**page, "items": [_described(table) for table in page["items"]]}


@operation(_READ, "GET /tables/{table}")
def get_table(caller: Caller, *, table: Segment) -> Row:
    """Return a table: its columns, its documents, and its cells by state of trust."""
    with caller.site.database.read() as session:
        of_documents = _table(session, table)
        totals = of_documents.totals(driver(session), {})
        return {**_described(of_documents.stored), **totals}


@operation(_READ, "GET /tables/{table}/rows")
def list_rows(
    caller: Caller,
    *,
    table: Segment,
    trust: Annotated[Trust | Literal[""], Field(description="Of any cell of the row.")] = "",
    filters: Filters = {},  # noqa: B006 - never changed
    after: After = "",
    limit: Limit = 50,
) -> Row:
    """List the rows of a table, one for each document: values, and their states of trust."""
    with caller.site.database.read() as session:
        of_documents, connection = _table(session, table), driver(session)
        if unknown := filters.keys() - (of_documents.documents.filters.keys() - {"trust"}):
            columns = ", ".join(of_documents.columns)
            raise UsageError(f"There is no filter “{min(unknown)}”.", f"Columns: {columns}.")
        values = {**filters, "trust": trust}
        read = of_documents.read(connection, values, _BY_NAME, limit + 1, id_after(after))
        page = _page(read, limit, lambda row: row["document_id"])
        ids = [row["document_id"] for row in page["items"]]
        return {**page, "items": of_documents.rows(connection, ids)}


@operation(_READ, "GET /jobs/{job_id}/quotes")
def list_quotes(
    caller: Caller, *, job_id: uuid.UUID, item: Text = "", after: After = "", limit: Limit = 50
) -> Row:
    """List the values of an answer (`job_id` of a row) with their quotes and places."""
    words = {"labels": list(label_paths()), "no_label": NO_LABEL}
    values = {**words, "job_id": job_id, "of_item": item, "after": after}
    with caller.site.database.read() as session:
        read = review.VALUES.read(driver(session), values, order="path", limit=limit + 1)
    return _page(read, limit, lambda row: row["path"])


@operation(_READ, "GET /documents/{document_id}/text")
def read_text(
    caller: Caller,
    *,
    document_id: uuid.UUID,
    place: Annotated[Text, Field(description="Its label, as “page 3”; empty: all.")] = "",
    after: Annotated[Offset, Field(description="The characters to skip.")] = 0,
    limit: Annotated[int, Field(ge=1, le=200_000, description="In characters.")] = 20_000,
) -> Row:
    """Return the text of a document, or of a place in it, and the places of this text."""
    with caller.site.database.read() as session:
        document = session.get(Document, document_id)
        if document is None:
            raise NotFoundError("There is no such document.")
        places = documents.listed_places(session, document.id)
        text = documents.text_of(session, document.id)
    spans = [(part.start_char, part.end_char) for part in places if place in ("", part.label)]
    if place and not spans:
        labels = ", ".join(part.label for part in places[:_FIRST])
        raise NotFoundError("The document has no such place.", f"Places: {labels or 'none'}.")
    first, stop = spans[0] if place else (0, len(text))
    start = max(first, after)
    end = min(start + limit, stop)
    inside = [part for part in places if part.start_char < end and part.end_char > start]
    return {
        "source": document.source,
        "characters": len(text),
        "start_char": start,
        "text": text[start:end],
        "places": [(part.label, part.start_char, part.end_char) for part in inside],
        "next": end if end < stop else None,
    }


@operation(_READ, "POST /ask")
def ask(
    caller: Caller,
    *,
    question: Annotated[Text, Field(min_length=1)],
    table: Annotated[Text, Field(description="Empty: any table.")] = "",
) -> Row:
    """Answer a question over the documents of a table, with figures, their trust and quotes."""
    from chordwise.pipeline.runs import ask as asking  # noqa: PLC0415 - it loads the providers

    return asking.members(answer_to(caller.site, question, table))


def _table(session: Session, name: str) -> DocumentTable:
    with _existing():
        return DocumentTable(answer_tables.get(session, name))


def _described(table: AnswerTable) -> Row:
    names = ("name", "kind", "rows", "analysis_type", "description")
    columns = answer_tables.columns_of(table)
    return {
        "name": table.name,
        "definitions": [{name: getattr(column, name) for name in names} for column in columns],
    }


# Decisions


def require_visible(site: Site, kind: type[Record], row_id: uuid.UUID) -> None:
    """Raise `NotFoundError` if the person of the request may not see a row, or it is not there."""
    with site.database.read() as session:
        if session.get(kind, row_id) is None:
            raise NotFoundError("There is no such answer.")


@operation(_READ, "GET /cells")
def list_cells(
    caller: Caller,
    *,
    run: Text = "",
    table: Text = "",
    analysis_type: Text = "",
    after: After = "",
    limit: Limit = 50,
) -> Row:
    """List the cells that a person should check, the most doubtful first, with their evidence."""
    scope = {"run": run, "saved_as": table, "analysis_type": analysis_type}
    place = review.place_of(key_of(after))
    with caller.site.database.read() as session:
        connection = driver(session)
        cells = review.queued(connection, scope, place, limit + 1)
        page = _page(cells, limit, lambda cell: cursor_of(cell["place"]))
        return {**page, "items": [review.question_about(connection, c) for c in page["items"]]}


@operation(_DECIDE, "POST /decisions")
def decide(
    caller: Caller,
    *,
    job_id: uuid.UUID,
    result_id: Annotated[uuid.UUID, Field(description="The answer that was looked at.")],
    path: Annotated[Text, Field(description="Of a value; empty: the whole answer.")] = "",
    verdict: Verdict,
    value: Annotated[JsonValue, Field(description="The right value of a correction.")] = None,
) -> Row:
    """Approve, correct or reject a value; `decision_id` is null if it is decided so already."""
    if not json_values.is_storable(value):
        raise UsageError("The value cannot be stored.", "Remove NUL characters from it.")
    entered = FeedbackInput(verdict=verdict, path=path, value=value, author=caller.name)
    require_visible(caller.site, Job, job_id)
    with caller.site.database.write() as session:
        stored = feedback.decide(session, job_id, result_id, entered)
        return {"decision_id": stored and stored.id}


@operation(_DECIDE, "DELETE /decisions/{decision_id}")
def undo(caller: Caller, *, decision_id: uuid.UUID) -> Row:
    """Withdraw a decision; it stays in the history."""
    require_visible(caller.site, Feedback, decision_id)
    with caller.site.database.write() as session, _existing():
        withdrawn = feedback.withdraw(session, decision_id, caller.name)
        return {"job_id": withdrawn.job_id, "path": withdrawn.path}
