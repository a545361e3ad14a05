"""The names that users rely on: compares `public_names.txt` with the code and a migrated database.

A line is `KIND NAME: WORD …`: a command with its options, a table of settings with its entries, a
relation of readers with its columns and their types, a public class with its members, or an
operation of the REST API with its parameters.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel
from sqlalchemy import Engine, text
from typer.core import TyperGroup

import chordwise
from chordwise.cli.application import SHORT_FORMS, application, modules
from chordwise.errors import ExitCode
from chordwise.settings import Settings
from chordwise.settings.receivers import RECEIVERS
from chordwise.web.operations import OPERATIONS

STORED = Path(__file__).with_name("public_names.txt")
CURRENT = Path("build/public_names.txt").resolve()
RULE = f"""
After 0.1.0 only additions are allowed: what is missing breaks commands, settings, queries or
programs of users, so restore it. Before 0.1.0 it needs a line in CHANGELOG.md.
To accept the changes: cp {CURRENT} {STORED}"""
_COLUMNS = text(
    """
    SELECT c.relname, a.attname, t.typname
    FROM pg_class AS c
    INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    INNER JOIN pg_type AS t ON t.oid = a.atttypid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'p', 'm')
        AND has_column_privilege('chordwise_reader', c.oid, a.attnum, 'SELECT')
    ORDER BY c.relname, a.attnum
    """
)
Names: typing.TypeAlias = dict[str, list[str]]


class Parameter(typing.Protocol):
    """An argument or option of a command."""

    name: str
    opts: list[str]
    secondary_opts: list[str]
    param_type_name: str


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each command and sub-command with its arguments and options."""
    yield "global options", words_of(typer.main.get_command(application(())).params)
    for name in modules():
        group = typer.main.get_command(application([name]))
        assert isinstance(group, TyperGroup)
        command = group.commands[name]
        yield f"command {name}", words_of(command.params)
        for word, part in getattr(command, "commands", {}).items():
            yield f"command {name} {word}", words_of(part.params)
    for name, words in SHORT_FORMS.items():
        yield f"command {name}", list(words)


def words_of(parameters: Sequence[Parameter]) -> list[str]:
    """Return the arguments, and the options with `=…` if they take a value."""
    words = []
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            words.append(f"<{parameter.name}>")
        else:
            value = "" if getattr(parameter, "is_flag", False) else "=…"
            words += [f"{name}{value}" for name in (*parameter.opts, *parameter.secondary_opts)]
    return words


def settings() -> Iterator[tuple[str, list[str]]]:
    """Yield the settings at the top, and those of each table, also of tables with free names."""
    yield "settings", [*Settings.model_fields]
    for name, field in Settings.model_fields.items():
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                suffix = "" if part is field.annotation else ".NAME"
                yield f"settings {name}{suffix}", entries_of(part)
    for kind, receiver in RECEIVERS.items():
        yield f"settings deliveries.{kind}", entries_of(receiver)


def entries_of(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def classes() -> Iterator[tuple[str, list[str]]]:
    """Yield the names of `import chordwise`, with the public members of its classes."""
    for name in chordwise.__all__:
        public = getattr(chordwise, name)
        members = {*getattr(public, "__members__", ())} | {
            member
            for parent in inspect.getmro(public)
            if parent.__module__.startswith("chordwise")
            for member in (*vars(parent), *inspect.get_annotations(parent))
            if not member.startswith("_") and member != "model_config"
        }
        yield f"python {name}", sorted(members)


def operations() -> Iterator[tuple[str, list[str]]]:
    """Yield the operations of the REST API with their parameters."""
    for operation in OPERATIONS.values():
        yield f"api {operation.method} {operation.path}", [*operation.entered.model_fields]


def relations(engine: Engine) -> Iterator[tuple[str, list[str]]]:
    """Yield the tables and views that readers may read, with their columns and types in order."""
    columns: Names = {}
    with engine.connect() as connection:
        for relation, column, kind in connection.execute(_COLUMNS):
            columns.setdefault(f"relation {relation}", []).append(f"{column}:{kind}")
    yield from columns.items()


def parsed(lines: str) -> Names:
    parts = (line.partition(":") for line in lines.splitlines())
    return {name: words.split() for name, _, words in parts}


def changes(stored: Names, current: Names) -> Iterator[str]:
    """Yield a line for each difference, those that break users first."""
    for verb, old, new in (("missing", stored, current), ("added", current, stored)):
        for name, words in old.items():
            if name not in new:
                yield f"{verb}: {name}"
            elif gone := [word for word in words if word not in new[name]]:
                yield f"{verb} in {name}: {' '.join(gone)}"


def test_names_that_users_rely_on_are_kept(engine: Engine) -> None:
    codes = [f"{code.name.lower()}={code.value}" for code in ExitCode]
    current = {
        **dict(commands()),
        "exit codes": codes,
        **dict(settings()),
        **dict(classes()),
        **dict(operations()),
        **dict(relations(engine)),
    }
    CURRENT.parent.mkdir(exist_ok=True)
    CURRENT.write_text(
        "".join(f"{name}: {' '.join(words)}".strip() + "\n" for name, words in current.items()),
        "utf-8",
    )

    differences = [*changes(parsed(STORED.read_text("utf-8")), current)]

    assert not differences, "\n".join([*differences, RULE])


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        ("a: x y\nb: z", []),
        ("a: x", ["missing in a: y", "missing: b"]),
        ("a: y x v\nb: z\nc:", ["added in a: v", "added: c"]),
    ],
)
def test_a_change_is_named(current: str, expected: list[str]) -> None:
    assert [*changes(parsed("a: x y\nb: z"), parsed(current))] == expected
