"""Tests of the API over HTTP: fuzzing by its OpenAPI document, tokens, submissions, decisions."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis import Case, Config, GenerationMode

from chordwise.domain.people import Right
from chordwise.errors import ExitCode
from chordwise.settings import Settings
from chordwise.storage import api_tokens
from chordwise.web import api
from chordwise.web.operations import OPERATIONS
from chordwise.web.server import Served
from tests.fakes.commands import point_to, run
from tests.fakes.pipeline import Pipeline, a_pipeline, with_settings
from tests.fakes.processes import wait_until
from tests.web.conftest import serving
from tests.web.test_tables import fill, reading

PROBLEM = "application/problem+json"
ID = str(uuid.UUID(int=7))
# What a schema cannot tell is refused with 400 or 404, and never with 422. Not every invalid value
# stays invalid in a request: an empty list in an address is not sent.
CHECKS = {
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404", "409"]},
        "negative_data_rejection": {"enabled": False},
    }
}


@pytest.fixture(scope="module")
def filled_by() -> Callable[[Settings], object]:
    """Fill the database of the module with a table of contracts."""
    return fill


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings, reading, repeat_last=True)


def a_token(pipeline: Pipeline, *scopes: Right, name: str = "tester") -> dict[str, str]:
    """Return the header of a new token."""
    with pipeline.context.database.write() as session:
        token = api_tokens.create(session, name, scopes or list(Right))
    return {"Authorization": f"Bearer {token}"}


def a_client(served: Served, headers: Mapping[str, str]) -> httpx.Client:
    base = served.link.partition("/?")[0]
    return httpx.Client(base_url=f"{base}/api/v1", headers=headers, timeout=60)


@pytest.fixture
def client(served: Served, pipeline: Pipeline) -> Iterator[httpx.Client]:
    """Return a client whose token has every scope."""
    with a_client(served, a_token(pipeline)) as opened:
        yield opened


def ids_of(pipeline: Pipeline) -> dict[str, str]:
    """Return values of paths that exist."""
    row = pipeline.rows("SELECT run_id::text, id::text, document_id::text FROM jobs LIMIT 1")[0]
    run, job, document = map(str, row)
    return {"run": run, "job_id": job, "document_id": document, "table": "contracts"}


@pytest.mark.parametrize(
    "examples", [2, pytest.param(150, marks=[pytest.mark.nightly, pytest.mark.timeout(3_000)])]
)
def test_no_request_is_answered_with_a_defect_or_undocumented(
    client: httpx.Client, pipeline: Pipeline, examples: int
) -> None:
    """Valid requests about rows that exist, and invalid ones."""
    known = ids_of(pipeline)
    schema = schemathesis.openapi.from_dict(api.document(), config=Config.from_dict(CHECKS))

    for operation in OPERATIONS.values():
        existing = {name: known[name] for name in known if f"{{{name}}}" in operation.path}
        of_operation = schema.include(operation_id=operation.name)
        for mode, paths in ((GenerationMode.POSITIVE, existing), (GenerationMode.NEGATIVE, None)):
            strategy = of_operation.as_strategy(generation_mode=mode, path_parameters=paths or None)

            @hypothesis.settings(
                max_examples=examples,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @hypothesis.given(case=strategy)
            def check(case: Case) -> None:  # type: ignore[type-arg]  # only its own parts matter
                header = {"Authorization": client.headers["Authorization"]}
                case.call_and_validate(base_url=str(client.base_url), headers=header)

            check()


def test_each_operation_needs_a_token_with_its_scope(served: Served, pipeline: Pipeline) -> None:
    """No token, a wrong or revoked one, one of another scope, and a session of the pages."""
    tokens = {scope: a_token(pipeline, scope, name=scope) for scope in Right}
    gone = a_token(pipeline, name="gone")
    with pipeline.context.database.write() as session:
        api_tokens.revoke(session, "gone")
    refused: list[tuple[str, str, int]] = []

    with a_client(served, {}) as client, httpx.Client() as browser:
        browser.get(served.link)
        assert browser.get(f"{client.base_url}openapi.json").json()["openapi"] == "3.1.0"
        for operation in OPERATIONS.values():
            path = operation.path.format(
                run="r", table="t", job_id=ID, document_id=ID, decision_id=ID
            )
            address = f"{client.base_url}{path.removeprefix('/')}"
            others = [tokens[scope] for scope in Right if scope is not operation.scope]
            calls = [
                *((client, header, 401) for header in ({}, gone, {"Authorization": "Bearer x"})),
                *((client, header, 403) for header in others),
                (browser, {}, 401),
                (client, {**tokens[operation.scope], "Origin": "http://attacker.example"}, 403),
                (client, {**tokens[operation.scope], "Host": "attacker.example"}, 421),
            ]
            for caller, headers, status in calls:
                answer = caller.request(operation.method, address, headers=headers)
                if (answer.status_code, answer.headers["content-type"]) != (status, PROBLEM):
                    refused.append((operation.name, str(headers), answer.status_code))
            allowed = client.request(operation.method, address, headers=tokens[operation.scope])
            assert allowed.status_code in (200, 400, 404, 415), operation.name
        page = browser.get(f"{client.base_url}../../runs").status_code
        pages = httpx.get(f"{client.base_url}../../runs", headers=tokens[Right.READ])

    assert refused == []
    assert (page, pages.status_code) == (200, 403)


def test_a_repeated_submission_returns_the_same_run(
    client: httpx.Client, pipeline: Pipeline
) -> None:
    """Also for requests at the same time; another submission with the key is refused."""
    runs = "SELECT count(*) FROM runs"
    before = int(str(pipeline.value(runs)))

    def send(text: str, **headers: str) -> httpx.Response:
        files = {"files": ("letter.txt", text.encode())}
        return client.post("/runs", files=files, headers=headers)

    with ThreadPoolExecutor(4) as pool:
        keyed = {"Idempotency-Key": "one"}
        sent = list(pool.map(lambda _: send("A letter", **keyed), range(4)))
    other, unkeyed = send("Another letter", **keyed), send("A letter")

    assert [answer.status_code for answer in sent] == [200] * 4
    assert len({answer.json()["id"] for answer in sent}) == 1
    assert (other.status_code, other.json()["type"]) == (409, "urn:chordwise:key_reused")
    assert unkeyed.json()["id"] != sent[0].json()["id"]
    assert pipeline.value(runs) == before + 2
    wait_until(lambda: ("letter.txt",) in pipeline.rows("SELECT source FROM intakes"), 60, "read")
    state = client.get(f"/runs/{sent[0].json()['id']}").json()
    assert state["account"]["run"] == sent[0].json()["name"]
    assert client.post(f"/runs/{unkeyed.json()['id']}/cancel").status_code == 200


def test_paths_are_read_only_below_the_folders_of_the_settings(
    settings: Settings, pipeline: Pipeline, tmp_path: Path
) -> None:
    """Links and dots do not lead out of them; a quote reads the same files and stores nothing."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.txt").write_text("A contract", "utf-8")
    (inside / "link.txt").symlink_to(outside / "a.txt")
    (inside / "folder").symlink_to(outside)
    header = a_token(pipeline)
    with (
        serving(with_settings(settings, "web", submit_folders=(inside,))) as served,
        a_client(served, header) as client,
    ):
        for path in (
            "out/a.txt",
            "in/../out/a.txt",
            "in/link.txt",
            "in/folder/*",
            "in/*/../../out",
        ):
            answer = client.post("/runs", json={"paths": [f"{tmp_path}/{path}"]})
            assert (answer.status_code, "submit_folders" in answer.text) == (400, True), path
        quoted = client.post("/quote", json={"paths": [str(inside)]})
        lent = client.post("/quote", files={"files": ("b.txt", b"A contract")})
        runs = pipeline.value("SELECT count(*) FROM runs")
        begun = client.post("/runs", json={"paths": [f"{inside}/*.txt"], "run_name": "by path"})

    assert (quoted.json()["documents"], lent.json()["documents"]) == (1, 1)
    assert runs == 1
    assert (begun.status_code, begun.json()["name"]) == (200, "by path")


