"""Tests of people: roles, profiles that are closed to some, and the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.errors import RaiseException
from pydantic import SecretStr

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.people import Right, Role
from chordwise.pipeline.runs import tool_access
from chordwise.settings import Profile, Settings
from chordwise.storage import api_tokens, closed_profiles, pruning
from chordwise.web.access_control import hash_password
from chordwise.web.server import Served
from tests.fakes.commands import point_to, run
from tests.fakes.pipeline import Pipeline, a_document, a_pipeline, a_run, with_settings
from tests.web.conftest import serving
from tests.web.test_access import csrf_in, same_origin
from tests.web.test_tables import ITEMS, a_contract, reading

PASSPHRASE = "correct horse battery"  # noqa: S105 - of this test
SECRET = "Liechtenstein"  # noqa: S105 - the law of a contract
HEADER = "X-User"
ROLES = {
    "ada": Role.OPERATOR,
    "ben": Role.REVIEWER,
    "eve": Role.READER,
    "hugo": Role.READER,
    "program": Role.OPERATOR,
}


def closing(settings: Settings) -> Settings:
    """Return settings with a proxy, a password, roles, and a profile that is closed to `eve`."""
    profiles = {"open": Profile(), "closed": Profile(readers=("hugo", "ben"))}
    return with_settings(
        settings.model_copy(update={"profiles": profiles}),
        "web",
        password_hash=SecretStr(hash_password(PASSPHRASE)),
        trusted_user_header=HEADER,
        trusted_proxies=(IPv4Network("127.0.0.1"),),
        roles=ROLES,
    )


def fill(settings: Settings) -> None:
    """Store an answer of each profile."""
    pipeline = a_pipeline(closing(settings), reading, repeat_last=True)
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(instructions=ITEMS))
    for number, name in enumerate(("open", "closed")):
        text = a_contract(number)
        if name == "closed":
            law = text.partition("governing law: ")[2].partition("\n")[0]
            text = text.replace(law, SECRET)
        pipeline.analyze(
            a_document(text, f"/files/{name}-{SECRET if name == 'closed' else ''}.txt"),
            options=replace(options, save_as=f"{name}_deals", profile=name, name=f"run of {name}"),
        )


@pytest.fixture
def filled_by(request: pytest.FixtureRequest) -> Callable[[Settings], object] | None:
    return fill if "pipeline" in request.fixturenames else None


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(closing(settings), reading, repeat_last=True)


@pytest.fixture
def served(pipeline: Pipeline) -> Iterator[Served]:
    with serving(pipeline.context.settings) as server:
        yield server


@contextmanager
def client_of(served: Served, headers: Mapping[str, str]) -> Iterator[httpx.Client]:
    base = served.link.partition("/?")[0]
    with httpx.Client(base_url=base, headers=headers, follow_redirects=True, timeout=60) as client:
        yield client


@pytest.fixture
def visiting_as(served: Served) -> Iterator[Callable[[str], httpx.Client]]:
    """Return clients of users whom the proxy names."""
    clients: list[httpx.Client] = []

    def client(name: str) -> httpx.Client:
        base = served.link.partition("/?")[0]
        clients.append(httpx.Client(base_url=base, headers={HEADER: name}, timeout=60))
        return clients[-1]

    yield client
    for opened in clients:
        opened.close()


_IDS = """
SELECT run.name, j.id, j.document_id, run.id, r.id
FROM jobs AS j INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN results AS r ON r.job_id = j.id
"""


def ids(pipeline: Pipeline, name: str) -> dict[str, str]:
    (row,) = (row for row in pipeline.rows(_IDS) if row[0] == f"run of {name}")
    return dict(zip(("job", "document", "run", "result"), map(str, row[1:]), strict=True))


def pages(known: Mapping[str, str]) -> list[str]:
    """Return the addresses of pages and parts that show a profile's answers or names."""
    return [
        "/runs",
        f"/runs/{known['run']}",
        f"/runs/{known['run']}/progress",
        "/tables",
        "/tables/closed_deals",
        "/tables/closed_deals/rows",
        "/tables/closed_deals/totals",
        "/tables/closed_deals/columns/governing_law",
        f"/tables/closed_deals/cell?document={known['document']}&column=governing_law",
        "/tables/closed_deals/workbook",
        "/results",
        f"/results?words={SECRET.lower()}",
        "/results/export.csv",
        f"/documents/{known['document']}",
        f"/documents/{known['document']}?view=text",
        f"/jobs/{known['job']}/steps",
        f"/jobs/{known['job']}/parts/0",
        "/review",
        f"/review?job={known['job']}&path=/data/0",
        "/inbox",
        "/insight",
        "/insight/report",
        "/schedules",
    ]


