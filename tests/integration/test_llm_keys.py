"""Tests that keys of the environment are sent to their provider only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chordwise import AnalysisRequest, AnalysisType, DocumentAnalyzer
from chordwise.domain.json_values import JsonValue
from chordwise.errors import ChordwiseError, ConfigurationError, ModelAccessError
from chordwise.llm import batching
from chordwise.llm.provider import connect
from chordwise.pipeline.diagnosis.doctor import check_model
from chordwise.settings import load
from tests.fakes.commands import output_of
from tests.fakes.completion_requests import a_request
from tests.peers.faulty_server import Behavior, FaultyServer, answer, faulty_server

SECRET = "sk-planted-in-the-environment"  # noqa: S105 - not a real key
OWN = "gateway-planted-key"
REFUSAL = answer({"error": {"message": "No key.", "code": "invalid_api_key"}}, status=401)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """Return a server that rejects every request and records it."""
    with faulty_server() as server:
        server.play(*[REFUSAL] * 20)
        yield server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty folder, with the keys of both providers in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHORDWISE_HOME", str(tmp_path / "home"))
    for name in ("CHORDWISE_CONFIG", "CHORDWISE_MODEL", "GATEWAY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    return tmp_path


def configured(folder: Path, base_url: str, *lines: str, provider: str = "openai") -> Path:
    file = folder / "chordwise.toml"
    table = [
        "[models.house]",
        f'provider = "{provider}"',
        'model = "m"',
        f'base_url = "{base_url}"',
    ]
    file.write_text("\n".join([*table, *lines, ""]), "utf-8")
    return file


def sent(server: FaultyServer) -> str:
    assert server.received
    return repr(
        [(request.line, dict(request.headers), request.content) for request in server.received]
    )


def ask() -> ChordwiseError:
    request = AnalysisRequest(text="A text.", analysis_type=AnalysisType.SUMMARY)
    with pytest.raises(ChordwiseError) as caught:
        DocumentAnalyzer("house").analyze_document(request)
    return caught.value


@pytest.mark.parametrize("provider", ["openai", "anthropic", "local"])
def test_a_key_of_the_environment_is_sent_to_no_other_address(
    folder: Path, server: FaultyServer, provider: str
) -> None:
    configured(folder, server.base_url, provider=provider)

    error = ask()

    assert SECRET not in sent(server)
    assert "authorization" not in sent(server)
    assert isinstance(error, ModelAccessError)
    assert "No key was sent" in error.hint


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_key_of_the_environment_is_not_sent_to_another_batch_api(
    folder: Path, server: FaultyServer, provider: str
) -> None:
    configured(folder, server.base_url, "batch = true", provider=provider)
    settings = load()
    model = settings.model_named("house")

    with pytest.raises(ChordwiseError):
        batching.connect(model, settings.api_key_for(model)).retrieve("batch_1")

    assert SECRET not in sent(server)
    assert "authorization" not in server.received[-1].headers


def test_native_ollama_gets_no_key_of_the_environment(folder: Path, server: FaultyServer) -> None:
    configured(folder, server.base_url, 'keep_alive = "10m"')
    settings = load()
    model = settings.model_named("house")

    with pytest.raises(ChordwiseError):
        connect(model, settings.api_key_for(model)).complete(a_request())

    assert SECRET not in sent(server)


@pytest.mark.parametrize("line", [f'api_key = "{OWN}"', 'api_key_env = "GATEWAY_API_KEY"'])
def test_a_model_may_have_its_own_key(
    folder: Path, server: FaultyServer, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("GATEWAY_API_KEY", OWN)
    configured(folder, server.base_url, line)

    ask()

    assert server.received[-1].headers["authorization"] == f"Bearer {OWN}"


def test_an_unset_key_variable_is_refused_before_anything_is_sent(
    folder: Path, server: FaultyServer
) -> None:
    """The server would reject a request without the intended key."""
    configured(folder, server.base_url, 'api_key_env = "GATEWAY_API_KEY"')

    error = ask()

    assert isinstance(error, ConfigurationError)
    assert "GATEWAY_API_KEY" in error.what
    assert server.received == []


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AWS_SECRET", "PATH"])
def test_a_settings_file_may_name_only_variables_for_keys(folder: Path, name: str) -> None:
    """Keys of providers are for them only, and other variables are no keys of models."""
    configured(folder, "https://gateway.example/v1", f'api_key_env = "{name}"')

    with pytest.raises(ConfigurationError, match="api_key_env"):
        load()


@pytest.mark.parametrize(
    ("base_url", "is_sent"),
    [
        ("", True),
        ("https://api.openai.com/v1", True),
        ("https://API.openai.com:443/v1/", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com:8443/v1", False),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://api.openai.com@evil.example/v1", False),
        ("https://evil.example/api.openai.com/v1", False),
        ("https://evil.example\\\\@api.openai.com/v1", False),
        ("https://evil.example#@api.openai.com/v1", False),
        ("https://api.anthropic.com/v1", False),
        ("https://openai.com/v1", False),
    ],
)
def test_only_the_exact_address_gets_a_key(folder: Path, base_url: str, *, is_sent: bool) -> None:
    configured(folder, base_url)
    settings = load()

    key = settings.api_key_for(settings.model_named("house")).get_secret_value()

    assert key == (SECRET if is_sent else "")


def test_the_commands_report_that_no_key_is_sent(folder: Path) -> None:
    configured(folder, "https://gateway.example/v1?code=hush")

    shown = output_of("config").out + output_of("config", "--json").out
    check = check_model(load(), "house")

    for said in (shown, f"{check.finding} {check.hint}"):
        assert "no key is sent to https://gateway.example/v1?…" in said
        assert 'api_key_env = "HOUSE_API_KEY"' in said.replace('\\"', '"')
        assert "OPENAI_API_KEY is sent only to api.openai.com" in said
        assert "hush" not in said


def test_user_information_beside_a_key_is_refused(folder: Path, server: FaultyServer) -> None:
    """A request has one Authorization header: the user information would replace the key."""
    address = server.base_url.replace("http://", "http://user:hush@")
    configured(folder, address, f'api_key = "{OWN}"')

    error = ask()

    assert isinstance(error, ConfigurationError)
    assert "hush" not in f"{error.what} {error.hint}"


def test_redirect_errors_hide_the_secrets_of_addresses(folder: Path, server: FaultyServer) -> None:
    """A gateway repeats the query, which may contain the key."""
    location = f"https://user:{OWN}@gateway.example/v1?code={OWN}"
    server.behaviors.clear()
    server.play(answer({}, status=307, headers={"location": location}))
    configured(folder, server.base_url)

    error = ask()

    assert "gateway.example/v1" in error.what
    assert OWN not in f"{error.what} {error.hint}"


def test_a_server_error_hides_secrets_of_the_address(folder: Path, server: FaultyServer) -> None:
    server.behaviors.clear()
    server.play(*[answer({"error": {"message": f"Bad query code={OWN}"}}, status=400)] * 9)
    configured(folder, f"{server.base_url}?code={OWN}")

    error = ask()

    assert f"code={OWN}" in server.received[-1].line
    assert OWN not in f"{error.what} {error.hint}"


CAPITAL = "Gateway-Planted-Key-5D1C"
CODE: JsonValue = {"error": {"message": "No.", "code": CAPITAL, "type": CAPITAL}}
REPEATING: dict[str, Behavior] = {
    "a message": answer({"error": {"message": f"Wrong key {CAPITAL}"}}, status=401),
    "a code": answer(CODE, status=401),
    "a title": answer(f"<html><title>Who is {CAPITAL}?</title>".encode()),
    "a title of an error": answer(f"<html><title>{CAPITAL}</title>".encode(), status=502),
    "a text": answer(f"{'x' * 280} {CAPITAL}".encode(), status=400),
    "a redirect": answer(b"", status=307, headers={"Location": f"/login/{CAPITAL}"}),
    "an id": answer({}, headers={"X-Client-Request-Id": CAPITAL}),
    "a packing": answer(b"x", headers={"Content-Encoding": CAPITAL}),
}


@pytest.mark.parametrize("repeating", REPEATING.values(), ids=REPEATING.keys())
def test_a_repeated_key_is_hidden(folder: Path, server: FaultyServer, repeating: Behavior) -> None:
    configured(folder, server.base_url, f'api_key = "{CAPITAL}"')
    server.play(repeating)
    settings = load()
    model = settings.model_named("house")

    with pytest.raises(ChordwiseError) as caught:
        connect(model, settings.api_key_for(model)).complete(replace(a_request(), call_id="1"))

    said = f"{caught.value.what} {caught.value.hint}".lower()
    assert CAPITAL[:12].lower() not in said
