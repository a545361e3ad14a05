"""Finding the released prompt templates by name and version."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources

from chordwise.domain.prompting import PromptTemplate
from chordwise.domain.tasks import AnalysisTask, Stage
from chordwise.errors import ConfigurationError

_FILE_NAME = re.compile(r"^(?P<name>[a-z.-]+)@(?P<number>\d+)\.toml$")
REPAIR = "repair"
CRITIQUE = "critique"
REVISION = "revision"
TABLE_HEADER = "table-header"


@lru_cache(maxsize=1)
def released() -> dict[str, PromptTemplate]:
    """Return every released template by its version, `name@number`."""
    found = (_read(file.name, file.read_text("utf-8")) for file in _files())
    return {template.version: template for template in found}


@cache
def latest(name: str) -> PromptTemplate:
    """Return the newest version of a template.

    Raises:
        ConfigurationError: There is no template of this name.
    """
    versions = [template for template in released().values() if template.name == name]
    if not versions:
        raise ConfigurationError(f"There is no prompt template named “{name}”.")
    return max(versions, key=lambda template: template.number)


def template_for(task: AnalysisTask) -> PromptTemplate:
    """Return the template with which a task is asked today.

    A repair and a revision repeat their first question.
    """
    return latest(_name_for(task))


def templates_for(task: AnalysisTask, fallback: Sequence[str]) -> tuple[PromptTemplate, ...]:
    """Return the templates to ask a task with, in order: the usual one, then those of `fallback`.

    A fallback that has no template for this kind of question is left out.
    """
    usual = _name_for(task)
    names = {template.name for template in released().values()} if fallback else ()
    others = (f"{usual}-{each}" for each in fallback)
    return tuple(latest(name) for name in (usual, *others) if name == usual or name in names)


def _name_for(task: AnalysisTask) -> str:
    if task.is_critique:
        return CRITIQUE
    own_schema = ".schema" if task.options.schema is not None else ""
    if task.stage is Stage.REVISE:
        stage = Stage.SYNTHESIZE if task.answers else Stage.ANALYZE
    else:
        stage = Stage.ANALYZE if task.stage is Stage.REPAIR else task.stage
    return f"{task.analysis_type}{own_schema}.{stage}"


def _files() -> list[resources.abc.Traversable]:
    folder = resources.files("chordwise.prompts") / "released"
    return [file for file in folder.iterdir() if _FILE_NAME.match(file.name)]


def _read(file_name: str, content: str) -> PromptTemplate:
    match = _FILE_NAME.match(file_name)
    if match is None:
        raise ConfigurationError(f"{file_name} is not the name of a prompt template.")
    texts = tomllib.loads(content)
    return PromptTemplate(
        name=match["name"],
        number=int(match["number"]),
        system=str(texts["system"]).strip(),
        user=str(texts["user"]).strip(),
    )
