"""Structured logs on standard error, without secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping

import structlog

from chordwise.domain.visible_text import visible
from chordwise.settings import LoggingSettings

_URL_PASSWORD = re.compile(r"""(\b\w++://[^:/@\s]*+):[^/\s"'<>]+@""")
# The user in a web address may be a token.
_URL_USER = re.compile(r"""(\bhttps?://)[^/\s"'<>@]+@""")
_URL_QUERY = re.compile(r"""(\b\w++://[^\s"'<>?]++)\?[^\s"'<>]+""")
_KEY = re.compile(r"\b(sk|key|pk)-[A-Za-z0-9_-]{8,}")
_BEARER = re.compile(
    r"\b(bearer|authorization\W{1,4}basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE
)
_SECRET_NAME = re.compile(r"(password|secret|api_?key|authorization)$", re.IGNORECASE)
_HIDDEN = "…"
_QUIET = (
    *("httpx", "httpcore", "urllib3", "alembic", "watchfiles"),
    *("celery.worker.strategy", "celery.app.trace"),
)

Event = MutableMapping[str, object]


def configure(
    settings: LoggingSettings, process: str, expected: tuple[type[Exception], ...] = ()
) -> None:
    """Route structlog and the standard library's loggers to standard error in one format.

    A library's log of an `expected` error, such as an unavailable broker, contains no traceback.
    """
    structlog.configure(
        processors=[*_shared(process), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_without_tracebacks(expected), *_shared(process)],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                _redacting(_renderer(settings)),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def configure_library() -> None:
    """Send the logs of a program that uses the library to the standard library's loggers.

    They contain no secrets and no local variables. A program that has configured structlog keeps
    its configuration.
    """
    if structlog.is_configured():
        return
    render = _redacting(structlog.processors.KeyValueRenderer(key_order=["event"]))

    def finish(
        logger: object, method: str, event: Event
    ) -> tuple[tuple[str, ...], dict[str, bool]]:
        return (str(render(logger, method, event)),), {"exc_info": False}  # it is in the line

    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_shared("library"), redact, finish],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def redact(logger: object, method: str, event: Event) -> Event:  # noqa: ARG001 - structlog's signature
    """Hide the values of keys that are named like a secret."""
    for name in event:
        if _SECRET_NAME.search(name):
            event[name] = _HIDDEN
    return event


def without_secrets(text: str) -> str:
    """Return a text without keys, tokens, passwords, users in web URLs, and URL queries."""
    hidden = _URL_USER.sub(rf"\1{_HIDDEN}@", _URL_PASSWORD.sub(rf"\1:{_HIDDEN}@", text))
    hidden = _KEY.sub(rf"\1-{_HIDDEN}", _URL_QUERY.sub(rf"\1?{_HIDDEN}", hidden))
    return _BEARER.sub(rf"\1 {_HIDDEN}", hidden)


def _redacting(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """Remove secrets from the rendered line, which may contain them in a list or a traceback."""

    def clean(logger: object, method: str, event: Event) -> str:
        return without_secrets(str(render(logger, method, event)))

    return clean


def _without_tracebacks(expected: tuple[type[Exception], ...]) -> structlog.typing.Processor:
    """Replace the traceback of an expected error by its message."""

    def shorten(logger: object, method: str, event: Event) -> Event:  # noqa: ARG001
        raised = event.get("exc_info")
        if isinstance(raised, tuple) and isinstance(error := raised[1], expected):
            event["error"] = f"{type(error).__name__}: {error}"
            del event["exc_info"]
        return event

    return shorten


def _shared(process: str) -> list[structlog.typing.Processor]:
    def name_process(logger: object, method: str, event: Event) -> Event:  # noqa: ARG001
        event.setdefault("process", process)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        name_process,
    ]


def _renderer(settings: LoggingSettings) -> structlog.typing.Processor:
    """Return a renderer whose lines contain no control characters except its own colors.

    Values may contain file names and text of documents. `repr` escapes values that are not strings.
    """
    on_terminal = settings.format == "auto" and sys.stderr.isatty()
    if settings.format == "json":
        in_json = structlog.processors.JSONRenderer(ensure_ascii=False)
        return lambda logger, method, event: visible(str(in_json(logger, method, event)))
    console = structlog.dev.ConsoleRenderer(colors=on_terminal)
    return lambda logger, method, event: console(
        logger, method, {visible(name): _visible(value) for name, value in event.items()}
    )


def _visible(value: object) -> object:
    return visible(value) if isinstance(value, str) else value
