"""What commands and processes import before they begin: most of their start is that."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMAND = "from chordwise.cli import application; application.run([{!r}])"
LIBRARIES = {"pydantic", "sqlalchemy", "psycopg", "celery", "kombu", "redis", "rich", "structlog"}
WEB = {"starlette", "uvicorn", "jinja2", "itsdangerous", "multipart"}
RARE = {
    *WEB,
    *("alembic", "xlsxwriter", "pyarrow", "lxml", "pypdfium2", "olefile", "genai_prices"),
    *("sklearn", "numpy"),
}


def imported_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has imported after some code."""
    then = "import sys; sys.stderr.write(chr(10).join(['@', *sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{then}"], capture_output=True, text=True, check=True
    )
    return set(done.stderr.rpartition("@\n")[2].splitlines())


@pytest.mark.parametrize("argument", ["--help", "version"])
def test_the_lightest_commands_import_no_large_library(argument: str) -> None:
    """The parser of the command line is all that they need."""
    modules = imported_by(COMMAND.format(argument))

    assert not modules & (LIBRARIES | RARE)
    assert len(modules) <= 300


@pytest.mark.parametrize("module", ["runs", "results"])
def test_commands_that_look_import_what_they_look_with(module: str) -> None:
    """No broker, no provider, no reader and no migration; and of the tables those they show."""
    modules = imported_by(f"import chordwise.cli.{module}")

    assert not modules & {"celery", "kombu", "redis", "httpx", *RARE}
    assert not {"chordwise.llm", "chordwise.readers", "chordwise.storage.tables"} & modules
    assert len(modules) <= 850


@pytest.mark.parametrize("module", ["services", "web", "submit"])
def test_only_serving_imports_the_libraries_of_the_pages(module: str) -> None:
    """`up` starts a process for them, and `web --link` reads a file."""
    assert not imported_by(f"import chordwise.cli.{module}") & WEB


@pytest.mark.parametrize("process", ["worker", "scheduler"])
def test_processes_import_no_library_that_they_may_never_need(process: str) -> None:
    """Formats of exports and files, migrations and price lists are imported where they are used."""
    modules = imported_by(f"import {process}.process")

    assert not modules & RARE
    assert len(modules) <= 1_600
