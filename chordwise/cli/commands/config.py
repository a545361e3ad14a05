"""Operation: Show every setting and its source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pydantic import SecretStr
from pydantic_settings import EnvSettingsSource

from chordwise.cli import scheduled
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain import addresses, json_values
from chordwise.relations.relation import Row
from chordwise.rendering.plain_text import one_line
from chordwise.settings import Settings, secret_values
from chordwise.settings.environment import missing_key_finding

_COMMENT_COLUMN = 50


def config(invocation: Invocation, *, as_json: AsJson = False) -> None:
    """Show every setting and its source. Secrets are hidden.

    chordwise config

    chordwise --config other.toml config --json
    """
    settings, screen = invocation.settings(), invocation.screen
    scheduled.check_all(settings)
    file = type(settings).toml_file
    sources: dict[str, Mapping[str, object]] = {  # in the order of precedence
        "flag": {} if invocation.home is None else {"home": str(invocation.home)},
        "environment": EnvSettingsSource(Settings)(),
        "secret": secret_values(),
        "file": type(settings).toml_values,
    }
    rows: list[Row] = []
    # A path of one step is at the top level, which precedes the sections.
    for path, value in sorted(_leaves(settings.model_dump()), key=lambda leaf: len(leaf[0]) > 1):
        origins = (origin for origin, source in sources.items() if _has(source, path))
        setting = {"section": ".".join(path[:-1]), "name": path[-1]}
        shown = _without_secrets(path[-1], value)
        rows.append({**setting, "value": shown, "origin": next(origins, "default")})
    notes = [
        f"models.{name}: {keyless[0]}. {keyless[1]}"
        for name in settings.models
        if (keyless := missing_key_finding(settings, name))
    ]
    notes += scheduled.warnings(settings)
    if as_json:
        screen.write_json(file=str(file) if file else None, settings=rows, notes=notes)
        return
    screen.write(f"# {f'Settings file: {file}' if file else 'No chordwise.toml found'}\n")
    section = ""
    for row in rows:
        if row["section"] != section:
            section = row["section"]
            screen.write(f"\n[{section}]\n")
        # Strings, numbers, booleans and lists are the same in JSON and TOML.
        line = f"{row['name']} = {json.dumps(row['value'], ensure_ascii=False)}"
        if row["value"] is None:
            line = f"# {row['name']} is not set"
        screen.write(f"{one_line(line):<{_COMMENT_COLUMN}} # {row['origin']}\n")
    for note in notes:
        screen.write(f"\n# {one_line(note)}\n")


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


def _without_secrets(name: str, value: object) -> json_values.JsonValue:
    """Return a value without secrets; the path of a webhook and any query are secret."""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        if "://" not in secret:
            return addresses.HIDDEN if secret else ""
        return addresses.redacted(secret, hide_path=name == "url")
    if name == "base_url" and isinstance(value, str):
        return addresses.redacted(value)
    return json_values.as_json(value)
