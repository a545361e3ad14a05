"""Prompts: the messages to a model, rendered from a template and a task.

Each function that takes a template raises `KeyError` if it names an unknown variable.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from string import Template

from chordwise.domain import critique, examples, grounding, items, schemas
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.templates import PromptTemplate

_MARK = "TEXT-"
# A document that contains its own mark takes 2 ** (4 * digits) hashes to construct: the 48 bits of
# twelve digits take a few hours on one graphics card.
_MARK_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The messages: the system instructions, and the question with the text."""

    system: str
    user: str


def render(template: PromptTemplate, task: AnalysisTask, schema: JsonObject) -> Prompt:
    """Fill in a template; variables inside the text of the document are not replaced.

    The text is enclosed by marks that are derived from it, so that no document can contain its own
    end mark (spotlighting by delimiters, arXiv 2403.14720).
    """
    principles = critique.principles_for(task.analysis_type, task.options)
    material, examined = _material(task), _examined(task)
    parts = (_remark(task), _meanings(task), _language(task.options), _examples(task))
    variables = {
        "text": material,
        "draft": examined,
        "mark": _mark(material + examined),
        "kind": task.analysis_type,
        "principles": "\n".join(f"{n}. {rule}" for n, rule in enumerate(principles, start=1)),
        "instructions": "\n".join(part for part in parts if part),
        "labels": ", ".join(task.options.labels) or "labels of your own choice",
        "items": "\n".join(f"- {item.in_prompt}" for item in items.of(task.options).values()),
        "schema": schemas.as_text(schema),
    }
    return Prompt(
        system=Template(template.system).substitute(variables),
        user=Template(template.user).substitute(variables),
    )


def render_revision(template: PromptTemplate, task: AnalysisTask) -> str:
    """Return the message that asks a model to revise an earlier answer, with the objections."""
    draft, violations = _draft(task), _json(list(task.violations))
    variables = {"draft": draft, "violations": violations, "mark": _mark(draft + violations)}
    return Template(template.user).substitute(variables)


def render_header(template: PromptTemplate, task: AnalysisTask) -> str:
    """Return the header of a table, to precede a question whose text continues the table."""
    variables = {"header": task.header, "mark": _mark(task.header)}
    return Template(template.user).substitute(variables)


def render_examples(task: AnalysisTask) -> str:
    """Return the examples learned from feedback, to precede a question; empty if there are none.

    As texts of other documents they are enclosed by marks, and not in the instructions.
    """
    if not task.examples or not task.shows_examples:
        return ""
    return examples.in_prompt(task.examples, _mark("".join(entry.text for entry in task.examples)))


def render_transcription(template: PromptTemplate, schema: JsonObject) -> Prompt:
    """Return the question about the picture of a page."""
    system = Template(template.system).substitute({"schema": schemas.as_text(schema)})
    return Prompt(system=system, user=template.user)


def repeats_mark(text: str, task: AnalysisTask) -> bool:
    """Return whether an answer repeats the mark that encloses the material of its question."""
    return _MARK in text and _mark(_material(task) + _examined(task)) in text


def _material(task: AnalysisTask) -> str:
    answers: list[JsonValue] = [grounding.without_spans(answer) for answer in task.answers]
    return _json(answers) if answers else task.text


def _examined(task: AnalysisTask) -> str:
    return _draft(task) if task.is_critique else ""


def _draft(task: AnalysisTask) -> str:
    return _json(grounding.without_spans(task.draft or {}))


def _json(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


def _mark(material: str) -> str:
    return f"{_MARK}{hashlib.sha256(material.encode()).hexdigest()[:_MARK_DIGITS]}"


def _remark(task: AnalysisTask) -> str:
    options = task.options
    extracts = task.analysis_type == AnalysisType.EXTRACTION
    are_items = extracts and not options.schema and not options.items
    text = "" if are_items else options.instructions.strip()
    return f"The person who asked adds: {text}" if text else ""


def _meanings(task: AnalysisTask) -> str:
    options = task.options
    described = [
        f"- {label}: {meaning}"
        for label in options.labels
        if (meaning := options.label_descriptions.get(label))
    ]
    is_asked = described and task.analysis_type == AnalysisType.CLASSIFICATION
    return "\n".join(["What the labels mean:", *described]) if is_asked else ""


def _language(options: AnalysisOptions) -> str:
    if not options.answer_language:
        return ""
    return (
        "Write everything in your own words in the language with the tag "
        f"“{options.answer_language}” (BCP 47). Do not translate quotes, labels, values from the "
        "text, or the names of members."
    )


def _examples(task: AnalysisTask) -> str:
    chosen = [entry for entry in task.options.examples if entry.analysis_type == task.analysis_type]
    return examples.in_prompt(chosen) if task.shows_examples else ""