STATEMENTS = [
    "SELECT text FROM documents",
    "SELECT * FROM facts",
    "SELECT * FROM fact_quotes",
    "SELECT output::text FROM results",
    "SELECT source FROM intakes",
    "SELECT * FROM document_results",
    "SELECT * FROM answers.closed_deals",
    "SELECT * FROM answers.closed_deals_evidence",
    "SELECT answer::text FROM chunks",
    "SELECT * FROM model_calls",
    "SELECT name, options::text FROM runs",
    "SELECT run, outcome::text FROM schedule_runs",
    "SELECT run FROM schedules",
    "SELECT * FROM run_accounts",
    "SELECT * FROM answer_tables",
    "SELECT most_common_vals::text FROM pg_stats WHERE tablename IN ('facts', 'intakes')",
    "SELECT source FROM documents",
    "SELECT run FROM model_calls",
    "SELECT content::text FROM deliveries",
    "EXPLAIN ANALYZE SELECT FROM facts WHERE final_value >= 'Liechtensteim'",
    # An expression that fails on a hidden row must not be evaluated on it.
    "SELECT count(*) FROM facts WHERE final_value::uuid IS NULL",
    "SELECT 1 / (SELECT count(*) FROM documents WHERE text LIKE '%Liechtenstein%')",
    "SELECT count(*) FROM answers.closed_deals WHERE governing_law::uuid IS NULL",
    "SELECT set_config('chordwise.key', key, false) FROM reader_keys",
    "SELECT * FROM reader_keys, closed_profiles",
]


def test_a_closed_profile_is_on_no_page_of_others(
    pipeline: Pipeline, visiting_as: Callable[[str], httpx.Client]
) -> None:
    known = ids(pipeline, "closed")

    shown = {
        name: [path for path in pages(known) if shows(visiting_as(name).get(path))]
        for name in ("eve", "hugo", "ben", "ada")
    }

    assert shown["eve"] == []
    assert len(shown["hugo"]) > 12
    assert shown["hugo"] == shown["ben"] == shown["ada"]
    assert "run of open" in visiting_as("eve").get("/runs").text
    assert visiting_as("mallory").get("/runs").status_code == 403


def shows(answer: httpx.Response) -> bool:
    content = answer.content
    if content.startswith(b"PK"):  # a workbook
        return answer.status_code == 200 and len(content) > 0
    return SECRET.encode() in content or b"run of closed" in content


_ENTITIES = """
INSERT INTO entity_values (column_name, value, id, entity_id, joins, joined_by, entity)
SELECT name || '_deals.parties', 'A', gen_random_uuid(), gen_random_uuid(), '', '', 'A'
FROM unnest(ARRAY['open', 'closed']) AS name
"""
# Half of their rows belongs to each of the two profiles.
SHARED = """
    documents jobs intakes chunks results facts model_calls answer_tables entity_values
    document_results answer_jobs document_coverage fact_quotes run_accounts run_costs
"""


def test_a_reader_sees_an_open_profile_beside_a_closed_one(
    pipeline: Pipeline, served: Served, visiting_as: Callable[[str], httpx.Client]
) -> None:
    """On each page, by the API and in SQL."""
    pipeline.execute(_ENTITIES)
    known = ids(pipeline, "open")
    addresses = [
        path.replace("closed", "open")
        for path in pages(known)
        if "path=" not in path and "words=" not in path
    ]
    answered = {
        name: {path: visiting_as(name).get(path).status_code for path in addresses}
        for name in ("eve", "hugo")
    }
    tables = visiting_as("eve").get("/tables").text
    with pipeline.context.database.write() as session:
        token = api_tokens.create(session, "eve", list(Right))
    with client_of(served, {"Authorization": f"Bearer {token}"}) as client:
        rows = client.get("/api/v1/tables/open_deals/rows")
        question = {"question": "count open_deals by governing_law", "table": "open_deals"}
        answer = client.post("/api/v1/ask", json=question)
    url = pipeline.context.settings.require_database_url()
    counts = {reader: rows_seen(url, reader) for reader in ("hugo", "eve")}

    assert answered["eve"] == answered["hugo"] == dict.fromkeys(addresses, 200)
    assert "open_deals" in tables
    assert (rows.status_code, answer.status_code) == (200, 200)
    assert {name: 2 * count for name, count in counts["eve"].items()} == counts["hugo"]
    assert 0 not in counts["eve"].values()


