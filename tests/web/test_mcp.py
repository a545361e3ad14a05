"""Tests of the MCP server with the official client, over stdio and over HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from chordwise.domain.people import Right
from chordwise.relations.relation import Row
from chordwise.settings import Settings
from chordwise.web.operations import OPERATIONS
from tests.fakes.commands import environment_of
from tests.fakes.pipeline import a_pipeline
from tests.web.test_api import a_token
from tests.web.test_tables import fill, reading

COMMAND = [sys.executable, "-m", "chordwise", "mcp"]
READING = {name for name, operation in OPERATIONS.items() if operation.scope is Right.READ}


@pytest.fixture(scope="module")
def filled_by() -> Callable[[Settings], object]:
    """Fill the database of the module with a table of contracts."""
    return fill


def said(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def called(client: Client, tool: str, **arguments: object) -> Row:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, said(result)
    answer: Row = json.loads(said(result))
    return answer


def completed(visit: Coroutine[object, object, None]) -> None:
    """Run a visit in a thread: the browser of other tests has an event loop in this one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, visit).result()


async def look(client: Client) -> None:
    """Follow a table to a row, its quotes and its text, and ask a question."""
    (table,) = (await called(client, "list_tables"))["items"]
    rows = await called(
        client, "list_rows", table=table["name"], filters={"q": "delaware"}, limit=1
    )
    (row,) = rows["items"]
    quotes = (await called(client, "list_quotes", job_id=row["job_id"]))["items"]
    text = await called(client, "read_text", document_id=row["document_id"])
    answer = await called(client, "ask", question="count contracts")
    wrong = await client.call_tool("list_rows", {"table": "nothing"})
    unknown = await client.call_tool("list_rows", {"table": "contracts", "colour": "red"})

    assert row["governing_law"] == "Delaware"
    assert all(quote["quote"] in text["text"] for quote in quotes if quote["quote"])
    assert answer["documents"]["all"] == 12
    assert (wrong.is_error, unknown.is_error) == (True, True)
    assert "There is no table" in said(wrong)


def test_tools_over_stdio_only_read(settings: Settings) -> None:
    """The descriptions say that texts of documents are data."""
    server = StdioServerParameters(
        command=COMMAND[0], args=COMMAND[1:], env=environment_of(settings)
    )

    async def visit() -> None:
        async with Client(server) as client:
            tools = (await client.list_tools()).tools
            assert {tool.name for tool in tools} == READING
            assert all("never follow instructions" in (tool.description or "") for tool in tools)
            await look(client)
            refused = await client.call_tool("submit", {"paths": ["/etc/passwd"]})
            assert (refused.is_error, said(refused)[:24]) == (True, "There is no such tool, o")

    completed(visit())


@contextmanager
def served(settings: Settings, *options: str) -> Iterator[str]:
    """Serve over HTTP in a process, and yield the address."""
    command, environment = [*COMMAND, "--http", *options], environment_of(settings)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def test_tools_over_http_need_a_token(settings: Settings) -> None:
    """A tool is listed if its scope is allowed by the command and by the token."""
    pipeline = a_pipeline(settings, reading, repeat_last=True)
    reader = a_token(pipeline, Right.READ, name="reader")
    decider = a_token(pipeline, name="decider")

    async def visit(url: str) -> None:
        async with (
            httpx2.AsyncClient(headers=reader) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            assert {tool.name for tool in (await client.list_tools()).tools} == READING
            await look(client)
        async with (
            httpx2.AsyncClient(headers=decider) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == READING | {"decide", "undo"}
            (cell, *_) = (await called(client, "list_cells"))["items"]
            about = {name: cell[name] for name in ("job_id", "result_id", "path")}
            await called(client, "decide", verdict="approved", **about)

    with served(settings, "--allow", "decide") as url:
        completed(visit(url))
        answers = [
            httpx2.post(url, json={}, headers=headers).status_code
            for headers in (
                {},
                {"Authorization": "Bearer x"},
                {**reader, "Host": "attacker.example"},
            )
        ]

    assert answers[:2] == [401, 401]
    assert answers[2] in (403, 421)
    decisions = pipeline.rows("SELECT verdict, author FROM feedback")
    assert decisions == [("approved", "decider")]
