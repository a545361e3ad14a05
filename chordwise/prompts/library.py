"""Prompt templates: the released ones, and those in a user's folder."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from string import Template

from chordwise.domain import identifiers
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, PromptTemplate, Stage
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
_VARIABLES = ("text", "mark", "schema", "instructions")
"""The variables of every template; without one of them an option would be lost."""


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
        variants = sorted({file.stem.rpartition("@")[2] for file in files})
        known = identifiers.known_names(variant, variants)
        what = f"There is no prompt “{variant}” in {folder}."
        raise ConfigurationError(what, f"{known} Name the file TEMPLATE@{variant}.toml.")
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
    if problem := _problem(template):
        what, text = problem
        line = content[: content.find(text)].count("\n") + 1
        raise ConfigurationError(f"{file}, line {line}: {what}.", "See docs/prompts.md.")
    return template


def _problem(template: PromptTemplate) -> tuple[str, str] | None:
    """Return what is wrong with the variables of a template, and the text, empty for all of it."""
    kind, _, stage = template.name.partition(".")
    is_of_items = kind == "extraction" and not stage.startswith("schema.")
    required = (*_VARIABLES, *["labels"] * (kind == "classification"), *["items"] * is_of_items)
    allowed = (*required, "kind")
    text = f"{template.system}\n{template.user}"
    for match in Template.pattern.finditer(text):
        if match["invalid"] is not None:
            return "a dollar sign alone is written $$", match[0]
        if {*_names(match[0])} - {*allowed}:
            return f"there is no variable {match[0]}; allowed: {_listed(allowed)}", match[0]
    if missing := [name for name in required if name not in _names(text)]:
        return f"missing: {_listed(missing)}; needed: {_listed(required)}", ""
    names = _names(template.user)
    place = names.index("text") if names.count("text") == 1 else 0
    if "mark" not in names[:place] or "mark" not in names[place:]:  # a document could end the text
        return "user has to hold $text once, with $mark before and after it", ""
    return None


def _names(text: str) -> list[str]:
    matches = Template.pattern.finditer(text)
    return [name for match in matches if (name := match["named"] or match["braced"])]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in names)
