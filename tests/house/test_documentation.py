"""Tests that the documentation matches the code: links, commands, codes, states and times."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from chordwise import errors
from chordwise.cli.application import SHORT_FORMS, application, modules
from chordwise.domain.analysis_tasks import AnalysisType, Stage
from chordwise.domain.states import (
    ChunkStatus,
    IntakeOutcome,
    JobStatus,
    RunStatus,
    ScheduleRunStatus,
)
from chordwise.errors import ChordwiseError, ExitCode, ModelError
from chordwise.pipeline.recovery import recover
from chordwise.settings import Settings
from tests.house.checkout import ROOT

PAGES = tuple(sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]))
FENCE = re.compile(r"(?ms)^```(?P<language>\w*)\n(?P<content>.*?)^```$")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
NUMBER = re.compile(r"^(?:#+ )?\d+\. ")
TWO_SENTENCES = re.compile(r"[a-z0-9)`”*][.!?] [A-Z`“*]")


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def prose_of(page: Path) -> str:
    """Return a page without its blocks of code."""
    return FENCE.sub("", page.read_text("utf-8"))


def code_of(page: Path) -> Iterator[str]:
    """Yield the code of a page, from its text and from blocks for a shell."""
    text = page.read_text("utf-8")
    yield from (block["content"] for block in FENCE.finditer(text) if block["language"] == "sh")
    yield from re.findall(r"`([^`\n]+)`", prose_of(page))


def anchors_of(page: Path) -> set[str]:
    """Return the names under which the headings of a page can be linked."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose_of(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def local_links() -> Iterator[tuple[Path, str]]:
    """Yield every link between files with the page that contains it."""
    for page in PAGES:
        for target in LINK.findall(prose_of(page)):
            if not target.startswith(("https://", "http://")):
                yield page, target


def first_cells(table: str) -> list[str]:
    """Return the first cell of each row of a table below its heading, without its backticks."""
    cells = re.findall(r"(?m)^\| `?([^|`,]+)[^|]* \|", table)
    return [cell.strip() for cell in cells[1:]]


def section(text: str, heading: str) -> str:
    """Return the text below a heading, up to the next heading of its level or a higher one."""
    level = heading.split(" ", 1)[0]
    (content,) = re.findall(
        rf"(?ms)^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", f"{text}\n"
    )
    return str(content)


def test_links_between_files_resolve() -> None:
    broken = []
    for page, target in local_links():
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(f"{page.relative_to(ROOT)}: {target}")

    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    links: dict[Path, set[Path]] = {page: set() for page in PAGES}
    for page, target in local_links():
        links[page].add((page.parent / target.partition("#")[0]).resolve())
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]

    while waiting:
        page = waiting.pop()
        if page in links and page not in reached:
            reached.add(page)
            waiting += links[page]

    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in reached] == []


def test_files_named_in_the_code_exist() -> None:
    sources = [
        *(ROOT / "chordwise").rglob("*.py"),
        *ROOT.glob("*.yml"),
        *ROOT.glob("*/__main__.py"),
    ]
    files = {
        name
        for file in sources
        for name in re.findall(r"\bdocs/[\w/-]+\.md", file.read_text("utf-8"))
    }

    assert files
    assert [name for name in sorted(files) if not (ROOT / name).is_file()] == []


def test_prose_has_one_sentence_per_line() -> None:
    """A changed sentence is one changed line; cells of tables are exempt."""
    lines = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in PAGES
        for line in prose_of(page).splitlines()
        if not line.startswith("|") and TWO_SENTENCES.search(NUMBER.sub("", line))
    ]

    assert lines == []


def test_decisions_are_numbered_and_have_three_parts() -> None:
    """Each page has context, decision and consequences."""
    pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))

    numbers = [int(page.name[:4]) for page in pages]
    headings = [re.findall(r"(?m)^## (.+)$", page.read_text("utf-8")) for page in pages]

    assert numbers == list(range(1, len(pages) + 1))
    assert headings == [["Context", "Decision", "Consequences"]] * len(pages)
    titles = [page.read_text("utf-8").splitlines()[0].removeprefix("# ") for page in pages]
    index = text_of("docs/decisions/README.md")
    linked = [f"[{title}]({page.name})" for title, page in zip(titles, pages, strict=True)]
    assert [link for link in linked if link not in index] == []


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):.*?## ", text_of("Makefile")))

    documented = {
        target
        for page in PAGES
        for code in code_of(page)
        for target in re.findall(r"(?m)^make ([a-z-]+)", code)
    }

    assert {"demo", "test", "check"} <= documented
    assert documented <= targets


