"""Tests of log lines: their format, and no secrets in them."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterator
from typing import Literal, TypeAlias

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from chordwise.settings import LoggingSettings
from chordwise.telemetry.logging import configure, configure_library, without_secrets

Format: TypeAlias = Literal["json", "console", "auto"]
PLANTED = "s3cr3tP4ssword"
DATABASE = f"postgresql://chordwise:{PLANTED}@database.example:5432/chordwise"
BROKER = f"redis://:{PLANTED}@broker.example:6379/0"
KEY = f"sk-proj-{PLANTED}"
PROMPT = "text of a document"
HEADER = f"Bearer {PLANTED}{PLANTED}"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


EVERY_FORMAT = pytest.mark.parametrize("written_as", ["json", "console", "auto"])


def a_log(written_as: Format) -> structlog.stdlib.BoundLogger:
    configure(LoggingSettings(format=written_as, level="DEBUG"), "worker")
    logger: structlog.stdlib.BoundLogger = structlog.get_logger("test")
    return logger


def fail(secret: str) -> None:
    raise ValueError(f"cannot connect to {secret}")


@EVERY_FORMAT
@pytest.mark.parametrize("secret", [DATABASE, BROKER, KEY, HEADER])
def test_no_secret_is_logged(
    secret: str, written_as: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    log = a_log(written_as)
    error = ValueError(secret)

    sentence = f"connecting to {secret}"
    log.info(sentence)
    log.info("connecting", url=secret, nested={"urls": [secret]}, error=error)
    log.info("connecting to %s", secret)
    with structlog.contextvars.bound_contextvars(address=secret):
        log.warning("bound")
    try:
        fail(secret)
    except ValueError:
        log.exception("failed")
        logging.getLogger("foreign").exception("failed %r", {"url": secret})

    written = capsys.readouterr().err
    assert "connecting" in written
    assert "Traceback" in written
    assert PLANTED not in written


@EVERY_FORMAT
@pytest.mark.parametrize("name", ["password", "api_key", "client_secret", "Authorization"])
def test_values_named_like_secrets_are_hidden(
    name: str, written_as: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    a_log(written_as).info("event", **{name: "plainword"}, input_tokens=12345)

    written = capsys.readouterr().err
    assert "plainword" not in written
    assert "12345" in written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BROKER, "redis://:…@broker.example:6379/0"),
        ("postgresql://u:p@ss@host/db", "postgresql://u:…@host/db"),
        ("GET https://token@host/v1 failed", "GET https://…@host/v1 failed"),
        ("https://host/v1?code=abc&x=1 failed", "https://host/v1?… failed"),
        ("postgresql://user@host/db", None),
        ("see https://example.com:8080/a and mail a@b.example", None),
        ("https://example.com/a:b@c", None),
        ("the desk-top-computer-system", None),
        (f"key-{'x' * 20}", "key-…"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic …"),
        ("a basic question", None),
    ],
)
def test_only_secrets_are_hidden(text: str, expected: str | None) -> None:
    """Addresses remain readable, because users search logs for them."""
    assert without_secrets(text) == (text if expected is None else expected)


@given(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=30))
def test_every_password_in_a_url_is_hidden(password: str) -> None:
    hidden = without_secrets(f"connecting to redis://user:{password}@host:6379/0 now")

    assert hidden == "connecting to redis://user:…@host:6379/0 now"


def test_a_json_line_names_process_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    """Lower levels and verbose libraries are silent."""
    configure(LoggingSettings(format="json", level="INFO"), "scheduler")

    structlog.get_logger("test").debug("quiet")
    logging.getLogger("httpx").info("POST https://provider.example/")
    logging.getLogger("watchfiles.main").info("10 changes detected")
    structlog.get_logger("test").info("started", count=3, text="zwei\nZeilen")
    logging.getLogger("some.library").warning("look: %s", "here")

    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["count"], ours["text"]) == ("started", 3, "zwei\nZeilen")
    assert {ours["process"], theirs["process"]} == {"scheduler"}
    assert (theirs["event"], theirs["level"]) == ("look: here", "warning")
    assert ours["timestamp"].endswith("Z")


@EVERY_FORMAT
def test_log_lines_are_printable(written_as: Format, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters may be in the event, a value or its name, a list or an error.

    A line end in a document's text does not begin a new line of the log.
    """
    hostile = "a\x1b]0;b\x07c\x9b2Jd\u202ee"
    log = a_log(written_as)

    log.warning(hostile, value=hostile, nested=[hostile], error=ValueError(hostile), **{hostile: 1})
    log.info("chunk.failed", what="cleared\n2026 [info] forged")
    try:
        fail(hostile)
    except ValueError:
        log.exception("failed")
        logging.getLogger("foreign").exception("of %s", hostile)

    written = capsys.readouterr().err
    assert "\\x1b]0;b" in written or "\\u001b]0;b" in written
    assert "\n2026 [info] forged" not in written
    assert [c for c in written if unicodedata.category(c) in {"Cc", "Cf"} and c != "\n"] == []


def test_expected_errors_of_libraries_have_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LoggingSettings(format="json"), "worker", expected=(ConnectionError,))
    for logger in (logging.getLogger("kombu"), structlog.get_logger("ours")):
        for error in (ConnectionResetError("no answer"), ValueError("no answer")):
            logger.error("failed", exc_info=error)

    expected, *others = map(json.loads, capsys.readouterr().err.splitlines())

    assert expected["error"] == "ConnectionResetError: no answer"
    assert "exception" not in expected
    assert len(others) == 3
    assert all("no answer" in line["exception"] for line in others)


def test_the_logs_of_the_library_go_to_standard_loggers_without_secrets(
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They have no local variables, which may be prompts and texts of documents."""
    # Without the handlers of earlier tests, whose streams are closed.
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    configure_library()
    log = structlog.get_logger("chordwise.pipeline")

    def ask(prompt: str) -> None:
        raise ValueError(f"{len(prompt)} characters, {KEY}")

    try:
        ask(PROMPT)
    except ValueError:
        log.exception("chunk.defect", api_key=PLANTED)

    assert caplog.records[0].name == "chordwise.pipeline"
    assert "chunk.defect" in caplog.text
    assert "18 characters" in caplog.text
    assert PROMPT not in caplog.text
    assert PLANTED not in caplog.text
    assert capsys.readouterr() == ("", "")


def test_the_library_keeps_the_programs_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()])

    configure_library()
    structlog.get_logger("chordwise").warning("known")

    assert json.loads(capsys.readouterr().out) == {"event": "known"}