def test_rows_are_filtered_and_read_page_by_page(client: httpx.Client) -> None:
    """A page begins after the last row of the one before; a row leads to quotes and texts."""
    table = client.get("/tables").json()["items"][0]
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = client.get("/tables/contracts/rows", params={"limit": 5, "after": after}).json()
        seen += [row["document"][:12] for row in page["items"]]
        after = page["next"]
    chosen = client.get(
        "/tables/contracts/rows", params={"has.governing_law": "england", "from.annual_fee": 4_000}
    ).json()["items"]
    checks = client.get("/tables/contracts/rows", params={"trust": "check"}).json()["items"]
    unknown = client.get("/tables/contracts/rows", params={"has.colour": "x"})
    job, document = chosen[0]["job_id"], chosen[0]["document_id"]
    quotes = client.get(f"/jobs/{job}/quotes", params={"limit": 2}).json()
    rest = client.get(f"/jobs/{job}/quotes", params={"after": quotes["next"]}).json()
    text = client.get(f"/documents/{document}/text", params={"after": 10, "limit": 5}).json()
    answer = client.post("/ask", json={"question": "count contracts by governing_law"}).json()

    assert {column["name"] for column in table["definitions"]} >= {"parties", "annual_fee"}
    assert seen == [f"contract-{number:03}" for number in range(12)]
    assert {row["governing_law"] for row in chosen} == {"England and Wales"}
    assert [row["needs_check"] for row in checks] == [1, 1]
    assert (unknown.status_code, unknown.json()["type"]) == (400, "urn:chordwise:usage")
    quoted_items = [quote["item"] for quote in (*quotes["items"], *rest["items"])]
    assert len(quoted_items) == len(set(quoted_items)) + 1  # two parties
    assert (text["start_char"], len(text["text"]), text["next"]) == (10, 5, 15)
    assert sum(row["documents"] for row in answer["rows"]) == 12
    assert len(client.get("/tables/contracts").json()["columns"]) == 5


