"""S03 and S04: texts that are harmful if a place interprets them instead of showing them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import openpyxl
import pytest
from lxml import html
from openpyxl.cell import Cell

from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.embedded.home import home_at, read_address
from tests.fakes.processes import wait_until
from tests.faults.allowance import SUCCEEDED, Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.provider import Treatment
from tests.faults.test_odd_drops import exported, unprintable
from tests.peers.answering_server import AnsweringHandler, completion, material_of
from tests.peers.webhook_receiver import receiving

# Each text has an effect where it is interpreted.
HOSTILE = (
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1+1",
    "@SUM(1+1)",
    "\t=1+1",
    "\r=1+1",
    "＝1+1",  # noqa: RUF001 - intended
    "<script>document.title = 'owned'</script>",
    '"><img src=x onerror="document.title=1">',
    "javascript:document.title=1",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "\x1b[31mred\x1b[0m",
    "\x9b2Jcleared",
    "\x1b]0;owned\x07",
    "\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "[link=http://evil.example]link[/link] [bold]bold[/bold] :smile:",
    "right \u202eto left\u202c",
    "tags \U000e0041\U000e0042 and zero\u200bwidth",
    "'; DROP TABLE runs; --",
)
_MAX_ITEMS = 5  # of a list in a summary
_TOWN = re.compile(r"town (\d+)")
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "＝")  # noqa: RUF001 - intended
_SHOWING = (
    ("results",),
    ("results", "--long"),
    ("results", "--json"),
    ("runs", "latest"),
    ("sql", "SELECT * FROM document_results"),
    ("sql", "SELECT * FROM fact_quotes", "--csv"),
    ("export", "document_results"),
    ("explain", "{document}", "--full"),
)
_LEADS_AWAY = re.compile(r"\s*(?:javascript:|\w*:?//evil)", re.IGNORECASE)
_PAGES = (
    *("/runs", "/runs/{run}", "/results", "/results?words=owned", "/documents/{document}"),
    *("/review", "/tables", "/insight", "/insight/report", "/inbox", "/schedules", "/sql"),
)
DELIVERY = """
[deliveries.webhook]
url = "{url}"
secret = "{secret}"
allow_http = true
allow_private_addresses = true
first_wait_seconds = 0.5
max_attempts = 2
timeout_seconds = 4
"""
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - planted


def says_hostile_words(handler: AnsweringHandler, user: str) -> None:
    """Answer with a summary whose fields are hostile texts; the quote is one of the document."""
    said = material_of(user).strip()
    number = _TOWN.search(said)
    first = int(number[1]) if number else 0
    words = (*HOSTILE, *HOSTILE)[first : first + _MAX_ITEMS]
    findings: list[JsonValue] = [{"finding": finding, "quote": said[:30]} for finding in words]
    answer: JsonObject = {
        "main_topic": " ".join(HOSTILE),
        "key_findings": findings,
        "conclusions": [*words],
        "confidence": 8,
    }
    handler.reply(200, json.dumps(completion(json.dumps(answer))).encode())


def write_hostile_documents(cluster: Cluster) -> list[Path]:
    """Write a document for each text, which is also part of its name."""
    files = []
    for number, text in enumerate(HOSTILE):
        name = re.sub(r"[/\0]", "_", text)
        file = cluster.folder / "documents" / f"{name} {number}.txt"
        file.write_text(f"{text} The harbour of town {number} was rebuilt. {text}\n", "utf-8")
        files.append(file)
    return files


def on_terminal(cluster: Cluster, *arguments: str) -> str:
    """Return what a command writes to a terminal without interpreting it."""
    ours, theirs = pty.openpty()
    environment = {**cluster.members.environment, "TERM": "dumb", "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "chordwise", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=cluster.folder,
        env=environment,
    ) as process:
        os.close(theirs)
        written = b"".join(_pieces(ours))
        os.close(ours)
    assert process.returncode == 0, written.decode(errors="replace")
    return written.decode().replace("\r\n", "\n")


def _pieces(terminal: int) -> Iterator[bytes]:
    # On Linux, reading after the end of a terminal raises an error.
    with suppress(OSError):
        while piece := os.read(terminal, 65_536):
            yield piece


def visited(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Serve the pages, and yield the address and the HTML of each."""
    web = cluster.members.start("web", "")
    wait_until(lambda: "http://" in web.text(), 60, "the pages are served")
    served = read_address(home_at(cluster.folder / "home").web_link_file)
    assert served is not None
    link = served.url
    ids = {
        "run": str(cluster.value("SELECT id FROM runs LIMIT 1")),
        "document": str(cluster.value("SELECT id FROM documents LIMIT 1")),
    }
    with httpx.Client(base_url=link.partition("/?")[0], timeout=60) as client:
        client.get(link)
        for page in _PAGES:
            address = page.format(**ids)
            answer = client.get(address, follow_redirects=True)
            assert answer.status_code == 200, address
            yield address, answer.text


