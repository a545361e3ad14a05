"""The REST API under `/api/v1`: routes over the operations, their OpenAPI document, and problems.

A request needs a token with the scope of its operation; a session of the pages is of no use here.
Every error is a problem (RFC 9457).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, as_json, as_object
from chordwise.domain.people import Person, identified_person
from chordwise.errors import (
    ChordwiseError,
    InternalError,
    ModelError,
    TransientError,
    UsageError,
)
from chordwise.settings.sections import problems
from chordwise.storage import api_tokens
from chordwise.web.access_control import (
    MAX_FIELDS,
    MAX_FILES,
    act_as,
    admit,
    bounded,
    reporting_defects,
    rules_of,
)
from chordwise.web.operations import (
    OPERATIONS,
    Caller,
    KeyReusedError,
    NotFoundError,
    Operation,
    submit,
)
from chordwise.web.site import API_PREFIX, problem, site_of

KEY_HEADER = "Idempotency-Key"
_JSON, _FORM = "application/json", "multipart/form-data"
_REF = "#/components/schemas/{model}"
_STATUSES: Final[Sequence[tuple[type[ChordwiseError], int]]] = (
    (NotFoundError, 404),
    (KeyReusedError, 409),
    (UsageError, 400),
    (TransientError, 503),
    (ModelError, 502),
    (InternalError, 500),
    (ChordwiseError, 409),
)
"""The statuses of errors; an error has that of the first class which it belongs to."""
_PROBLEMS = (400, 401, 403, 404, 409, 421, 422, 500, 502, 503)
_PROBLEMS_OF_BODIES = (408, 413, 415)


class ListPage(BaseModel):
    """A page of a list, and the value of `after` for the following one."""

    items: list[dict[str, JsonValue]]
    next: str | None


class Problem(BaseModel):
    """An error."""

    type: str
    title: str
    status: int
    detail: str
    hint: str


def routes(max_upload_bytes: int) -> Iterator[BaseRoute]:
    """Yield the routes of the operations, and that of their document."""
    by_path: dict[str, dict[str, Operation]] = defaultdict(dict)
    for operation in OPERATIONS.values():
        by_path[operation.path][operation.method] = operation
    yield Route(f"{API_PREFIX}/openapi.json", lambda _: JSONResponse(document()))
    for path, by_method in by_path.items():
        yield _route(f"{API_PREFIX}{path}", by_method, max_upload_bytes)


def _route(path: str, by_method: Mapping[str, Operation], max_upload_bytes: int) -> BaseRoute:
    async def respond(request: Request) -> Response:
        operation = by_method["GET" if request.method == "HEAD" else request.method]
        with reporting_defects(request):
            person = await run_in_threadpool(_person, request)
            if operation.scope not in person.rights:
                raise HTTPException(403, f"The token needs the scope {operation.scope}.")
            act_as(request, person)
            await admit(request)
            received = Request(request.scope, bounded(request, max_upload_bytes))
            try:
                values, files = await _entered(operation, received)
                key = request.headers.get(KEY_HEADER, "") if operation.takes_files else ""
                caller = Caller(site=site_of(request), name=person.name, files=files, key=key)
                answer = await run_in_threadpool(operation.call, caller, values)
            finally:
                await received.close()
        return JSONResponse(answer)

    return Route(path, respond, methods=sorted(by_method))


def _person(request: Request) -> Person:
    kind, _, written = request.headers.get("authorization", "").partition(" ")
    token = api_tokens.find(site_of(request).database, written.strip())
    if kind.lower() != "bearer" or token is None:
        what = "Send a token: Authorization: Bearer … (`chordwise tokens create`)."
        raise HTTPException(401, what, {"WWW-Authenticate": "Bearer"})
    person = identified_person(token.name, rules_of(request).roles, token.scopes.split())
    if person is None:
        raise HTTPException(403, f"{token.name} has no role: see web.roles.")
    return person


async def _entered(
    operation: Operation, request: Request
) -> tuple[BaseModel, Sequence[UploadFile]]:
    """Return the values and the files of a request."""
    model, media_type = operation.entered, request.headers.get("content-type", "").partition(";")[0]
    try:
        if not _has_body(operation):
            return model.model_validate_strings(_strings(operation, request)), ()
        if media_type == _JSON:
            return model.model_validate_json(await request.body(), strict=True), ()
        if media_type == _FORM and operation.takes_files:
            form = await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS)
            files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
            fields = [(name, value) for name, value in form.multi_items() if name != "files"]
            return model.model_validate_strings(_once_each(fields)), files
    except ValidationError as error:
        raise HTTPException(422, f"Invalid values: {'; '.join(problems(error))}.") from error
    raise HTTPException(415, f"Send the values as {_JSON}.")


def _strings(operation: Operation, request: Request) -> Mapping[str, object]:
    """Return the values in the address; what is not declared are filters, if there are any."""
    declared = operation.entered.model_fields.keys() - request.path_params.keys() - {"filters"}
    query = _once_each(request.query_params.multi_items())
    values: dict[str, object] = {name: query.pop(name) for name in declared & query.keys()}
    if "filters" in operation.entered.model_fields:
        values["filters"] = query
    elif query:
        raise HTTPException(422, f"Invalid values: there is no parameter {min(query)}.")
    return values | request.path_params


def _once_each(pairs: Sequence[tuple[str, str | UploadFile]]) -> dict[str, str]:
    values = {name: value for name, value in pairs if isinstance(value, str)}
    if len(values) < len(pairs):
        raise HTTPException(422, "Invalid values: one is repeated, or a file is not in files.")
    return values


def explain(error: ChordwiseError | HTTPException) -> Response:
    """Return an error as a problem."""
    if isinstance(error, ChordwiseError):
        status = next(status for kind, status in _STATUSES if isinstance(error, kind))
        return problem(status, error.what, error.hint, error.code)
    answer = problem(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


# The OpenAPI document


def _has_body(operation: Operation) -> bool:
    return operation.method == "POST" and "{" not in operation.path


@cache
def document() -> JsonObject:
    """Return the OpenAPI document of the operations."""
    models: list[type[BaseModel]] = [operation.entered for operation in OPERATIONS.values()]
    models += [ListPage, Problem]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    components = as_object(schemas["$defs"])
    paths: dict[str, JsonObject] = defaultdict(dict)
    for operation in OPERATIONS.values():
        schema = as_object(components[operation.entered.__name__])
        paths[operation.path][operation.method.lower()] = _described(operation, schema)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Chordwise", "version": "1"},
        "servers": [{"url": API_PREFIX}],
        "paths": as_json(paths),
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _ref(model: type[BaseModel]) -> JsonObject:
    return {"$ref": _REF.format(model=model.__name__)}


def _described(operation: Operation, schema: JsonObject) -> JsonObject:
    answer = _ref(ListPage) if operation.name.startswith("list") else {"type": "object"}
    problem_content = {"application/problem+json": {"schema": _ref(Problem)}}
    statuses = [*_PROBLEMS, *(_PROBLEMS_OF_BODIES if _has_body(operation) else ())]
    responses = {
        str(status): {"description": HTTPStatus(status).phrase, "content": problem_content}
        for status in statuses
    }
    responses["200"] = {"description": "The answer.", "content": {_JSON: {"schema": answer}}}
    described: JsonObject = {
        "operationId": operation.name,
        "summary": operation.about,
        "security": [{"token": [operation.scope.value]}],
        "responses": as_json(responses),
    }
    parameters = [] if _has_body(operation) else list(_parameters(operation, schema))
    if operation.name == submit.__name__:
        about = "A repeated request with the same key returns the same run."
        text: JsonObject = {"type": "string", "description": about}
        parameters.append({"name": KEY_HEADER, "in": "header", "schema": text})
    if parameters:
        described["parameters"] = as_json(parameters)
    if _has_body(operation):
        content: JsonObject = {_JSON: {"schema": _ref(operation.entered)}}
        if operation.takes_files:
            content[_FORM] = {"schema": _form_of(schema)}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameters(operation: Operation, schema: JsonObject) -> Iterator[JsonObject]:
    for name, of_value in as_object(schema["properties"]).items():
        is_path = f"{{{name}}}" in operation.path
        yield {
            "name": name,
            "in": "path" if is_path else "query",
            "required": is_path or name in json_values.listed(schema.get("required")),
            "schema": of_value,
        }


def _form_of(schema: JsonObject) -> JsonObject:
    """Return the schema of a form with files in the place of paths."""
    fields = {name: of for name, of in as_object(schema["properties"]).items() if name != "paths"}
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    files = {"type": "array", "items": file, "minItems": 1, "maxItems": MAX_FILES}
    return {
        "type": "object",
        "properties": as_json({**fields, "files": files}),
        "required": ["files"],
        "additionalProperties": False,
    }