def rows_seen(url: SecretStr, reader: str) -> dict[str, int]:
    """Return how many rows of each shared table a reader's login sees."""
    login = tool_access.create_login(url, reader)
    address = make_conninfo(url.get_secret_value(), user=login.role, password=login.password)
    try:
        with psycopg.connect(address) as session:
            return {
                name: len(session.execute(f"SELECT FROM {name}".encode()).fetchall())
                for name in SHARED.split()
            }
    finally:
        tool_access.remove_login(url, login)


_SCHEDULE = """
WITH added AS (
    INSERT INTO schedules (
        id, name, origin, cron, time_zone, run, folder, catch_up, expires_after_hours
    )
    VALUES (gen_random_uuid(), 'nightly', 'file', '0 6 * * *', 'UTC',
        'refresh closed --note Liechtenstein', '/', 'once', 24)
    RETURNING id, run
)
INSERT INTO schedule_runs (
    id, schedule_id, schedule, run, due_at, trigger, status, outcome, expires_at
)
SELECT gen_random_uuid(), id, 'nightly', run, now(), 'due', 'succeeded',
    '{"run": "run of closed"}', now()
FROM added
"""


def test_a_closed_profile_is_in_no_answer_to_sql(
    pipeline: Pipeline, visiting_as: Callable[[str], httpx.Client]
) -> None:
    """By the page, and by a login that another program uses."""
    pipeline.execute(_SCHEDULE)
    eve, ada = visiting_as("eve"), visiting_as("ada")
    csrf = {client: csrf_in(client.get("/sql").text) for client in (eve, ada)}
    for statement in STATEMENTS:
        sent = eve.post(
            "/sql/csv", data={"csrf": csrf[eve], "sql": statement}, headers=same_origin(eve)
        )
        without_query = sent.text.replace("%Liechtenstein%", "")
        assert SECRET not in without_query, statement
        assert "run of closed" not in without_query, statement
    everything = ada.post(
        "/sql/csv", data={"csrf": csrf[ada], "sql": STATEMENTS[0]}, headers=same_origin(ada)
    )
    assert SECRET in everything.text

    url = pipeline.context.settings.require_database_url()
    seen = {reader: counted(url, reader) for reader in ("", "hugo", "eve")}
    assert seen == {"": (2, 2), "hugo": (2, 2), "eve": (1, 1)}


ATTACKS = (
    "SET row_security = off",
    "SET ROLE chordwise_reader",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET chordwise.key = 'guessed'",
    "SET chordwise.key = ''",
    "CREATE TEMPORARY TABLE closed_profiles (profile text, readers text[])",
    "ALTER TABLE documents DISABLE ROW LEVEL SECURITY",
    "ALTER VIEW document_results RESET (security_invoker)",
)


def counted(url: SecretStr, reader: str) -> tuple[int, int]:
    """Return how many documents a login of a reader sees, and the most that it sees by a trick."""
    others = tool_access.create_login(url)
    login = tool_access.create_login(url, reader)
    address = make_conninfo(url.get_secret_value(), user=login.role, password=login.password)
    try:
        seen = []
        for attack in ("SELECT 1", *ATTACKS):
            with psycopg.connect(address, autocommit=True) as session:
                with suppress(psycopg.Error):
                    session.execute(attack.encode())
                with suppress(psycopg.Error):
                    seen.append(len(session.execute("SELECT text FROM documents").fetchall()))
                settings = str(
                    session.execute("SELECT rolname, rolconfig FROM pg_roles").fetchall()
                )
                assert "chordwise.key" not in settings
        return seen[0], max(seen)
    finally:
        for opened in (login, others):
            tool_access.remove_login(url, opened)


