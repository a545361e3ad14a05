"""Checks of profiles, inboxes and deliveries."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from chordwise.domain.inbox import MARK
from chordwise.errors import ConfigurationError, UsageError
from chordwise.pipeline.diagnosis.outcome import Check, guarded, warning
from chordwise.pipeline.inbox.folders import Inbox, inboxes_of
from chordwise.pipeline.intake.run_options import run_options
from chordwise.settings import Settings
from chordwise.settings.locations import require_writable
from chordwise.settings.receivers import Receiver


def check_configured_paths(settings: Settings) -> Iterator[Check]:
    """Yield the checks of the configured profiles, inboxes and deliveries."""
    for name in settings.profiles:
        yield guarded(f"profile {name}", partial(_profile, settings, name))
    if settings.inbox.folders:
        yield guarded("inbox", lambda: _inbox(settings))
    for kind, receiver in settings.deliveries.items():
        yield guarded(kind, partial(_receiver, settings, kind, receiver))


def _profile(settings: Settings, name: str) -> Check:
    profile = settings.profiles[name]
    try:
        options = run_options(settings, profile)
    except UsageError as error:
        raise ConfigurationError(error.what, error.hint) from error
    for model in settings.selected_names(options.model):
        settings.model_named(model)
    types = ", ".join(options.types)
    return Check(name=f"profile {name}", finding=f"asks {options.model} for {types}")


def _receiver(settings: Settings, kind: str, receiver: Receiver) -> Check:
    return Check(name=kind, finding=receiver.check(settings))


def _inbox(settings: Settings) -> Check:
    """Check that files can be moved out of each inbox."""
    inboxes = inboxes_of(settings).inboxes
    for inbox in inboxes:
        _require_movable(inbox)
    folders = ", ".join(str(inbox.folder) for inbox in inboxes)
    if not settings.inbox.is_watched:
        return Check(name="inbox", finding=f"{folders}, not watched (inbox.enabled = false)")
    for inbox in inboxes:
        if (reason := _creation_error(inbox.folder)) is not None:
            finding = f"{inbox.folder} cannot be created: {reason}"
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
    return next(path for path in (folder, *folder.parents) if path.exists())