def active_parts(page: str) -> list[str]:
    """Return the parts of a page that would run or lead away, except Chordwise's own scripts."""
    root = html.fromstring(page)
    scripts = [element.text or "" for element in root.iter("script") if not element.get("src")]
    active = [script for script in scripts if "owned" in script or "document.title" in script]
    for element in root.iter():
        for name, value in element.items():
            if str(name).startswith("on") or _LEADS_AWAY.match(str(value)):
                active.append(f"{name!s}={value!s}")
    return active


def cells_of(path: Path) -> Iterator[Cell]:
    for sheet in openpyxl.load_workbook(path):
        for row in sheet.iter_rows():
            yield from (cell for cell in row if isinstance(cell, Cell) and cell.value is not None)


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_hostile_texts_are_shown_as_text_in_every_output(
    cluster: Cluster, experiment: Experiment
) -> None:
    """S03, S04: in names, texts, questions and answers; every output shows them as text."""
    experiment.begin("S03 S04", f"{len(HOSTILE)} texts in names, documents, questions, answers")
    with receiving(200) as receiver:
        with (cluster.folder / "chordwise.toml").open("a", encoding="utf-8") as file:
            file.write(DELIVERY.format(url=receiver.url, secret=WEBHOOK_SECRET))
        cluster.provider.treat(Treatment(answering=says_hostile_words), times=len(HOSTILE))
        cluster.start_both()
        options = ("--run-name", HOSTILE[7] + HOSTILE[0], "--instructions", HOSTILE[8])
        cluster.submit(*write_hostile_documents(cluster), options=options)
        cluster.wait_until_finished(120)
        wait_until(lambda: bool(receiver.received), 60, "the webhook")
        told = receiver.received[0].body.decode()

    document = str(cluster.value("SELECT id FROM documents LIMIT 1"))
    shown = {
        words: on_terminal(cluster, *(word.format(document=document) for word in words))
        for words in _SHOWING
    }
    pages = dict(visited(cluster))
    book, page = cluster.folder / "book.xlsx", cluster.folder / "report.html"
    for words in (("export", "fact_quotes", "--output", str(book)), ("insight", "-o", str(page))):
        assert cluster.run(*words).returncode == 0
    cells = exported(cluster, "document_results", "source") + exported(cluster, "facts", "value")
    pages["report"] = page.read_text("utf-8")
    experiment.fault_is_over()
    experiment.finish(Allowance(ends=SUCCEEDED | {"partial"}))

    assert {words for words, text in shown.items() if unprintable(text) - {"\t"}} == set()
    assert unprintable(cluster.logs()) <= {"\t"}
    assert {name: active for name, text in pages.items() if (active := active_parts(text))} == {}
    assert {name for name, text in pages.items() if set(text) & {"\x1b", "\x9b", "\u202e"}} == set()
    assert "document.title" in "".join(map(str, html.fromstring(pages["/results"]).itertext()))
    assert [cell for cell in cells if cell.startswith(_FORMULAS)] == []
    assert {cell.data_type for cell in cells_of(book)} <= {"s", "n", "b", "d"}
    assert "harbour" not in told  # the webhook names its run, without text of a document
