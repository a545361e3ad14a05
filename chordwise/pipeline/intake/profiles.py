"""From a profile of the settings to what a run asks of every document."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from chordwise.domain import validation
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisOptions, AnalysisType, implied_types
from chordwise.errors import UsageError
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.readers.extracted import Columns
from chordwise.settings import CritiqueSettings, ProfileSettings, Settings

_FEWEST_LABELS = 2


def run_options(settings: Settings, profile: ProfileSettings, run_name: str = "") -> RunOptions:
    """Return the options of a run that asks what the profile says.

    Raises:
        UsageError: The profile contradicts itself, or its schema cannot be used.
    """
    types = implied_types(
        profile.types, schema=profile.schema_file is not None, labels=bool(profile.labels)
    )
    return RunOptions(
        types=types,
        analysis=_analysis_options(profile, types, settings.base_folder),
        model=profile.model or settings.model,
        name=run_name,
        nightly=profile.nightly,
        lane=profile.lane,
        budget_usd=profile.budget_usd,
        columns=_columns(profile),
    )


def read_schema(path: Path) -> JsonObject:
    """Return the JSON Schema in a file.

    Raises:
        UsageError: It cannot be read, is not JSON, or cannot be used.
    """
    try:
        return validation.check_schema(json.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        what, hint = f"The schema {path} cannot be read: {reason}.", "Put the file there"
        raise UsageError(what, f"{hint}, or name another schema.") from error
    except (ValueError, RecursionError) as error:
        what, hint = f"The schema {path} is not JSON: {error}.", "Mend the file"
        raise UsageError(what, f"{hint}, or name another schema.") from error
    except UsageError as error:
        hint = error.hint or f"Mend {path}, or name another schema."
        raise UsageError(error.what, hint) from error


def read_principles(path: Path) -> tuple[str, ...]:
    """Return the principles in a text file, one a line; bullets and blank lines do not count.

    Raises:
        UsageError: It cannot be read, has no principles, or some that are too long or too many.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"The principles {path} cannot be read: {reason}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"The principles {path} are no UTF-8 text.") from error
    found = [line.lstrip("-*• \t").strip() for line in lines]
    try:
        principles = CritiqueSettings(principles=tuple(each for each in found if each)).principles
    except ValidationError as error:
        what = "; ".join(each["msg"] for each in error.errors(include_url=False))
        raise UsageError(f"The principles {path} cannot be used: {what}.") from error
    if not principles:
        raise UsageError(f"There are no principles in {path}.", "Write one on each line.")
    return principles


def _columns(profile: ProfileSettings) -> Columns:
    if profile.id_column and not profile.text_column:
        raise UsageError("A profile's id_column is for reading rows.", "Set its text_column, too.")
    return Columns(text=profile.text_column, identity=profile.id_column)


def _analysis_options(
    profile: ProfileSettings, types: tuple[AnalysisType, ...], base: Path
) -> AnalysisOptions:
    labels = tuple(dict.fromkeys(profile.labels))
    if profile.schema_file is not None and AnalysisType.EXTRACTION not in types:
        raise UsageError("A profile's schema is for extractions.", 'Add "extraction" to its types.')
    if labels and AnalysisType.CLASSIFICATION not in types:
        what = "A profile's labels are for classifications."
        raise UsageError(what, 'Add "classification" to its types.')
    if labels and len(labels) < _FEWEST_LABELS:
        raise UsageError("A classification needs two labels or more.", 'labels = ["a", "b"]')
    return AnalysisOptions(
        instructions=profile.instructions.strip(),
        labels=labels,
        schema=read_schema(base / profile.schema_file) if profile.schema_file else None,
        confidence_threshold=profile.confidence_threshold,
        votes=profile.votes,
        critique=profile.critique or bool(profile.principles),
        principles=profile.principles,
    )
