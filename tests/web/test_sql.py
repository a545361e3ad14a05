"""Tests of the page that runs SQL."""

from __future__ import annotations

import csv
import socket
from contextlib import ExitStack
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from chordwise.settings import Settings
from chordwise.web.server import Served
from tests.fakes.pipeline import a_pipeline, a_summary
from tests.fakes.processes import wait_until
from tests.web.conftest import Visit

HOSTILE = "<img src=x onerror=alert(1)>\u202e"


def test_the_rows_of_a_statement_are_shown_and_exported(settings: Settings, visit: Visit) -> None:
    """A key runs the statement, the table shows the rows as text, and the CSV has the same rows."""
    pipeline = a_pipeline(settings, a_summary("The harbour"), repeat_last=True)
    pipeline.work(pipeline.submit("The harbour of Lindau was rebuilt in 1856."))
    page = visit.open("/sql")
    editor = page.get_by_label("Statement")
    editor.fill(f"SELECT run, -1.50 AS sum, '{HOSTILE}' AS mark, NULL AS gap FROM run_accounts")  # noqa: S608 - run as the reader role

    editor.press("Control+Enter")

    expect(page.locator("tbody tr")).to_have_count(1)
    cells = page.locator("tbody td").all_inner_texts()
    assert cells[1:] == ["-1.50", r"<img src=x onerror=alert(1)>\u202e", "null"]
    expect(page.locator("aside summary").filter(has_text="fact_quotes")).to_have_count(1)
    expect(page.locator("aside .group[open] > summary")).to_contain_text("Views")
    visit.look("sql")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download as CSV").click()
    with downloading.value.path().open(encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert header == ["run", "sum", "mark", "gap"]
    assert row[1:] == ["-1.50", HOSTILE, ""]


def test_a_statement_that_writes_is_refused(settings: Settings, visit: Visit) -> None:
    """The reason is shown below the statement, which stays editable; nothing is changed."""
    pipeline = a_pipeline(settings, a_summary("The harbour"), repeat_last=True)
    pipeline.submit("A text.")
    page = visit.open("/sql?sql=SELECT * FROM outbox")
    expect(page.get_by_role("alert")).to_contain_text("permission denied")

    page.get_by_label("Statement").fill("DELETE FROM runs")
    page.get_by_role("button", name="Run").click()

    expect(page.get_by_role("alert")).to_contain_text("Only read-only statements are allowed")
    assert page.get_by_label("Statement").input_value() == "DELETE FROM runs"
    assert pipeline.value("SELECT count(*) FROM runs") == 1
    visit.look("sql-refused")


def test_only_links_of_these_pages_run_statements(served: Served) -> None:
    """A link of another site opens the editor with its statement, and does not run it."""
    with httpx.Client(follow_redirects=True) as client:
        client.get(served.link)
        address = served.link.partition("/?")[0] + "/sql?sql=SELECT+7*191+AS+product"
        for site, count in (("same-origin", 1), ("cross-site", 0)):
            page = client.get(address, headers={"Sec-Fetch-Site": site}).text

            assert page.count("1337") == count, site
            assert "SELECT 7*191 AS product" in page


class Attacker:
    """A signed-in client that sends statements whose answers it does not read."""

    def __init__(self, served: Served) -> None:
        self.base = served.link.partition("/?")[0]
        with httpx.Client() as client:
            page = client.get(served.link, follow_redirects=True).text
            self.csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
            self.cookies = dict(client.cookies)

    def send(self, path: str, statement: str) -> socket.socket:
        """Send a statement; return the connection, which has not been read."""
        address, body = urlsplit(self.base), urlencode({"csrf": self.csrf, "sql": statement})
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        head = [
            f"POST {path} HTTP/1.1",
            f"Host: {address.netloc}",
            f"Origin: {self.base}",
            f"Cookie: {cookies}",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
        ]
        connection = socket.create_connection((address.hostname or "", address.port or 0), 60)
        connection.sendall("\r\n".join([*head, "", body]).encode())
        return connection

    def ask(self, statement: str) -> httpx.Response:
        """Run a statement and return the page with its answer."""
        with httpx.Client(base_url=self.base, cookies=self.cookies, timeout=60) as client:
            sent = {"csrf": self.csrf, "sql": statement}
            return client.post("/sql", data=sent, headers={"Origin": self.base})


_SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE :sleep"


def sleeping(settings: Settings) -> object:
    """Return the number of statements of an attacker that run in the database."""
    pattern = {"sleep": "SELECT pg_sleep%"}
    return a_pipeline(settings).value(_SLEEPING, **pattern)


@pytest.mark.parametrize("path", ["/sql", "/sql/csv"])
def test_a_statement_ends_with_its_request(settings: Settings, served: Served, path: str) -> None:
    """Statements of clients that have left are cancelled, and free their places."""
    attacker = Attacker(served)
    for rows in (1, 25):
        statement = f"SELECT pg_sleep({25 / rows}) FROM generate_series(1, {rows})"  # noqa: S608 - numbers

        with ExitStack() as closing:
            for _ in range(45):
                closing.enter_context(attacker.send(path, statement))
            wait_until(lambda: sleeping(settings) == 10, 60, "the places are taken")
            busy = attacker.ask("SELECT 1")
            others = httpx.get(f"{attacker.base}/runs", cookies=attacker.cookies).status_code
        wait_until(lambda: sleeping(settings) == 0, 15, "the statements have ended")
        wait_until(lambda: attacker.ask("SELECT 1").status_code == 200, 15, "a place is free")

        assert busy.status_code == 503
        assert "Too many statements" in busy.text
        assert others == 200
