"""Runs: Show how the answer for a document was produced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.rule import Rule
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import counted, money, score, share
from chordwise.domain.states import CritiqueOutcome
from chordwise.pipeline.runs.reconstruction import Reconstruction
from chordwise.relations import explanation
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering import results as rendered_results
from chordwise.rendering.plain_text import encoded, local_time, one_line, safe
from chordwise.rendering.screen import indented
from chordwise.storage.database import driver

_TEXT_CHARACTERS = 1_200
_MAX_CHUNKS = 3
_MAX_PATHS = 20
_NOT_KEPT = "Not in the cache."


def explain(
    invocation: Invocation,
    name: Annotated[
        str, typer.Argument(metavar="JOB|DOCUMENT", help="A job id, or a part of a document name.")
    ],
    *,
    chunk: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Show only part N of the document, in full."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how the answer for a document was produced. Shows its prompts, completions and costs.

    chordwise explain service-agreement.md

    chordwise explain service-agreement.md --chunk 2
    """
    settings = access.reach(invocation)
    with access.read(settings) as session:
        connection = driver(session)
        job = explanation.explain(connection, explanation.find(connection, name))
        questions = Reconstruction.of(connection, settings, job)
        positions = range(len(job["chunks"]))
        if not as_json:
            positions = positions[:_MAX_CHUNKS] if chunk is None else positions[chunk - 1 : chunk]
        chunks = [questions.about_chunk(position) for position in positions]
        steps = questions.after_chunks() if as_json or chunk is None else ()
    if as_json:
        invocation.screen.write_json(explanation={**job, "chunks": chunks}, steps=steps)
        return
    width = _TEXT_CHARACTERS if chunk is None else None
    invocation.screen.show(*_account(job))
    for part in chunks:
        invocation.screen.show(*_part(part, len(job["chunks"]), width))
    if chunk is None and (rest := len(job["chunks"]) - len(chunks)):
        sentence = f"{rest} more parts; use --chunk N for one, --json for all."
        invocation.screen.show(Text(sentence, style="yellow"))
    others = [other for other in job["jobs"] if other["job_id"] != job["job_id"]]
    if others:
        invocation.screen.show(_rule("Other jobs about this document"), _table(_JOB, others))
    for step in steps:
        invocation.screen.show(_rule(step["stage"].capitalize()), *_question(step, width))


def _account(job: Row) -> Iterator[RenderableType]:
    heading = "{analysis_type} by {model} · {status} · job {job_id}".format_map(job)
    yield Text(one_line(heading), style="bold")
    about = "{source} · {media_type} · {character_count:,} characters".format_map(job["document"])
    yield _line(f"{about} · run {job['run']}", width=None)
    for sentence in filter(None, (job["error_message"], job["hint"])):
        yield _line(sentence, "yellow", width=None)
    for remark in job["remarks"]:
        yield _line(f"Feedback: {_sentence(remark)}", "green")
    if job["result"] is not None:
        yield from rendered_results.render([job["result"]])
    if job["reused_from"] is not None and not job["calls"]:
        yield _line(f"Uses the answer of another job: chordwise explain {job['reused_from']}")
    else:
        yield from _history(job)


def _history(job: Row) -> Iterator[RenderableType]:
    yield _table(_CHUNK, job["chunks"])
    critique = (job["result"] or {}).get("critique") or {}
    if critique.get("outcome") == CritiqueOutcome.REVISED:
        for violation in critique["violations"]:
            yield _line(f"Objection: {violation['path'] or '/'}: {violation['problem']}")
    if job["revised"]:
        yield _line(f"Changed by the revision: {', '.join(job['revised'][:_MAX_PATHS])}")
    for example in job["examples"]:
        remarks = counted(len(example["feedback_ids"]), "remark")
        title = "{source}, version {version}".format_map(example)
        yield _line(f"Example in the prompt: {title}, {remarks}")
    yield _table(_CALL, job["calls"])
    yield _line(f"Total: {money(job['cost_usd'], job['unpriced_calls'], len(job['calls']))}")


