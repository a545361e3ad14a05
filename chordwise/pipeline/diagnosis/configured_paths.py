"""Checks of profiles, inboxes and deliveries."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from chordwise.domain.inbox import MARK
from chordwise.errors import ConfigurationError, DeliveryError, UsageError
from chordwise.pipeline.deliveries import delivery_attempts
from chordwise.pipeline.deliveries.webhook import allowed_addresses
from chordwise.pipeline.diagnosis.outcome import Check, guarded, warning
from chordwise.pipeline.exports import writers
from chordwise.pipeline.inbox.folders import Inbox, inboxes_of
from chordwise.pipeline.intake.run_options import run_options
from chordwise.settings import Settings

_HTTPS_PORT, _HTTP_PORT = 443, 80


def check_configured_paths(settings: Settings) -> Iterator[Check]:
    """Yield the checks of the configured profiles, inboxes and deliveries."""
    for name in settings.profiles:
        yield guarded(f"profile {name}", partial(_profile, settings, name))
    if settings.inbox.folders:
        yield guarded("inbox", lambda: _inbox(settings))
    if settings.delivery.webhook_url.get_secret_value():
        yield guarded("webhook", lambda: _webhook(settings))
    if settings.delivery.folder is not None:
        yield guarded("delivery", lambda: _delivery(settings))


def require_writable(folder: Path, setting: str) -> None:
    """Check that this process can create files in a folder.

    Raises:
        ConfigurationError: It cannot.
    """
    if not folder.is_dir():
        what = f"{setting}: the folder {folder} does not exist."
        raise ConfigurationError(what, "Create or mount it on the machine of the scheduler.")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigurationError(
            f"{setting}: {folder} cannot be written to by user {os.geteuid()}.",
            f"Make it writable for the scheduler's user, such as: chown {os.geteuid()} {folder}",
        )


def _profile(settings: Settings, name: str) -> Check:
    profile = settings.profiles[name]
    try:
        options = run_options(settings, profile)
    except UsageError as error:
        raise ConfigurationError(error.what, error.hint) from error
    for model in settings.selected_names(options.model):
        settings.model_named(model)
    asked = ", ".join(options.types)
    return Check(name=f"profile {name}", finding=f"asks {options.model} for {asked}")


def _inbox(settings: Settings) -> Check:
    """Check that files can be moved out of each inbox."""
    found = inboxes_of(settings).inboxes
    for each in found:
        _require_movable(each)
    folders = ", ".join(str(each.folder) for each in found)
    if not settings.inbox.is_watched:
        return Check(name="inbox", finding=f"{folders}, not watched (inbox.enabled = false)")
    for each in found:
        if (reason := _creation_error(each.folder)) is not None:
            finding = f"{each.folder} cannot be created: {reason}"
            return warning("inbox", finding, "Create it, or change inbox.folders.")
    how = "polled" if settings.inbox.polling else "watched"
    return Check(name="inbox", finding=f"{how}: {folders}")


def _require_movable(inbox: Inbox) -> None:
    for folder in (inbox.folder, inbox.done, inbox.failed):
        # The scheduler creates missing folders.
        require_writable(_nearest(folder), "inbox.folders")
    if inbox.folder.exists() and not os.access(inbox.folder, os.R_OK, effective_ids=True):
        what = f"inbox.folders: {inbox.folder} cannot be listed by user {os.geteuid()}."
        raise ConfigurationError(
            what,
            f"Make it readable for the user of the scheduler, such as: chmod u+r {inbox.folder}",
        )


def _creation_error(folder: Path) -> str | None:
    """Return why a missing folder cannot be created, by trying; permissions alone do not tell."""
    if folder.exists():
        return None
    try:
        Path(tempfile.mkdtemp(prefix=MARK, dir=_nearest(folder))).rmdir()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _nearest(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _webhook(settings: Settings) -> Check:
    """Resolve the address of the webhook, without a request."""
    url = urlsplit(settings.delivery.webhook_url.get_secret_value())
    host = url.hostname or ""
    port = url.port or (_HTTPS_PORT if url.scheme == "https" else _HTTP_PORT)
    try:
        allow_private = settings.delivery.allow_private_addresses
        addresses = allowed_addresses(host, port, allow_private=allow_private)
    except DeliveryError as error:
        raise ConfigurationError(error.what, error.hint) from error
    return Check(
        name="webhook",
        finding=f"{host} resolves to {addresses[0]}, which is allowed; requests are signed",
    )


def _delivery(settings: Settings) -> Check:
    folder = delivery_attempts.folder_of(settings)
    require_writable(folder, "delivery.folder")
    writers.require(settings.delivery.format)
    return Check(name="delivery", finding=f"{settings.delivery.format} files in {folder}")
