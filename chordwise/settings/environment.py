"""Environment variables outside the settings, which only this package reads."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from chordwise.domain import addresses
from chordwise.settings.service_addresses import host_of

if TYPE_CHECKING:
    from chordwise.settings import Settings

PREFIX = "CHORDWISE_"
CONFIG_VARIABLE = "CHORDWISE_CONFIG"
SUPERVISOR_PIPE_VARIABLE = "CHORDWISE_SUPERVISOR_PIPE"
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# The Compose file reads these; they may be set in the same shell.
_OF_COMPOSE = ("FOLDERS", "LOCK", "SECRETS", "SETTINGS")
_NO_SETTINGS = {CONFIG_VARIABLE, SUPERVISOR_PIPE_VARIABLE, *(PREFIX + name for name in _OF_COMPOSE)}
# Kubernetes sets these for a service named `chordwise…`.
_OF_KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)\w*)?$")


def unknown_variables(settings: Collection[str]) -> list[str]:
    """Return the variables with our prefix that are not settings."""
    return sorted(
        name
        for name in os.environ  # noqa: TID251 - the one reader of the environment
        if name.upper().startswith(PREFIX)
        and name.upper() not in _NO_SETTINGS
        and not _OF_KUBERNETES.search(name)
        and name[len(PREFIX) :].partition("__")[0].lower() not in settings
    )


def variable(name: str) -> SecretStr:
    """Return the key in a variable that the user chose; empty if it is not set."""
    return SecretStr(os.environ.get(name, ""))  # noqa: TID251 - the one reader of the environment


def config_path() -> Path | None:
    """Return the settings file named in the environment, if any."""
    value = os.environ.get(CONFIG_VARIABLE)  # noqa: TID251 - the one reader of the environment
    return Path(value) if value else None


def supervisor_pipe() -> int | None:
    """Return the descriptor that reaches end of file when the supervisor exits, if any."""
    value = os.environ.get(SUPERVISOR_PIPE_VARIABLE, "")  # noqa: TID251 - the one reader of it
    return int(value) if value.isdecimal() else None


def metrics_folder() -> Path | None:
    """Return the folder in which this process and its children count for metrics, if any."""
    value = os.environ.get(_METRICS_VARIABLE)  # noqa: TID251 - the one reader of the environment
    return Path(value) if value else None


def set_metrics_folder(folder: Path) -> None:
    """Set the folder of `metrics_folder`, which children inherit."""
    os.environ[_METRICS_VARIABLE] = str(folder)  # noqa: TID251 - as above


def child_environment(home: Path, config: Path | None = None) -> dict[str, str]:
    """Return the environment for a child process with the same settings."""
    environment = dict(os.environ)  # noqa: TID251 - the one reader of the environment
    environment["CHORDWISE_HOME"] = str(home)
    if config is not None:
        environment[CONFIG_VARIABLE] = str(config.resolve())
    return environment


_NO_NAME = re.compile(r"[^A-Z0-9]+")


def missing_key_finding(settings: Settings, name: str) -> tuple[str, str] | None:
    """Return a finding and a hint if a model with a `base_url` is used without a key.

    Raises:
        ConfigurationError: The model is unknown.
    """
    model = settings.model_named(name)
    if not model.base_url or addresses.has_user(model.base_url):
        return None
    if settings.api_key_for(model).get_secret_value():
        return None
    what = f"no key is sent to {addresses.redacted(model.base_url)} (no Authorization header)"
    if model.api_key_env:
        return what, f"Set the variable {model.api_key_env}, which api_key_env names."
    variable = f"{_NO_NAME.sub('_', name.upper()).strip('_0123456789')}_API_KEY"
    hint = f'If the server needs one, set api_key_env = "{variable}" in [models.{name}].'
    host = host_of(model.provider)
    note = f" {model.provider.upper()}_API_KEY is sent only to {host}." if host else ""
    return what, hint + note