def _sentence(remark: Row) -> str:
    """Return feedback in words, with the corrected value before the judged value."""
    sentence = f"{remark['verdict']} {remark['field'] or remark['path'] or 'the whole answer'}"
    if remark["corrected"] is not None:
        sentence += f": {encoded(remark['corrected'])} (was {encoded(remark['judged'])})"
    sentence += f" · {remark['author'] or 'no author'}, {local_time(remark['created_at'])}"
    return f"{sentence} · {remark['note']}" if remark["note"] else sentence


def _part(chunk: Row, count: int, width: int | None) -> Iterator[RenderableType]:
    span = "characters {start_char}–{end_char} · {status}".format_map(chunk)
    if chunk["confidence"] is not None:
        span += f" · confidence {score(chunk['confidence'])} · quality {score(chunk['quality'])}"
    yield _rule(f"Part {chunk['position'] + 1} of {count} · {span}")
    yield from _question(chunk, width)
    if chunk["completion"] is not None:
        changes = ", ".join(chunk["changes"][:_MAX_PATHS]) or "nothing"
        yield from _passage("Changed by validation", changes, width)
    answer = chunk["error_message"] or encoded(chunk["answer"], indent=2)
    yield from _passage("Stored", answer, width)


def _question(question: Row, width: int | None) -> Iterator[RenderableType]:
    if question["prompt"] is None:
        yield _line("The prompt cannot be shown: its template or model is unknown here.", "yellow")
    else:
        yield from _passage("System prompt", question["prompt"].system, width)
        yield from _passage("User prompt", question["prompt"].user, width)
    yield from _passage("Completion", question["completion"] or _NOT_KEPT, width)
    for number, sample in enumerate(question["samples"][1:], start=2):
        yield from _passage(f"Sample {number} of the vote", sample or _NOT_KEPT, width)


def _passage(label: str, words: str, width: int | None) -> Iterator[RenderableType]:
    more = f"\n… {len(words) - width:,} more characters" if width and len(words) > width else ""
    yield Text(f"  {label}", style="bold dim")
    yield indented(Text(f"{safe(words[:width])}{more}"), 4)


def _line(sentence: str, style: str = "dim", width: int | None = 300) -> Text:
    return Text(f"  {one_line(sentence, width)}", style)


def _rule(title: str) -> Rule:
    return Rule(Text(title), align="left", style="dim")


_CHUNK: Mapping[str, Callable[[Row], str]] = {
    "Part": lambda chunk: str(chunk["position"] + 1),
    "Characters": "{start_char:,}–{end_char:,}".format_map,
    "State": "{status}".format_map,
    "Confidence": lambda chunk: score(chunk["confidence"]),
    "Quality": lambda chunk: score(chunk["quality"]),
    "Agreement": lambda chunk: share(chunk["agreement"]),
    "Error": lambda chunk: one_line(chunk["error_message"] or "", 60),
}
_CALL: Mapping[str, Callable[[Row], str]] = {
    "Part": lambda call: "–" if call["chunk"] is None else str(call["chunk"] + 1),
    "Stage": "{stage}".format_map,
    "Model": "{provider}/{model}".format_map,
    "Prompt": "{prompt_version}".format_map,
    "Took": lambda call: "cache" if call["cache_hit"] else f"{call['latency_ms'] or 0:,} ms",
    "Tokens": lambda call: f"{call['input_tokens'] or 0:,} + {call['output_tokens'] or 0:,}",
    "Cost": lambda call: dollars(call["cost_usd"]),
    "Outcome": lambda call: one_line(call["outcome"], 60),
}
_JOB: Mapping[str, Callable[[Row], str]] = {
    "Type": "{analysis_type}".format_map,
    "Run": lambda job: one_line(job["run"]),
    "State": "{status}".format_map,
    "Job": "{job_id}".format_map,
}


def _table(columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> RenderableType:
    cells = ([cell(row) for cell in columns.values()] for row in rows)
    return layouts.folded(tuple(columns), cells, header_style="dim")
