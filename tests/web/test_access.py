"""Tests of access control: tokens, passwords, proxies, origins and limits of requests."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect
from pydantic import SecretStr

from chordwise.settings import Settings
from chordwise.web.access_control import hash_password
from chordwise.web.server import Served
from tests.fakes.pipeline import with_settings
from tests.web.conftest import serving, visiting

_PIECES = 100
PASSPHRASE = "correct horse battery"  # noqa: S105 - of this test


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    """Return a client that is not signed in."""
    with httpx.Client(base_url=served.link.partition("/?")[0]) as opened:
        yield opened


def sign_in(client: httpx.Client, served: Served) -> str:
    """Open the link; return the CSRF token of the session."""
    client.get(served.link)
    return csrf_in(client.get("/runs").text)


def csrf_in(page: str) -> str:
    return page.partition('name="csrf" value="')[2].partition('"')[0]


@pytest.fixture
def protected(settings: Settings) -> Settings:
    """Return settings with a password."""
    return with_settings(settings, "web", password_hash=SecretStr(hash_password(PASSPHRASE)))


def same_origin(client: httpx.Client) -> dict[str, str]:
    """Return the header that a browser sends from one of Chordwise's own pages."""
    return {"Origin": str(client.base_url).rstrip("/")}


def test_the_token_becomes_a_cookie(served: Served, client: httpx.Client) -> None:
    """The link redirects to the page without the token; otherwise access is denied."""
    before = client.get("/runs")
    wrong = client.get("/runs?token=wrong")
    opened = client.get(served.link.replace("/?", "/runs?status=open&"))
    after = client.get("/runs")

    assert (before.status_code, wrong.status_code) == (403, 403)
    assert client.get("/login").headers["location"] == "/"  # there is no password
    assert "chordwise web --link" in before.text
    assert "chordwise web --link" in wrong.text
    assert (opened.status_code, opened.headers["location"]) == (303, "/runs?status=open")
    cookie = opened.headers["set-cookie"]
    assert {"httponly", "samesite=strict"} <= set(cookie.lower().split("; "))
    assert after.status_code == 200


def test_every_response_has_security_headers(served: Served, client: httpx.Client) -> None:
    """No response may run foreign scripts or be framed by another site.

    An unchanged file is not sent again; pages are never stored.
    """
    sign_in(client, served)
    for path in ("/runs", "/static/chordwise.js", "/nothing", "/runs?sort=x"):
        headers = client.get(path).headers

        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
    sent = client.get("/static/chordwise.js")
    again = client.get("/static/chordwise.js", headers={"If-None-Match": sent.headers["etag"]})
    assert (sent.headers["cache-control"], again.status_code) == ("no-cache", 304)
    assert client.get("/runs").headers["cache-control"] == "no-store"


def test_malformed_parameters_cause_no_server_error(served: Served, client: httpx.Client) -> None:
    """NUL characters, which PostgreSQL cannot store, and a cursor that is nested too deeply.

    A host name that an attacker points to the server gets no page, even with the cookie.
    """
    csrf = sign_in(client, served)
    deep = base64.urlsafe_b64encode(b"[" * 3_000).decode()
    for path in ("/runs/%00", "/runs/a%00/live", "/review?run=%00", f"/runs?after={deep}"):
        assert client.get(path).status_code == 400, path
    sent = {"csrf": csrf, "sql": "SELECT 'a\0b'"}
    assert client.post("/sql", data=sent, headers=same_origin(client)).status_code == 200

    for host in ("attacker.example", "127.0.0.1.attacker.example", ""):
        assert client.get("/runs", headers={"Host": host}).status_code in (400, 421), host
    assert client.get("/runs").status_code == 200


def test_a_post_needs_the_same_origin_and_the_csrf_token(
    served: Served, client: httpx.Client
) -> None:
    """A POST needs the server's origin and the session's token; a refused one changes nothing."""
    csrf = sign_in(client, served)
    other_scheme = {"Origin": same_origin(client)["Origin"].replace("http:", "https:")}
    refused = [
        client.post("/logout", data={"csrf": csrf}),
        client.post("/logout", data={"csrf": csrf}, headers={"Origin": "http://attacker.example"}),
        client.post("/logout", data={"csrf": csrf}, headers={"Origin": "null"}),
        client.post("/logout", data={"csrf": csrf}, headers={"Origin": "http://["}),
        client.post("/logout", data={"csrf": csrf}, headers=other_scheme),
        client.post("/logout", headers=same_origin(client)),
        client.post("/logout", data={"csrf": "wrong"}, headers=same_origin(client)),
        client.post("/logout", headers={**same_origin(client), "X-CSRF-Token": ""}),
    ]
    still = client.get("/runs").status_code
    done = client.post("/logout", data={"csrf": csrf}, headers=same_origin(client))

    assert [answer.status_code for answer in refused] == [403] * 8
    assert still == 200
    assert done.status_code == 303
    assert client.get("/runs").status_code == 403