def test_a_closed_profile_is_in_no_answer_of_the_api(pipeline: Pipeline, served: Served) -> None:
    known, headers = ids(pipeline, "closed"), {}
    with pipeline.context.database.write() as session:
        for name in ("eve", "hugo"):
            token = api_tokens.create(session, name, list(Right))
            headers[name] = {"Authorization": f"Bearer {token}"}
    gets = [
        "/runs",
        f"/runs/{known['run']}",
        "/tables/closed_deals/rows",
        f"/jobs/{known['job']}/quotes",
        f"/documents/{known['document']}/text",
    ]
    shown: dict[str, list[str]] = {}
    for name, header in headers.items():
        with client_of(served, header) as client:
            shown[name] = [path for path in gets if shows(client.get(f"/api/v1{path}"))]
            question = {"question": "count closed_deals by governing_law", "table": "closed_deals"}
            answer = client.post("/api/v1/ask", json=question)
            assert shows(answer) == (name == "hugo"), answer.text
            listed = [table["name"] for table in client.get("/api/v1/tables").json()["items"]]
            assert ("closed_deals" in listed) == (name == "hugo")
            assert client.post(f"/api/v1/runs/{known['run']}/cancel").status_code == 403

    assert shown["eve"] == []
    assert len(shown["hugo"]) == len(gets)


def test_a_program_submits_to_a_profile_whose_answers_it_may_not_read(settings: Settings) -> None:
    """Without roles; a repeated submission returns the same run."""
    profiles = {"closed": Profile(readers=("hugo",))}
    pipeline = a_pipeline(settings.model_copy(update={"profiles": profiles}), reading)
    with pipeline.context.database.write() as session:
        token = api_tokens.create(session, "intake", [Right.READ, Right.SUBMIT])
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "one"}
    with serving(pipeline.context.settings) as served, client_of(served, headers) as client:
        sent = [
            client.post(
                "/api/v1/runs",
                data={"profile": "closed"},
                files={"files": ("letter.txt", b"A letter")},
            )
            for _ in range(2)
        ]
        run_id = sent[0].json()["id"]
        seen = client.get(f"/api/v1/runs/{run_id}").status_code

    assert [answer.json()["id"] for answer in sent] == [run_id, run_id]
    assert seen == 404


def test_roles_limit_what_users_change(
    pipeline: Pipeline, visiting_as: Callable[[str], httpx.Client]
) -> None:
    """A reader decides nothing, a reviewer starts nothing, and not about what is closed to them."""
    of_open, of_closed = ids(pipeline, "open"), ids(pipeline, "closed")
    outcomes = {}
    for name in ("eve", "ben", "ada"):
        client = visiting_as(name)
        page = client.get("/runs")
        csrf = csrf_in(page.text)
        assert ('action="/runs"' in page.text) == (name == "ada")
        for kind, (path, values) in {
            "decide": ("/review/decisions", {"job": of_open["job"], "result": of_open["result"]}),
            "closed": (
                "/review/decisions",
                {"job": of_closed["job"], "result": of_closed["result"]},
            ),
            "cancel": (f"/runs/{of_open['run']}/cancel", {}),
            "sql": ("/sql", {"sql": "SELECT 1"}),
        }.items():
            sent = {"csrf": csrf, "verdict": "approved", **values}
            answer = client.post(path, data=sent, headers=same_origin(client))
            outcomes[name, kind] = answer.status_code

    assert {key: code for key, code in outcomes.items() if code == 403} == {
        ("eve", "decide"): 403,
        ("eve", "closed"): 403,
        ("eve", "cancel"): 403,
        ("ben", "cancel"): 403,
    }
    authors = pipeline.rows("SELECT DISTINCT author FROM feedback ORDER BY author")
    assert authors == [("ada",), ("ben",)]