def test_decisions_are_signed_by_the_token_and_undone(
    client: httpx.Client, pipeline: Pipeline
) -> None:
    cells = client.get("/cells", params={"table": "contracts", "limit": 1}).json()
    more = client.get("/cells", params={"table": "contracts", "after": cells["next"]}).json()
    (cell,) = cells["items"]
    about = {name: cell[name] for name in ("job_id", "result_id", "path")}
    right = {**about, "verdict": "corrected", "value": "US$ 9"}
    decided, again = (client.post("/decisions", json=right) for _ in range(2))
    decision = decided.json()["decision_id"]
    undone, twice = (client.delete(f"/decisions/{decision}") for _ in range(2))

    assert len(more["items"]) == 1
    assert more["next"] is None
    assert again.json() == {"decision_id": None}
    assert undone.json() == {"job_id": about["job_id"], "path": about["path"]}
    assert twice.status_code == 404
    remarks = "SELECT verdict, author FROM feedback ORDER BY created_at"
    assert pipeline.rows(remarks) == [("corrected", "tester"), ("withdrawn", "tester")]


def test_tokens_are_shown_once_and_stored_as_hashes(
    settings: Settings,
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    point_to(settings, monkeypatch)

    assert run(["tokens", "create", "reports", "--scope", "decide", "--scope", "read"]) == 0
    token = capsys.readouterr().out.strip()
    assert run(["tokens", "create", "reports"]) == ExitCode.USAGE
    capsys.readouterr()
    assert run(["tokens", "list", "--json"]) == 0
    listed = capsys.readouterr().out

    assert '"decide read"' in listed
    assert token not in listed
    stored = hashlib.sha256(token.encode()).hexdigest()
    assert pipeline.value("SELECT token_hash FROM api_tokens WHERE name = 'reports'") == stored
    assert run(["tokens", "revoke", "reports"]) == 0
    assert run(["tokens", "revoke", "reports"]) == ExitCode.USAGE
