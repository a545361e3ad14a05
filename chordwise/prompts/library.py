"""Prompt templates: the released ones, and those in a user's folder."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from chordwise.domain import templates as rules
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage
from chordwise.domain.templates import PromptTemplate
from chordwise.errors import ConfigurationError

_FILE_NAME = re.compile(
    r"^(?P<name>[a-z.-]+)@(?:(?P<number>\d+)|(?P<variant>[a-z][a-z0-9_-]{0,39}))\.toml$"
)
REPAIR = "repair"
CRITIQUE = "critique"
REVISION = "revision"
TABLE_HEADER = "table-header"
TRANSCRIPTION = "transcription"
PLAN = "plan"


@cache
def released() -> dict[str, PromptTemplate]:
    """Return the released templates by version, `name@number`."""
    folders = importlib.import_module("chordwise.prompts.released").__path__
    files = (file for folder in folders for file in Path(folder).iterdir())
    parsed = (_read(file.name, file.read_text("utf-8")) for file in files if file.suffix == ".toml")
    return {template.version: template for template in parsed}


@cache
def latest(name: str) -> PromptTemplate:
    """Return the newest released version of a template.

    Raises:
        ConfigurationError: There is no template with this name.
    """
    versions = [template for template in released().values() if template.name == name]
    if not versions:
        raise ConfigurationError(f"There is no prompt template named “{name}”.")
    return max(versions, key=lambda template: template.number)


def templates_in(folder: Path, variant: str = "") -> tuple[PromptTemplate, ...]:
    """Return the templates in a user's folder, by file name; `variant` selects those of a variant.

    Raises:
        ConfigurationError: The folder cannot be read, it has no template of the variant, or a
            template is invalid.
    """
    files = _files_in(folder)
    chosen = [file for file in files if not variant or file.stem.endswith(f"@{variant}")]
    templates = tuple(_checked(file) for file in chosen)
    if variant and not templates:
        known = ", ".join(sorted({file.stem.rpartition("@")[2] for file in files})) or "none"
        what = f"There is no prompt “{variant}” in {folder}."
        raise ConfigurationError(what, f"Known: {known}. Name the file TEMPLATE@{variant}.toml.")
    return templates


def examined(folder: Path) -> dict[str, PromptTemplate | ConfigurationError]:
    """Return each template in a user's folder by its file name, or the error if it is invalid.

    Raises:
        ConfigurationError: The folder cannot be read.
    """
    by_name: dict[str, PromptTemplate | ConfigurationError] = {}
    for file in _files_in(folder):
        try:
            by_name[file.stem] = _checked(file)
        except ConfigurationError as error:
            by_name[file.stem] = error
    return by_name


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix == ".toml")
    except OSError as error:
        raise ConfigurationError(f"The prompts in {folder} cannot be read: {error}.") from error


def replaceable() -> list[str]:
    """Return the names of the released templates that a user's template can replace."""
    fixed = (REPAIR, CRITIQUE, REVISION, TRANSCRIPTION, PLAN)
    return sorted({template.name for template in released().values()} - {*fixed})


def with_version(version: str, task: AnalysisTask) -> PromptTemplate | None:
    """Return a template of the task or a released one by its version; `None` if it is unknown."""
    known = {template.version: template for template in task.options.templates}
    return known.get(version) or released().get(version)


def template_for(task: AnalysisTask) -> PromptTemplate:
    """Return the current template of a task.

    A repair or a revision has the template of the question that it repeats.
    """
    return _newest(_name_for(task), task)


def templates_for(task: AnalysisTask, fallback: Sequence[str]) -> tuple[PromptTemplate, ...]:
    """Return the templates to try for a task: the usual one, then those of `fallback`, in order.

    A fallback without a template for this kind of question is omitted.
    """
    usual = _name_for(task)
    names = {template.name for template in released().values()} if fallback else ()
    others = (f"{usual}-{suffix}" for suffix in fallback)
    return tuple(_newest(name, task) for name in (usual, *others) if name == usual or name in names)


def _newest(name: str, task: AnalysisTask) -> PromptTemplate:
    candidates = (template for template in task.options.templates if template.name == name)
    return next(candidates, None) or latest(name)


def _name_for(task: AnalysisTask) -> str:
    if task.is_critique:
        return CRITIQUE
    is_extraction = task.analysis_type == AnalysisType.EXTRACTION
    own_schema = ".schema" if is_extraction and task.options.schema is not None else ""
    if task.stage is Stage.REVISE:
        stage = Stage.SYNTHESIZE if task.answers else Stage.ANALYZE
    else:
        stage = Stage.ANALYZE if task.stage is Stage.REPAIR else task.stage
    return f"{task.analysis_type}{own_schema}.{stage}"


def _read(file_name: str, content: str) -> PromptTemplate:
    match = _FILE_NAME.match(file_name)
    if match is None:
        raise ConfigurationError(
            f"{file_name} is not the name of a prompt template.",
            "Use TEMPLATE@VARIANT.toml, such as summary.analyze@brief.toml.",
        )
    texts = tomllib.loads(content)
    return PromptTemplate(
        name=match["name"],
        number=int(match["number"] or 0),
        variant=match["variant"] or "",
        system=str(texts["system"]).strip(),
        user=str(texts["user"]).strip(),
    )


def _checked(file: Path) -> PromptTemplate:
    """Read and validate a user's template."""
    try:
        content = file.read_text("utf-8-sig")
        template = _read(file.name, content)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}.") from error
    except KeyError as error:
        what = f"{file} has no {error.args[0]}."
        raise ConfigurationError(what, "A template has two texts: system and user.") from error
    if template.name not in replaceable():
        names = ", ".join(replaceable())
        what = f"{file} is named after no template that can be replaced."
        raise ConfigurationError(what, f"These can: {names}.")
    if not template.variant:
        raise ConfigurationError(
            f"{file} has a number, which released templates have.",
            f"Name the variant: {template.name}@brief.toml.",
        )
    for problem in rules.problems(template):
        line = content[: content.find(problem.text)].count("\n") + 1 if problem.text else 1
        raise ConfigurationError(f"{file}, line {line}: {problem.what}.", "See docs/prompts.md.")
    return template