def test_no_path_leads_out_of_the_static_files(served: Served) -> None:
    """Dots do not leave the folder, encoded or not; httpx would normalize such paths."""
    address = urlsplit(served.link)
    assert address.hostname is not None
    for path in (
        "/static/../access.py",
        "/static/%2e%2e/access.py",
        "/static/..%2faccess.py",
        "/static/%2e%2e%2f%2e%2e%2fsettings/__init__.py",
        "/static//etc/passwd",
        "/static/vendor/../../server.py",
    ):
        connection = http.client.HTTPConnection(address.hostname, address.port)
        connection.putrequest("GET", path)
        connection.endheaders()
        answer = connection.getresponse()
        content = answer.read()
        connection.close()

        assert answer.status in (403, 404), path
        assert b"import" not in content, path
        assert b"root:" not in content, path


def test_uploads_are_bounded(settings: Settings) -> None:
    """A request that is too large is refused, whether or not its size is announced.

    The login form has its own limit, regardless of the limit of uploads.
    """
    with serving(with_settings(settings, "web", max_upload_megabytes=1)) as served:
        base = served.link.partition("/?")[0]
        with httpx.Client(base_url=base) as client:
            login = {"files": ("a.txt", b"x" * 1_100_000)}
            before = client.post("/login", files=login, headers=same_origin(client))
            csrf = sign_in(client, served)
            headers = {**same_origin(client), "X-CSRF-Token": csrf}
            part = b'--b\r\nContent-Disposition: form-data; name="x"; filename="a"\r\n\r\n'
            large = b"x" * (2 * 1024 * 1024)
            announced = client.post("/runs", files={"files": ("a.txt", large)}, headers=headers)
            chunked = client.post(
                "/runs",
                content=iter([part, large]),
                headers={**headers, "Content-Type": "multipart/form-data; boundary=b"},
            )
            field = client.post("/runs", data={"profile": "x" * 1_100_000}, headers=headers)

    assert {answer.status_code for answer in (before, announced, chunked, field)} == {413}


