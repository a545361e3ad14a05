"""What is asked of one file: its profile, and what its side-car says instead."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from chordwise.domain.inbox_names import is_inside
from chordwise.errors import UsageError
from chordwise.pipeline import budgets
from chordwise.pipeline.context import Context
from chordwise.pipeline.profiles import run_options
from chordwise.settings import ProfileSettings, Settings

_MOST_BYTES = 256 * 1024


def profile_named(settings: Settings, name: str) -> ProfileSettings:
    """Return a profile; the defaults for an empty name, and for one that is gone."""
    return settings.profiles.get(name, ProfileSettings())


def with_side_car(profile: ProfileSettings, side_car: Path) -> ProfileSettings:
    """Return the profile with the entries of a side-car in place of its own.

    Raises:
        UsageError: It is no TOML, has entries that a profile has not, or asks for what it must not.
    """
    given = _entries(side_car)
    if "folder" in given:
        raise UsageError("The side-car names a folder.", "A folder is for [profiles] only.")
    own = profile.model_dump(exclude_unset=True, by_alias=True)
    try:
        merged = ProfileSettings.model_validate(own | given)
    except ValidationError as error:
        raise UsageError(f"The side-car is wrong: {_problems(error)}.", "docs/inbox.md") from error
    if "schema" in given and not is_inside(merged.schema_file or Path("/")):
        raise UsageError(
            "The side-car's schema lies outside of the folder of chordwise.toml.",
            "Name it relative to that folder.",
        )
    return merged


def check(context: Context, profile: ProfileSettings) -> None:
    """Refuse a profile that no run could be opened with.

    Raises:
        UsageError: It contradicts itself, or its schema cannot be used.
        ConfigurationError: Its model is unknown, or the price of it where there is a budget.
    """
    options = run_options(context.settings, profile)
    context.models.identity(options.model)
    budgets.cap_for(context.settings, options.model, options.budget_usd)


def _entries(side_car: Path) -> dict[str, object]:
    try:
        content = side_car.read_bytes()
        if len(content) > _MOST_BYTES:
            raise UsageError("The side-car is larger than any side-car needs to be.")
        return tomllib.loads(content.decode("utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The side-car is not valid TOML: {error}.", "docs/inbox.md") from error
    except (OSError, UnicodeDecodeError) as error:
        what = f"The side-car cannot be read as UTF-8 text: {type(error).__name__}."
        raise UsageError(what) from error


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)
    )