def test_a_decision_about_a_closed_profile_is_refused(settings: Settings) -> None:
    """Also for a reviewer, by the page and by the API."""
    profiles = {"closed": Profile(readers=()), "open": Profile()}
    changed = closing(settings).model_copy(update={"profiles": profiles})
    pipeline = a_pipeline(changed, reading, repeat_last=True)
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(instructions=ITEMS))
    pipeline.analyze(
        a_document(a_contract(1), "/files/closed.txt"),
        options=replace(options, profile="closed", name="run of closed"),
    )
    known = ids(pipeline, "closed")
    with pipeline.context.database.write() as session:
        token = api_tokens.create(session, "ben", list(Right))
    with serving(changed) as served, client_of(served, {HEADER: "ben"}) as client:
        sent = {"csrf": csrf_in(client.get("/runs").text), "verdict": "approved"}
        sent |= {"job": known["job"], "result": known["result"]}
        of_page = client.post("/review/decisions", data=sent, headers=same_origin(client))
        decision = {"job_id": known["job"], "result_id": known["result"], "verdict": "approved"}
        header = {"Authorization": f"Bearer {token}"}
        of_api = client.post("/api/v1/decisions", json=decision, headers=header)

    assert (of_page.status_code, of_api.status_code) == (400, 404)
    assert pipeline.value("SELECT count(*) FROM feedback") == 0


def test_a_token_signs_in_by_name_and_a_typed_name_opens_nothing(pipeline: Pipeline) -> None:
    known = ids(pipeline, "closed")
    with pipeline.context.database.write() as session:
        token = api_tokens.create(session, "hugo", [Right.READ])
        others = {**pipeline.context.settings.web.roles, "*": Role.READER}
    settings = with_settings(pipeline.context.settings, "web", roles=others)
    with serving(settings) as again:
        seen = {
            word: signed_in(again, "hugo", word, f"/documents/{known['document']}")
            for word in (token, PASSPHRASE, "wrong")
        }
    assert list(seen.values()) == [200, 404, 403]
    log = pipeline.rows("SELECT actor, action FROM audit_log ORDER BY occurred_at")
    assert log == [("hugo", "signed in"), ("hugo", "signed in"), ("hugo", "was refused")]


def signed_in(served: Served, name: str, password: str, path: str) -> int:
    """Sign in; return the status of a page, or of the sign-in if it is refused."""
    with client_of(served, {}) as client:
        csrf = csrf_in(client.get("/login").text)
        form = {"csrf": csrf, "name": name, "password": password}
        answer = client.post("/login", data=form, headers=same_origin(client))
        return client.get(path).status_code if answer.is_success else answer.status_code


