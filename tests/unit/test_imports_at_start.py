"""Tests of the imports of commands and processes, which take most of their start-up time."""

from __future__ import annotations

import subprocess
import sys

LIBRARIES = {"pydantic", "sqlalchemy", "psycopg", "celery", "kombu", "redis", "rich", "structlog"}
WEB = {"starlette", "uvicorn", "jinja2", "itsdangerous", "multipart"}
RARE = {
    *WEB,
    *("alembic", "xlsxwriter", "pyarrow", "lxml", "pypdfium2", "olefile", "genai_prices"),
    *("sklearn", "numpy", "prometheus_client"),
}


def imported_by(code: str) -> set[str]:
    then = "import sys; sys.stderr.write(chr(10).join(['@', *sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{then}"], capture_output=True, text=True, check=True
    )
    return set(done.stderr.rpartition("@\n")[2].splitlines())


def test_the_smallest_commands_import_no_large_library() -> None:
    commands = "application.run(['--help']); application.run(['version'])"
    modules = imported_by(f"from chordwise.cli import application; {commands}")

    assert not modules & (LIBRARIES | RARE)
    assert len(modules) <= 300


def test_read_only_commands_import_only_what_they_need() -> None:
    modules = imported_by("from chordwise.cli.commands import results, runs, sql")

    assert not modules & {"sqlalchemy", "celery", "kombu", "redis", "httpx", *RARE}
    assert not {"chordwise.llm", "chordwise.readers", "chordwise.storage.metadata"} & modules
    assert len(modules) <= 850


def test_the_library_imports_neither_database_nor_broker() -> None:
    modules = imported_by("from chordwise import DocumentAnalyzer; DocumentAnalyzer()")

    assert not modules & {"sqlalchemy", "psycopg", "celery", "kombu", "redis", *RARE}


def test_the_process_that_parses_files_imports_no_settings() -> None:
    """A new one starts for every two thousand files and after each failure."""
    modules = imported_by("import chordwise.readers.parser_main")

    assert not {"pydantic", "chordwise.settings"} & modules


def test_only_the_web_server_imports_the_web_libraries() -> None:
    """`up` starts a process for the pages, and `web --link` reads a file."""
    assert not imported_by("from chordwise.cli.commands import analyze, up, web") & WEB


def test_processes_import_rarely_used_libraries_lazily() -> None:
    modules = imported_by("import worker.process, scheduler.process")

    assert not modules & RARE
    assert len(modules) <= 1_600