def test_a_slow_body_is_refused(
    served: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit applies to the whole body; sending single bytes does not extend it."""
    monkeypatch.setattr("chordwise.web.access_control._BODY_SECONDS", 0.3)
    csrf = sign_in(client, served)
    sent: list[bytes] = []
    pause = threading.Event()

    def trickle() -> Iterator[bytes]:
        while len(sent) < _PIECES:
            pause.wait(0.1)
            sent.append(b"x")
            yield b"x"

    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    # The server closes the connection while the client still sends.
    with suppress(httpx.TransportError):
        answer = client.post("/logout", content=trickle(), headers={**same_origin(client), **kind})
        assert answer.status_code == 408

    assert len(sent) < _PIECES
    still = client.post("/logout", data={"csrf": csrf}, headers=same_origin(client))
    assert still.status_code == 303


def test_the_password_signs_in_and_attempts_are_limited(
    protected: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right password leads to the requested page; after five wrong ones there is a wait."""
    with serving(protected) as served:
        base = served.link.partition("/?")[0]
        with httpx.Client(base_url=base) as client:
            redirect = client.get("/runs?status=open")
            csrf = csrf_in(client.get(redirect.headers["location"]).text)
            form = {"csrf": csrf, "name": "Ada", "next": "/runs?status=open"}
            form_fields = {**form, "password": PASSPHRASE}
            opened = client.post("/login", data=form_fields, headers=same_origin(client))
            page = client.get("/runs")
        for away in ("//attacker.example", "/\\attacker.example", "https://attacker.example"):
            with httpx.Client(base_url=base) as client:
                form = {"csrf": csrf_in(client.get("/login").text), "password": PASSPHRASE}
                led = client.post(
                    "/login", data={**form, "next": away}, headers=same_origin(client)
                )
                assert (led.status_code, led.headers["location"]) == (303, "/")
        with httpx.Client(base_url=base) as client:
            csrf = csrf_in(client.get("/login").text)
            wrong = {"csrf": csrf, "password": "wrong", "next": "//attacker.example"}
            monkeypatch.setattr("chordwise.web.login._OF_NAME", (2, 300.0))
            tried: list[httpx.Response] = []
            while len(tried) < 8 and (not tried or tried[-1].status_code == 403):
                tried.append(client.post("/login", data=wrong, headers=same_origin(client)))

    assert redirect.headers["location"] == "/login?next=%2Fruns%3Fstatus%3Dopen"
    assert (opened.status_code, opened.headers["location"]) == (303, "/runs?status=open")
    assert "Signed in as Ada" in page.text
    # The waits double; a slow machine may take longer than the first ones.
    assert [attempt.status_code for attempt in tried[:2]] == [403, 403]
    assert tried[-1].status_code == 429
    assert 1 <= int(tried[-1].headers["retry-after"]) <= 2 ** (len(tried) - 3)


def test_a_user_signs_in_and_out(
    request: pytest.FixtureRequest, protected: Settings, browser: Browser
) -> None:
    """A wrong password is reported, the right one opens the page, signing out ends the session."""
    with serving(protected) as served:
        away = replace(served, link=served.link.partition("?")[0] + "runs")
        pictures = request.config.getoption("--screenshots")
        with visiting(browser, away, pictures) as visit:
            page = visit.page
            for password, is_right in (("wrong", False), (PASSPHRASE, True)):
                page.get_by_label("Your name").fill("Ada")
                page.get_by_label("Password").fill(password)
                page.get_by_role("button", name="Sign in").click()
                if not is_right:
                    expect(page.get_by_role("alert")).to_have_text("This password is wrong.")
                    visit.look("login")
            expect(page.get_by_role("heading", name="Runs")).to_be_visible()
            page.goto(f"{away.link}?sort=nothing")
            visit.look("error")
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_user_header_is_trusted_from_the_proxy_only(settings: Settings) -> None:
    """The header names the user only if it comes once, from the address of a trusted proxy."""
    answers = []
    for proxy in ("127.0.0.1", "10.9.8.7"):
        web = {"trusted_user_header": "X-Remote-User", "trusted_proxies": [proxy]}
        known = settings.model_copy(
            update={"web": type(settings.web).model_validate(web)},
        )
        with serving(known) as served:
            base = served.link.partition("/?")[0]
            answers.append(httpx.get(f"{base}/runs", headers={"X-Remote-User": "Grace"}))
            twice = [("X-Remote-User", "Root"), ("X-Remote-User", "Grace")]
            assert httpx.get(f"{base}/runs", headers=twice).status_code == 403

    assert [answer.status_code for answer in answers] == [200, 403]
    assert "Signed in as Grace" in answers[0].text


def test_a_copied_cookie_is_of_no_use_after_signing_out(settings: Settings) -> None:
    """Signing out ends the session in the server; other sessions go on until a restart.

    The token of the link is new at each start.
    """
    with (
        serving(settings) as served,
        httpx.Client(base_url=served.link.partition("/?")[0]) as client,
        httpx.Client(base_url=client.base_url) as other,
    ):
        csrf = sign_in(client, served)
        copied = dict(client.cookies)
        sign_in(other, served)
        before = httpx.get(f"{client.base_url}/runs", cookies=copied).status_code
        client.post("/logout", data={"csrf": csrf}, headers=same_origin(client))
        after = httpx.get(f"{client.base_url}/runs", cookies=copied).status_code
        elsewhere = other.get("/runs").status_code
        kept, link = dict(other.cookies), served.link
    with serving(settings) as served, httpx.Client(cookies=kept) as client:
        restarted = client.get(served.link.partition("?")[0] + "runs").status_code

    assert (before, after, elsewhere, restarted) == (200, 403, 200, 403)
    assert served.link != link


def test_the_host_header_does_not_open_pages(served: Served) -> None:
    """Some versions of Starlette take the path of an address from it."""
    place = urlsplit(served.link).netloc
    suffixes = ("/static/", "/login?", "/static/x?y=", "#", "\tx", "/health/..")

    for host in (*(f"{place}{suffix}" for suffix in suffixes), f"x@{place}"):
        for target in ("/runs", f"http://{place}/runs", "//static/runs", "static/runs"):
            answer = raw_answer(served, f"GET {target} HTTP/1.1\r\nHost: {host}")
            refusals = (b"HTTP/1.1 400", b"HTTP/1.1 421")
            assert answer.startswith(refusals), (host, target, answer)


def raw_answer(served: Served, head: str) -> bytes:
    """Return the answer to a request that no HTTP library would send."""
    address = urlsplit(served.link)
    with socket.create_connection((address.hostname or "", address.port or 0), 60) as connection:
        connection.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_parallel_guesses_are_counted_before_they_are_checked(protected: Settings) -> None:
    """Of twenty simultaneous guesses five are checked; others at the address may still sign in."""
    with serving(protected) as served:
        base = served.link.partition("/?")[0]

        def attempt(name: str, password: str) -> int:
            with httpx.Client(base_url=base, timeout=60) as client:
                csrf = csrf_in(client.get("/login").text)
                sent = {"csrf": csrf, "name": name, "password": password, "next": "/"}
                return client.post("/login", data=sent, headers=same_origin(client)).status_code

        with ThreadPoolExecutor(20) as pool:
            guessed = list(pool.map(attempt, ["Mallory"] * 20, ["a wrong password"] * 20))
        ours = attempt("Ada", PASSPHRASE)

    # A further guess is checked when a wait of a second is over, on a slow machine.
    assert set(guessed) == {403, 429}
    assert guessed.count(403) < 10
    assert ours == 303
