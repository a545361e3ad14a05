"""Looking at the places that work comes from and goes to: inboxes, profiles, deliveries."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from chordwise.domain.inbox_names import MARK
from chordwise.errors import ConfigurationError, DeliveryError, UsageError
from chordwise.pipeline.deliveries import run_ends
from chordwise.pipeline.deliveries.webhook import allowed_addresses
from chordwise.pipeline.diagnosis.checks import Check, guarded, warning
from chordwise.pipeline.exports import writers
from chordwise.pipeline.inbox.folders import Place, places
from chordwise.pipeline.intake.run_options import run_options
from chordwise.settings import Settings

_HTTPS_PORT, _HTTP_PORT = 443, 80


def look_at_places(settings: Settings) -> Iterator[Check]:
    """Yield what there is to say of profiles, inboxes and deliveries that are configured."""
    for name in settings.profiles:
        yield guarded(f"profile {name}", partial(_profile, settings, name))
    if settings.inbox.folders:
        yield guarded("inbox", lambda: _inbox(settings))
    if settings.delivery.webhook_url.get_secret_value():
        yield guarded("webhook", lambda: _webhook(settings))
    if settings.delivery.folder is not None:
        yield guarded("delivery", lambda: _delivery(settings))


def require_writable(folder: Path, setting: str) -> None:
    """Make sure that this process can put files into a folder.

    Raises:
        ConfigurationError: It cannot.
    """
    if not folder.is_dir():
        what = f"{setting}: there is no folder {folder}."
        raise ConfigurationError(what, "Make it, or mount it, where the scheduler runs.")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigurationError(
            f"{setting}: {folder} cannot be written to by user {os.geteuid()}.",
            f"chown {os.geteuid()} {folder}, or chmod; the scheduler's user counts.",
        )


def _profile(settings: Settings, name: str) -> Check:
    profile = settings.profiles[name]
    try:
        options = run_options(settings, profile)
    except UsageError as error:
        raise ConfigurationError(error.what, error.hint) from error
    for model in settings.names_asked(options.model):
        settings.model_named(model)
    asked = ", ".join(options.types)
    return Check(name=f"profile {name}", finding=f"asks {options.model} for {asked}")


def _inbox(settings: Settings) -> Check:
    """See that files can be taken out of each inbox, and be put beside it."""
    found = places(settings).inboxes
    for each in found:
        _require_movable(each)
    folders = ", ".join(str(each.folder) for each in found)
    if not settings.inbox.is_watched:
        return Check(name="inbox", finding=f"{folders}, not watched (inbox.enabled = false)")
    for each in found:
        if (reason := _unmakeable(each.folder)) is not None:
            finding = f"{each.folder} cannot be made: {reason}"
            return warning("inbox", finding, "Make it, or name another folder in inbox.folders.")
    how = "polled" if settings.inbox.polling else "watched"
    return Check(name="inbox", finding=f"{how}: {folders}")


def _require_movable(place: Place) -> None:
    for folder in (place.folder, place.done, place.failed):
        # The scheduler makes what is missing, as far down as it may.
        require_writable(_nearest(folder), "inbox.folders")
    if place.folder.exists() and not os.access(place.folder, os.R_OK, effective_ids=True):
        what = f"inbox.folders: {place.folder} cannot be listed by user {os.geteuid()}."
        raise ConfigurationError(what, f"chmod u+r {place.folder}; the scheduler's user counts.")


def _unmakeable(folder: Path) -> str | None:
    """Return why a missing folder cannot be made; permissions do not tell, as those of /proc."""
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
    """See where the address leads, without a request; it is signed, or would not be accepted."""
    url = urlsplit(settings.delivery.webhook_url.get_secret_value())
    host = url.hostname or ""
    port = url.port or (_HTTPS_PORT if url.scheme == "https" else _HTTP_PORT)
    try:
        allow_private = settings.delivery.allow_private_addresses
        addresses = allowed_addresses(host, port, allow_private=allow_private)
    except DeliveryError as error:
        raise ConfigurationError(error.what, error.hint) from error
    return Check(name="webhook", finding=f"{host} is at {addresses[0]}, and may be told; signed")


def _delivery(settings: Settings) -> Check:
    folder = run_ends.folder_of(settings)
    require_writable(folder, "delivery.folder")
    writers.require(settings.delivery.format)
    return Check(name="delivery", finding=f"{settings.delivery.format} into {folder}")