def test_commands_in_the_documents_exist() -> None:
    documented = {
        command
        for page in PAGES
        for code in code_of(page)
        for command in re.findall(r"(?:^|[|&;(]\s*|\n)chordwise ([a-z][a-z-]*)", code)
    }

    assert {"analyze", "sql"} <= documented
    assert documented <= {*modules(), *SHORT_FORMS}


@pytest.mark.parametrize("name", list(modules()))
def test_every_command_is_described_with_every_option(name: str) -> None:
    described = section(text_of("docs/command-line.md"), f"### `chordwise {name}`")
    command = typer.main.get_command(application([name]))
    subcommand = getattr(command, "commands", {}).get(name, command)

    options = [
        option
        for parameter in subcommand.params
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    ]

    assert [option for option in options if not re.search(rf"`{option}[` ]", described)] == []
    assert f"`chordwise {name}" in text_of("README.md")


def test_every_member_of_the_json_of_commands_is_described() -> None:
    described = section(text_of("docs/command-line.md"), "## JSON and CSV")
    members = {
        keyword.arg
        for source in (ROOT / "chordwise" / "cli").rglob("*.py")
        for call in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("write_json")
        for keyword in call.keywords
        if keyword.arg
    }

    assert {"batches", "tables"} <= members
    assert sorted(name for name in members if f"`{name}`" not in described) == []


def test_every_exit_code_is_described() -> None:
    table = section(text_of("docs/command-line.md"), "## Exit codes")

    rows = re.findall(r"(?m)^\| (\d+) \| (\w+) \|", table)

    assert rows == [(str(code.value), code.name.lower()) for code in ExitCode]


@pytest.mark.parametrize(
    "states", [IntakeOutcome, RunStatus, JobStatus, ChunkStatus, ScheduleRunStatus]
)
def test_every_state_is_explained(states: type[StrEnum]) -> None:
    """The glossary has a table with exactly the values of each column."""
    tables = re.findall(r"(?m)(?:^\|.*\n)+", text_of("docs/glossary.md"))

    explained = [first_cells(table) for table in tables]

    assert [state.value for state in states] in explained


def test_the_glossary_explains_each_word_once() -> None:
    """Each word is explained once; types and stages are named."""
    text = text_of("docs/glossary.md")
    (table,) = re.findall(r"(?m)^\| word \| meaning \|\n(?:\|.*\n)+", text)

    words = first_cells(table)

    assert len(words) == len(set(words))
    assert {"document", "chunk", "job", "run", "result", "grounded", "quarantined"} <= set(words)
    assert all(value in text for value in (*AnalysisType, *Stage))


def every_code() -> set[str]:
    """Return the stable codes of all error classes that are not mixins."""
    classes = [class_ for _, class_ in inspect.getmembers(errors, inspect.isclass)]
    mixins = (errors.TransientError, errors.PausingError)
    return {
        class_.code
        for class_ in classes
        if issubclass(class_, ChordwiseError) and class_ not in mixins
    }


def test_every_code_of_an_error_is_explained() -> None:
    described = section(text_of("docs/operations.md"), "## Codes of errors")

    assert [code for code in sorted(every_code()) if f"`{code}`" not in described] == []


def test_every_model_error_is_listed_with_its_usual_hint() -> None:
    """The table of failures has exactly the codes and hints of the classes."""
    classes = inspect.getmembers(errors, inspect.isclass)
    kinds = [
        class_
        for _, class_ in classes
        if issubclass(class_, ModelError) and class_ is not ModelError
    ]
    rows = re.findall(
        r"^\| [^|]+ \| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text_of("docs/models.md"), re.MULTILINE
    )

    assert dict(rows) == {kind.code: kind.usual_hint for kind in kinds}


def test_every_rule_of_recovery_is_explained() -> None:
    """The table has exactly the rules of the code."""
    described = section(text_of("docs/operations.md"), "## What each recovery does")

    names = [*(reason for reason, _ in recover.RULES), "no_message"]

    assert first_cells(described) == names


def test_documented_times_are_the_defaults() -> None:
    described = section(text_of("docs/operations.md"), "## Times")
    rows = re.findall(r"(?m)^\| `(\w+)\.(\w+)` \| ([\d.]+) \|", described)

    for name, field, value in rows:
        kind = Settings.model_fields[name].annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        assert (field, float(value)) == (field, kind.model_fields[field].default)
    assert len(rows) > 10


def test_every_table_and_view_of_readers_is_named_in_the_cookbook() -> None:
    """The first migration defines which tables readers may read."""
    text = text_of("docs/sql-cookbook.md")
    views = {file.stem.partition("@")[0] for file in (ROOT / "migrations/views").glob("*.sql")}
    first = text_of("migrations/versions/0001.py")
    (granted,) = re.findall(r"(?ms)^READABLE_TABLES = \((.*?)^\)", first)

    names = views | set(re.findall(r'"(\w+)"', granted))

    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
