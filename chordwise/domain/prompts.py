"""Prompts: the messages to a model, rendered from a template and a task.

Each function that takes a template raises `KeyError` if it names an unknown variable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from string import Template

from chordwise.domain import critique, examples, grounding, items, json_values, schemas
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, PromptTemplate
from chordwise.domain.json_values import JsonObject, JsonValue

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
    chosen = [entry for entry in task.options.examples if entry.analysis_type == task.analysis_type]
    shown = examples.in_prompt(chosen, task.options) if task.shows_examples else ""
    variables = {
        "text": material,
        "draft": examined,
        "mark": _mark(material + examined),
        "kind": task.analysis_type,
        "principles": "\n".join(f"{n}. {rule}" for n, rule in enumerate(principles, start=1)),
        "instructions": "\n".join(filter(None, (*_instructions(task), shown))),
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
    draft, violations = _draft(task), json_values.encoded(task.violations)
    variables = {"draft": draft, "violations": violations, "mark": _mark(draft + violations)}
    return Template(template.user).substitute(variables)


def render_header(template: PromptTemplate, task: AnalysisTask) -> str:
    """Return the header of a table, to precede a question whose text continues the table."""
    variables = {"header": task.header, "mark": _mark(task.header)}
    return Template(template.user).substitute(variables)


def render_examples(task: AnalysisTask) -> str:
    """Return the learned examples, between marks, to precede a question; empty without any."""
    if not task.examples or not task.shows_examples:
        return ""
    mark = _mark("".join(example.text for example in task.examples))
    return examples.in_prompt(task.examples, task.options, mark)


def render_transcription(template: PromptTemplate, schema: JsonObject) -> Prompt:
    """Return the question about the picture of a page."""
    system = Template(template.system).substitute({"schema": schemas.as_text(schema)})
    return Prompt(system=system, user=template.user)


def render_plan(
    template: PromptTemplate, schema: JsonObject, catalogue: str, question: str
) -> Prompt:
    """Return the request for the plan of a question over the tables of a catalogue."""
    variables = {"catalogue": catalogue, "mark": _mark(catalogue), "question": question}
    return Prompt(
        system=Template(template.system).substitute({"schema": schemas.as_text(schema)}),
        user=Template(template.user).substitute(variables),
    )


def repeats_mark(text: str, task: AnalysisTask) -> bool:
    """Return whether an answer repeats the mark that encloses the material of its question."""
    return _MARK in text and _mark(_material(task) + _examined(task)) in text


def _material(task: AnalysisTask) -> str:
    answers: list[JsonValue] = [grounding.without_spans(answer) for answer in task.answers]
    return json_values.encoded(answers) if answers else task.text


def _examined(task: AnalysisTask) -> str:
    return _draft(task) if task.is_critique else ""


def _draft(task: AnalysisTask) -> str:
    return json_values.encoded(grounding.without_spans(task.draft or {}))


def _mark(material: str) -> str:
    return f"{_MARK}{hashlib.sha256(material.encode()).hexdigest()[:_MARK_DIGITS]}"


def _instructions(task: AnalysisTask) -> Iterator[str]:
    """Yield the words of the user, the meanings of the labels, and the language of the answer."""
    options, kind = task.options, task.analysis_type
    are_items = kind == AnalysisType.EXTRACTION and not (options.schema or options.items)
    if not are_items and (remark := options.instructions.strip()):
        yield f"The person who asked adds: {remark}"
    meanings = ((label, options.label_descriptions.get(label)) for label in options.labels)
    described = [f"- {label}: {meaning}" for label, meaning in meanings if meaning]
    if described and kind == AnalysisType.CLASSIFICATION:
        yield "\n".join(["What the labels mean:", *described])
    if options.answer_language:
        yield (
            "Write everything in your own words in the language with the tag "
            f"“{options.answer_language}” (BCP 47). Do not translate quotes, labels, values from "
            "the text, or the names of members."
        )
