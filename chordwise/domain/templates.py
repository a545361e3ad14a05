"""Prompt templates: texts with variables and an immutable version, and their validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from string import Template

_OF_ALL = ("text", "mark", "schema", "instructions")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """A template of a prompt; `name` is the analysis type and the stage, joined by a dot.

    `system` is common to all questions of a run, so that providers can cache it; `user` holds the
    text. A released template has a `number`, a user's own one a `variant`, by which it is chosen.
    """

    name: str
    number: int = 0
    variant: str = ""
    system: str
    user: str

    @property
    def title(self) -> str:
        """Return the file name without its extension: `name@number` or `name@variant`."""
        return f"{self.name}@{self.variant or self.number}"

    @property
    def version(self) -> str:
        """Return the value of `prompt_version`; that of a user's own template includes its hash."""
        return f"{self.title}-{self.sha256[:_DIGITS]}" if self.variant else self.title

    @property
    def sha256(self) -> str:
        """Return the hash that distinguishes a changed template from a released one."""
        return hashlib.sha256(f"{self.system}\0{self.user}".encode()).hexdigest()


_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateProblem:
    """A problem of a template; `text` is the affected text, empty for the whole template."""

    what: str
    text: str = ""


def required_variables(name: str) -> tuple[str, ...]:
    """Return the required variables of a template with this name; without one an option is lost."""
    if name.startswith("classification."):
        return (*_OF_ALL, "labels")
    if name.startswith("extraction.") and not name.startswith("extraction.schema."):
        return (*_OF_ALL, "items")
    return _OF_ALL


def problems(template: PromptTemplate) -> Iterator[TemplateProblem]:
    """Yield the problems with the variables of a user's own template."""
    required = required_variables(template.name)
    allowed = (*required, "kind")
    text = f"{template.system}\n{template.user}"
    for match in Template.pattern.finditer(text):
        name = match["named"] or match["braced"]
        if match["invalid"] is not None:
            yield TemplateProblem(what="a dollar sign alone is written $$", text=match[0])
        elif name and name not in allowed:
            yield TemplateProblem(
                what=f"there is no variable {match[0]}; allowed: {_listed(allowed)}", text=match[0]
            )
    used = _names(text)
    if missing := [name for name in required if name not in used]:
        yield TemplateProblem(what=f"missing: {_listed(missing)}; needed: {_listed(required)}")
        return
    names = _names(template.user)
    place = names.index("text") if names.count("text") == 1 else 0
    if "mark" not in names[:place] or "mark" not in names[place:]:  # a document could end the text
        yield TemplateProblem(what="user has to hold $text once, with $mark before and after it")


def _names(text: str) -> list[str]:
    matches = Template.pattern.finditer(text)
    return [name for match in matches if (name := match["named"] or match["braced"])]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in names)
