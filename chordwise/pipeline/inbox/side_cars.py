"""What is asked of one file: its profile, and what its side-car says instead."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError

from chordwise.domain.inbox_names import is_inside
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import UsageError
from chordwise.pipeline.intake.profiles import run_options
from chordwise.pipeline.models import budgets, client
from chordwise.settings import ProfileSettings, Settings
from chordwise.settings.sections import problems

_MOST_BYTES = 256 * 1024
_FOR_TYPES = (
    ("schema", AnalysisType.EXTRACTION, "The side-car's schema is for extractions"),
    ("labels", AnalysisType.CLASSIFICATION, "The side-car's labels are for classifications"),
)


def profile_named(settings: Settings, name: str) -> ProfileSettings:
    """Return a profile; the defaults for an empty name, and for one that is gone."""
    return settings.profiles.get(name, ProfileSettings())


def with_side_car(profile: ProfileSettings, side_car: Path) -> ProfileSettings:
    """Return the profile with the entries of a side-car in place of its own.

    What the profile has for analysis types that the side-car does not ask for is left out, and so
    is what is for reading rows, or for a critique, where the side-car has turned that off.

    Raises:
        UsageError: It is no TOML, has entries that a profile has not, or asks for what it must not.
    """
    given = _entries(side_car)
    if "folder" in given:
        raise UsageError("The side-car names a folder.", "A folder is for [profiles] only.")
    try:
        wanted = ProfileSettings.model_validate(given)
    except ValidationError as error:
        raise UsageError(
            f"The side-car is wrong: {'; '.join(problems(error))}.", _hint(given)
        ) from error
    if wanted.schema_file is not None and not is_inside(wanted.schema_file):
        raise UsageError(
            "The side-car's schema lies outside of the folder of chordwise.toml.",
            "Name it relative to that folder.",
        )
    own = profile.model_dump(exclude_unset=True, by_alias=True)
    kept = {name: own[name] for name in own.keys() - _left_out(given, wanted)}
    merged = ProfileSettings.model_validate(kept | given)
    _require_types(given, merged)
    return merged


def check(settings: Settings, profile: ProfileSettings) -> None:
    """Refuse a profile that no run could be opened with.

    Raises:
        UsageError: It contradicts itself, or its schema cannot be used.
        ConfigurationError: Its model is unknown, or the price of it where there is a budget.
    """
    options = run_options(settings, profile)
    client.identity(settings, options.model)
    budgets.cap_for(settings, options.model, options.budget_usd)


def _left_out(given: Collection[str], wanted: ProfileSettings) -> set[str]:
    """Return which entries of the profile make no sense beside those of the side-car."""
    found = {name for name, needed, _ in _FOR_TYPES if wanted.types and needed not in wanted.types}
    if "text_column" in given and not wanted.text_column:
        found.add("id_column")
    if "critique" in given and not wanted.critique:
        found.add("principles")
    return found


def _require_types(given: Mapping[str, object], merged: ProfileSettings) -> None:
    """Refuse a schema or labels of the side-car that nothing which is asked for has a use for."""
    for name, needed, what in _FOR_TYPES:
        if given.get(name) and merged.types and needed not in merged.types:
            asked = " and ".join(merged.types)
            hint = f'Add "{needed}" to the types of the side-car.'
            raise UsageError(f"{what}, and what is asked for is {asked}.", hint)


def _hint(given: Mapping[str, object]) -> str:
    if given.get("budget_usd") == 0:
        return 'budget_usd = "" takes the profile\'s budget away.'
    return "docs/inbox.md"


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
