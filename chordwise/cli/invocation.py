"""The global options of a command line, with its settings and its screen."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chordwise.pipeline.runtime.context import Occurrence
    from chordwise.rendering.screen import Screen
    from chordwise.settings import Settings


@dataclass(kw_only=True)
class Invocation:
    """The global options, filled in when they are parsed.

    `loaded` and `occurrence` are set for the command of a schedule: the settings of the scheduler,
    and the due time. With `parsed`, a command is not run; its arguments are stored there.
    """

    config: Path | None = None
    home: Path | None = None
    is_verbose: bool = False
    is_debug: bool = False
    loaded: Settings | None = None
    occurrence: Occurrence | None = None
    parsed: dict[str, object] | None = None

    @cached_property
    def screen(self) -> Screen:
        """The output of the command."""
        from chordwise.rendering.screen import Screen  # noqa: PLC0415 - slow to import

        return Screen()

    def settings(self, **flags: object) -> Settings:
        """Read the settings; `flags` override every other source.

        Raises:
            ConfigurationError: A file is missing or broken, or a value is wrong.
        """
        if self.loaded is not None:
            return self.loaded.model_copy(update=flags)
        from chordwise.settings import load  # noqa: PLC0415 - slow to import
        from chordwise.telemetry.logging import configure  # noqa: PLC0415 - as above

        loaded = load(self.config, home=self.home, **flags)
        configure(loaded.logging, "command")
        level = logging.INFO if self.is_verbose else logging.WARNING
        logging.getLogger().setLevel(logging.DEBUG if self.is_debug else level)
        return loaded