def test_the_audit_log_has_exports_decisions_and_tokens(
    pipeline: Pipeline,
    visiting_as: Callable[[str], httpx.Client],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Its rows cannot be changed, not even by the owner of the database."""
    point_to(pipeline.context.settings, monkeypatch)
    assert visiting_as("hugo").get("/tables/closed_deals/workbook").status_code == 200
    assert visiting_as("hugo").get("/results/export.csv").status_code == 200
    for line in (
        ["export", "facts", "--output", str(tmp_path / "facts.csv")],
        ["tokens", "create", "nightly"],
        ["tokens", "revoke", "nightly"],
        ["forget", "closed-Liechtenstein.txt", "--yes"],
    ):
        assert run(line) == 0, line

    url = pipeline.context.settings.require_database_url()
    actions = pipeline.rows("SELECT action, subject FROM audit_log ORDER BY occurred_at")
    assert [action for action, _ in actions] == [
        *("exported", "exported", "exported", "created token", "revoked token", "erased")
    ]
    assert str(actions[0][1]) == "answers.closed_deals"
    for statement in ("DELETE FROM audit_events", "UPDATE audit_events SET actor = ''"):
        with psycopg.connect(url.get_secret_value()) as owner, pytest.raises(RaiseException):
            owner.execute(statement.encode())
    assert len(str(actions[-1][1]).split()) == 2  # the ids of the document and of its text


def test_only_the_pages_and_connections_open_a_profile_again(pipeline: Pipeline) -> None:
    """A profile that these settings do not name stays closed, and a run of an old process too."""
    database = pipeline.context.database
    with database.write() as session:
        closed_profiles.update(session, {"other": ()}, "ada")
        closed_profiles.close_new(session, {"closed": None}, "closed")
        closed_profiles.close_new(session, {"closed": ("eve",)}, "closed")
    assert pipeline.rows("SELECT profile, readers FROM closed_profiles ORDER BY profile") == [
        ("closed", ["ben", "hugo"]),
        ("other", []),
    ]
    with database.write() as session:
        closed_profiles.update(session, {"closed": None, "other": None}, "ada")

    assert pipeline.value("SELECT count(*) FROM closed_profiles") == 0
    secured = "SELECT count(*) FROM pg_class WHERE relrowsecurity"
    assert pipeline.value(secured) == 0  # queries may use all indexes again
    assert pipeline.rows("SELECT actor, action, subject FROM audit_log ORDER BY occurred_at") == [
        ("ada", "closed profile", "other: "),
        ("ada", "opened profile", "closed"),
        ("ada", "opened profile", "other"),
    ]


def test_pruned_runs_of_a_closed_profile_show_nothing(
    pipeline: Pipeline, visiting_as: Callable[[str], httpx.Client]
) -> None:
    database = pipeline.context.database
    pipeline.execute("UPDATE runs SET finished_at = now() - interval '2 days'")
    pipeline.execute("UPDATE jobs SET finished_at = now() - interval '2 days'")
    pruned = pruning.prune(database, {"runs": timedelta(days=1)}, database.commit)
    assert pruned["runs"] == 2
    eve = visiting_as("eve")
    csrf = csrf_in(eve.get("/sql").text)
    for statement in ("SELECT * FROM model_calls", "SELECT * FROM answer_tables"):
        sent = {"csrf": csrf, "sql": statement}
        text = eve.post("/sql/csv", data=sent, headers=same_origin(eve)).text
        assert "closed" not in text, statement


def test_without_a_closed_profile_pages_need_no_role_of_readers(settings: Settings) -> None:
    """The questions of an answer are shown to all; a scraper and users see the same figures."""
    changed = closing(settings).model_copy(update={"profiles": {}})
    pipeline = a_pipeline(with_settings(changed, "web", roles={}), reading, repeat_last=True)
    pipeline.analyze(a_document(a_contract(1), "/files/a.txt"), options=a_run())
    job = pipeline.value("SELECT id FROM jobs")
    with serving(pipeline.context.settings) as served, client_of(served, {HEADER: "zoe"}) as client:
        for path in ("/runs", "/results?words=agreement", f"/jobs/{job}/parts/0", "/metrics"):
            assert client.get(path).status_code == 200, path
    assert pipeline.value("SELECT count(*) FROM pg_class WHERE relrowsecurity") == 0


def test_a_revoked_token_ends_its_sessions(pipeline: Pipeline, served: Served) -> None:
    with pipeline.context.database.write() as session:
        token = api_tokens.create(session, "hugo", [Right.READ])
    with client_of(served, {}) as client:
        csrf = csrf_in(client.get("/login").text)
        form = {"csrf": csrf, "name": "ada", "password": token}
        client.post("/login", data=form, headers=same_origin(client))
        before = client.get("/runs").status_code
        with pipeline.context.database.write() as session:
            api_tokens.revoke(session, "hugo")
        after = [client.get("/runs").status_code for _ in range(2)]

    assert (before, after) == (200, [403, 200])  # the second is the page to sign in
    assert pipeline.rows("SELECT actor, action FROM audit_log") == [("hugo", "signed in")]


def test_a_right_password_without_a_role_is_not_called_wrong(served: Served) -> None:
    said = {}
    with client_of(served, {}) as client:
        for password in (PASSPHRASE, "wrong"):
            form = {"csrf": csrf_in(client.get("/login").text), "name": "zoe", "password": password}
            answer = client.post("/login", data=form, headers=same_origin(client))
            said[answer.status_code, password] = "web.roles" in answer.text

    assert said == {(403, PASSPHRASE): True, (403, "wrong"): False}


def test_a_typed_name_reads_no_closed_profile_by_sql(pipeline: Pipeline) -> None:
    roles = {"hugo": Role.READER, "*": Role.READER}
    settings = with_settings(pipeline.context.settings, "web", roles=roles)
    with serving(settings) as served, client_of(served, {}) as client:
        form = {"csrf": csrf_in(client.get("/login").text), "name": "hugo", "password": PASSPHRASE}
        client.post("/login", data=form, headers=same_origin(client))
        sent = {"csrf": csrf_in(client.get("/sql").text), "sql": "SELECT text FROM documents"}
        text = client.post("/sql/csv", data=sent, headers=same_origin(client)).text

    assert text.count("AGREEMENT") == 1
    assert SECRET not in text
