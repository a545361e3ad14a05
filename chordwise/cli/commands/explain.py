"""Runs: Show how the answer for a document was produced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.rule import Rule
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.analysis import headline
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import counted, money, score
from chordwise.domain.states import CritiqueOutcome
from chordwise.pipeline.runs import explanation
from chordwise.relations import jobs
from chordwise.relations import results as stored_results
from chordwise.relations.relation import Row
from chordwise.rendering import results as rendered_results
from chordwise.rendering.plain_text import encoded, local_time, one_line, safe
from chordwise.rendering.screen import indented
from chordwise.storage.database import driver

_TEXT_CHARACTERS = 1_200
_MAX_CHUNKS = 3
_MAX_CONTRADICTIONS = 5
_NOT_KEPT = "Not in the cache."
_MORE = "--full shows the answer, calls, prompts and completions; --chunk N one part; --json all."


def explain(
    invocation: Invocation,
    name: Annotated[
        str, typer.Argument(metavar="JOB|DOCUMENT", help="A job id, or a part of a document name.")
    ],
    *,
    chunk: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Also show part N of the document.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also show prompts and completions.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how the answer for a document was produced, in brief or with its prompts.

    chordwise explain service-agreement.md
    """
    settings, screen = access.reach(invocation), invocation.screen
    with access.read(settings) as session:
        connection = driver(session)
        job = explanation.explain(session, jobs.find(connection, name))
        states = stored_results.states(connection, [job["job_id"]])
        questions = explanation.Reconstruction(connection, settings, job)
        shown = slice(chunk - 1, chunk) if chunk else slice(_MAX_CHUNKS * full)
        positions = range(len(job["chunks"]))[slice(None) if as_json else shown]
        chunks = [questions.about_chunk(position) for position in positions]
        steps = list(questions.after_chunks()) if as_json or full else []
    if as_json:
        screen.write_json(explanation={**job, "chunks": chunks}, steps=steps)
        return
    for sentence, style in _in_brief(job, states.values()):
        screen.show(*([Text(one_line(sentence, 300), style)] if sentence else ()))
    if full:
        screen.show(*rendered_results.render([job["result"]] if job["result"] else ()))
        screen.show(*(Text(one_line(sentence)) for sentence in _in_detail(job)))
    for question in (*chunks, *steps):
        screen.show(*_in_full(question, None if chunk else _TEXT_CHARACTERS))


def _in_brief(job: Row, states: Iterable[str]) -> Iterator[tuple[str, str]]:
    yield "{analysis_type} by {model} · {status} · job {job_id}".format_map(job), "bold"
    about = "{source} · {media_type} · {character_count:,} characters".format_map(job["document"])
    yield f"{about} · run {job['run']}", "dim"
    result, calls = job["result"] or {}, job["calls"]
    for problem in (job["error_message"], job["hint"], result.get("review_reason")):
        yield problem or "", "yellow"
    for remark in job["remarks"]:
        yield f"Feedback: {_sentence(remark)}", "green"
    if result:
        yield rendered_results.measures(result), "dim"
        yield f"Answer: {headline(job['analysis_type'], result['output'])}", ""
    yield _counts("Fields", states), ""
    for row in job["contradictions"][:_MAX_CONTRADICTIONS]:
        yield f"Contradiction: {row['sentence']}", "yellow"
    for row in job["absences"]:
        yield row["sentence"], "dim"
    if job["reused_from"] is not None and not calls:
        yield f"Uses the answer of another job: chordwise explain {job['reused_from']}", ""
    else:
        parts = _counts("Parts", (chunk["status"] for chunk in job["chunks"])) or "Parts: none"
        cost = money(job["cost_usd"], job["unpriced_calls"], len(calls))
        yield f"{parts} · {counted(len(calls), 'call')} · {cost}", ""
    others = [other for other in job["jobs"] if other["job_id"] != job["job_id"]]
    for other in others[:3]:
        yield "Other job: {analysis_type}, {run}, {status}, {job_id}".format_map(other), "dim"
    yield _MORE, "dim"


def _counts(name: str, states: Iterable[str]) -> str:
    counts = ", ".join(f"{count:,} {state}" for state, count in Counter(states).most_common())
    return f"{name}: {counts}" if counts else ""


def _sentence(remark: Row) -> str:
    sentence = f"{remark['verdict']} {remark['field'] or remark['path'] or 'the whole answer'}"
    if remark["corrected"] is not None:
        sentence += f": {encoded(remark['corrected'])} (was {encoded(remark['judged'])})"
    author, at = remark["author"] or "no author", local_time(remark["created_at"])
    return " · ".join(filter(None, (sentence, f"{author}, {at}", remark["note"])))


def _in_detail(job: Row) -> Iterator[str]:
    critique = (job["result"] or {}).get("critique") or {}
    if critique.get("outcome") == CritiqueOutcome.REVISED:
        for violation in critique["violations"]:
            yield f"Objection: {violation['path'] or '/'}: {violation['problem']}"
    if job["revised"]:
        yield f"Changed by the revision: {', '.join(job['revised'][:20])}"
    for example in job["examples"]:
        remarks = counted(len(example["feedback_ids"]), "remark")
        yield f"Example in the prompt: {example['source']}, version {example['version']}, {remarks}"
    for chunk in job["chunks"]:
        names = ("confidence", "quality", "agreement")
        measures = [f"{name} {score(chunk[name])}" for name in names if chunk[name] is not None]
        span = "characters {start_char}–{end_char}, {status}".format_map(chunk)
        about = ", ".join(filter(None, (span, *measures, chunk["error_message"])))
        yield f"Part {chunk['position'] + 1}: {about}"
    for call in job["calls"]:
        took = "from the cache" if call["cache_hit"] else f"{call['latency_ms'] or 0:,} ms"
        tokens = f"{call['input_tokens'] or 0:,} + {call['output_tokens'] or 0:,} tokens"
        about = "Call: {stage}, {provider}/{model}, {prompt_version}".format_map(call)
        yield f"{about}, {took}, {tokens}, {dollars(call['cost_usd'])}, {call['outcome']}"


def _in_full(question: Row, width: int | None) -> Iterator[RenderableType]:
    is_about_chunk = "position" in question
    title = f"Part {question['position'] + 1}" if is_about_chunk else question["stage"].capitalize()
    yield Rule(Text(title), align="left", style="dim")
    for label, words in _passages(question):
        text = safe(words)
        more = f"\n… {len(text) - width:,} more characters" if width and len(text) > width else ""
        yield Text(f"  {label}", style="bold dim")
        yield indented(Text(f"{text[:width]}{more}"), 4)


def _passages(question: Row) -> Iterator[tuple[str, str]]:
    if question["prompt"] is None:
        yield "Prompt", "It cannot be shown: its template or model is unknown here."
    else:
        yield "System prompt", question["prompt"].system
        yield "User prompt", question["prompt"].user
    yield "Completion", question["completion"] or _NOT_KEPT
    for number, sample in enumerate(question["samples"][1:], start=2):
        yield f"Sample {number} of the vote", sample or _NOT_KEPT
    if "answer" in question:
        if question["completion"] is not None:
            yield "Changed by validation", ", ".join(question["changes"][:20]) or "nothing"
        yield "Stored", question["error_message"] or encoded(question["answer"], indent=2)
