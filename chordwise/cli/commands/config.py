"""Operation: Show every setting and its source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import SecretStr
from pydantic_settings import EnvSettingsSource

from chordwise.cli import scheduled
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain import addresses, json_values
from chordwise.domain.json_values import JsonValue
from chordwise.rendering.plain_text import one_line
from chordwise.settings import Settings, secret_values
from chordwise.settings.environment import missing_key_finding

_COMMENT_COLUMN = 50


class SettingSource(StrEnum):
    """The sources of values, in order of precedence."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    SECRET = "secret"  # noqa: S105 - not a secret
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSetting:
    """One setting. `section` is empty at the top level; `value` contains no secret."""

    section: str
    name: str
    value: JsonValue
    origin: SettingSource


def config(invocation: Invocation, *, as_json: AsJson = False) -> None:
    """Show every setting and its source. Secrets are hidden.

    chordwise config

    chordwise --config other.toml config --json
    """
    settings, screen = invocation.settings(), invocation.screen
    scheduled.check_all(settings)
    file = type(settings).toml_file
    sources = {
        SettingSource.FLAG: {} if invocation.home is None else {"home": str(invocation.home)},
        SettingSource.ENVIRONMENT: EnvSettingsSource(Settings)(),
        SettingSource.SECRET: secret_values(),
        SettingSource.FILE: type(settings).toml_values,
    }
    rows = list(entries(settings, sources))
    notes = list(missing_keys(settings))
    if as_json:
        screen.write_json(file=str(file) if file else None, settings=rows, notes=notes)
        return
    screen.write(f"# {f'Settings file: {file}' if file else 'No chordwise.toml found'}\n")
    for line in toml_lines(rows):
        screen.write(f"{line}\n")
    for note in notes:
        screen.write(f"\n# {one_line(note)}\n")


def entries(
    settings: Settings, sources: Mapping[SettingSource, Mapping[str, object]]
) -> Iterator[ShownSetting]:
    """Yield every setting, the top level before the sections.

    The sources are in the order of precedence; a value that none of them has is a default.
    """
    # A path of one step is at the top level.
    leaves = sorted(_leaves(settings.model_dump()), key=lambda leaf: len(leaf[0]) > 1)
    for path, value in leaves:
        origins = (origin for origin, source in sources.items() if _has(source, path))
        yield ShownSetting(
            section=".".join(path[:-1]),
            name=path[-1],
            value=_without_secrets(path[-1], value),
            origin=next(origins, SettingSource.DEFAULT),
        )


def missing_keys(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each configured model that has no key."""
    for name in settings.models:
        if keyless := missing_key_finding(settings, name):
            yield f"models.{name}: {keyless[0]}. {keyless[1]}"


def toml_lines(rows: list[ShownSetting]) -> Iterator[str]:
    """Yield the entries in the format of `chordwise.toml`, with their sources."""
    section = ""
    for entry in rows:
        if entry.section != section:
            section = entry.section
            yield ""
            yield f"[{section}]"
        # Strings, numbers, booleans and lists are the same in JSON and TOML.
        line = f"{entry.name} = {json.dumps(entry.value, ensure_ascii=False)}"
        if entry.value is None:
            line = f"# {entry.name} is not set"
        yield f"{one_line(line):<{_COMMENT_COLUMN}} # {entry.origin}"


def _leaves(
    value: Mapping[str, object], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, member in value.items():
        if isinstance(member, Mapping) and (member or path):
            yield from _leaves(member, (*path, name))
        elif not isinstance(member, Mapping):
            yield (*path, name), member


def _has(source: Mapping[str, object], path: tuple[str, ...]) -> bool:
    node: object = source
    for step in path:
        if not isinstance(node, Mapping) or step not in node:
            return False
        node = node[step]
    return True


def _without_secrets(name: str, value: object) -> JsonValue:
    """Return a value without secrets; the path of a webhook and any query are secret."""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        if "://" not in secret:
            return addresses.HIDDEN if secret else ""
        return addresses.redacted(secret, hide_path=name == "url")
    if name == "base_url" and isinstance(value, str):
        return addresses.redacted(value)
    return json_values.as_json(value)
