"""The flags of options, without pydantic: every command loads this module, also `version`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """Marks a value that has a flag, with the help of the flag; the default is `--the-name`."""

    help: str
    metavar: str | None = None
    flags: tuple[str, ...] = ()


MODEL = Option("A [models] name, PROVIDER/MODEL, a tier, or auto.", "NAME")
BUDGET = Option("Maximum cost; the run pauses when it is reached.", "USD", ("--budget",))
RUN_NAME = Option("Name of the run. Default: generated.", "NAME")
