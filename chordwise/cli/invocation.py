"""What every command is told: where the settings and the data are, and how much to say."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from chordwise.errors import InternalError

if TYPE_CHECKING:
    from chordwise.cli.rendering.screen import Screen
    from chordwise.settings import Settings


@dataclass(kw_only=True)
class Invocation:
    """The options that stand before every command; filled in once they are parsed."""

    config: Path | None = None
    home: Path | None = None
    is_verbose: bool = False
    is_debug: bool = False

    @classmethod
    def of(cls, context: typer.Context) -> Invocation:
        """Return the invocation that a command belongs to.

        Raises:
            InternalError: The application was called without one.
        """
        found: object = context.obj
        if not isinstance(found, cls):
            raise InternalError("The command was called without an invocation.")
        return found

    @cached_property
    def screen(self) -> Screen:
        """What the command writes to."""
        from chordwise.cli.rendering.screen import Screen  # noqa: PLC0415 - `version` has no layout

        return Screen()

    def settings(self, **flags: object) -> Settings:
        """Read the settings, with the flags of the command on top.

        Raises:
            ConfigurationError: A file is missing or broken, or a value is wrong.
        """
        from chordwise.settings import load  # noqa: PLC0415 - pydantic costs what `version` has not
        from chordwise.telemetry.logging import configure  # noqa: PLC0415 - as above

        loaded = load(self.config, home=self.home, **flags)
        configure(loaded.logging, "command")
        level = logging.INFO if self.is_verbose else logging.WARNING
        logging.getLogger().setLevel(logging.DEBUG if self.is_debug else level)
        return loaded

    def find_home(self) -> Path:
        """Return where the data is, even where other settings are wrong.

        Raises:
            ConfigurationError: The file that is asked for is missing.
        """
        from chordwise.settings import find_home  # noqa: PLC0415 - as above

        return find_home(self.config, self.home)
