"""`chordwise explain`: how the answer for a document was produced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.rule import Rule
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.critique import CritiqueOutcome
from chordwise.domain.json_values import objects, text
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import counted, money, score, share
from chordwise.pipeline.runs import explanation
from chordwise.pipeline.runs.explanation import Call, ExplainedChunk, ExplainedStep, Explanation
from chordwise.rendering import layouts
from chordwise.rendering import results as rendered_results
from chordwise.rendering.plain_text import encoded, local_time, one_line, safe
from chordwise.rendering.screen import indented

_TEXT_CHARACTERS = 1_200
_MAX_CHUNKS = 3
_MAX_PATHS = 20
_LINE = 300


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
        job_id = explanation.find(session, name)
        parts = None if as_json else _chunk_range(chunk)
        found = explanation.explain(session, settings, job_id, parts)
        steps = explanation.steps(session, settings, job_id)
    if as_json:
        invocation.screen.write_json(explanation=found, steps=steps)
        return
    invocation.screen.show(*_render(found, chunk), *(() if chunk else _later(steps)))


def _chunk_range(chunk: int | None) -> range:
    return range(_MAX_CHUNKS) if chunk is None else range(chunk - 1, chunk)


def _render(found: Explanation, chunk: int | None) -> Iterator[RenderableType]:
    heading = f"{found.analysis_type} by {found.model} · {found.status} · job {found.job_id}"
    yield Text(one_line(heading), style="bold")
    yield Text(f"  {_described(found)}", style="dim")
    for sentence in filter(None, (found.error_message, found.hint)):
        yield Text(f"  {one_line(sentence)}", style="yellow")
    yield from _corrections(found)
    if found.result is not None:
        yield from rendered_results.render([found.result])
    if found.reused_from is not None and not found.calls:
        sentence = f"Uses the answer of another job: chordwise explain {found.reused_from}"
        yield Text(f"  {sentence}", style="dim")
    else:
        yield _chunks(found.chunks)
        yield from _critique(found)
        yield from _examples(found)
        yield _calls(found.calls)
        cost = money(found.cost_usd, found.unpriced_calls, len(found.calls))
        yield Text(f"  Total: {cost}", style="dim")
    count = len(found.chunks)
    for position in _chunk_range(chunk):
        if position < count:
            width = None if chunk else _TEXT_CHARACTERS
            yield from _part(found.chunks[position], count, width)
    if chunk is None and count > _MAX_CHUNKS:
        rest = f"{count - _MAX_CHUNKS} more parts; use --chunk N for one, --json for all."
        yield Text(rest, style="yellow")
    yield from _other_jobs(found)


def _described(found: Explanation) -> str:
    document = found.document
    parts = [document.source, document.media_type, f"{document.character_count:,} characters"]
    return one_line(" · ".join([*parts, f"run {found.run}"]))


def _corrections(found: Explanation) -> Iterator[RenderableType]:
    """Show the feedback, with the corrected value before the judged value."""
    for remark in found.remarks:
        sentence = f"{remark.verdict} {remark.field or remark.path or 'the whole answer'}"
        if remark.corrected is not None:
            sentence += f": {encoded(remark.corrected)} (was {encoded(remark.judged)})"
        whose = f" · {remark.author or 'no author'}, {local_time(remark.created_at)}"
        note = f" · {remark.note}" if remark.note else ""
        yield Text(f"  Feedback: {one_line(sentence + whose + note, _LINE)}", style="green")


def _chunks(chunks: Sequence[ExplainedChunk]) -> RenderableType:
    """Return the parts of the document with their outcomes."""
    rows = [
        (
            str(each.position + 1),
            f"{each.start_char:,}–{each.end_char:,}",
            each.status,
            "–" if each.confidence is None else f"{each.confidence:.2f}",
            "–" if each.quality is None else score(each.quality),
            "–" if each.agreement is None else share(each.agreement),
            one_line(each.error_message or "", 60),
        )
        for each in chunks
    ]
    names = ("Part", "Characters", "State", "Confidence", "Quality", "Agreement", "Error")
    return layouts.folded(names, rows, header_style="dim")


def _critique(found: Explanation) -> Iterator[RenderableType]:
    """Show the objections behind a revision and what it changed.

    The rendered result shows the other outcomes of a critique.
    """
    critique = (found.result["critique"] if found.result else None) or {}
    if critique.get("outcome") != CritiqueOutcome.REVISED:
        return
    for each in objects(critique.get("violations")):
        sentence = f"{text(each.get('path')) or '/'}: {text(each.get('problem'))}"
        yield Text(f"  Objection: {one_line(sentence, _LINE)}", style="dim")
    if found.revised:
        changed = one_line(", ".join(found.revised[:_MAX_PATHS]), _LINE)
        yield Text(f"  Changed by the revision: {changed}", style="dim")


def _examples(found: Explanation) -> Iterator[RenderableType]:
    """Show the learned examples in the prompts, the most similar document last."""
    for each in found.examples:
        sentence = (
            f"{each.source}, version {each.version}, {counted(len(each.feedback_ids), 'remark')}"
        )
        yield Text(f"  Example in the prompt: {one_line(sentence, _LINE)}", style="dim")


def _other_jobs(found: Explanation) -> Iterator[RenderableType]:
    others = [each for each in found.jobs if each.job_id != found.job_id]
    if others:
        rows = [
            (each.analysis_type, one_line(each.run), each.status, str(each.job_id))
            for each in others
        ]
        yield Rule(Text("Other jobs about this document"), align="left", style="dim")
        yield layouts.folded(("Type", "Run", "State", "Job"), rows, header_style="dim")


def _part(part: ExplainedChunk, count: int, width: int | None) -> Iterator[RenderableType]:
    place = f"Part {part.position + 1} of {count} · characters {part.start_char}–{part.end_char}"
    measures = [part.status]
    if part.confidence is not None and part.quality is not None:
        measures.append(f"confidence {part.confidence:.2f} · quality {score(part.quality)}")
    yield Rule(Text(f"{place} · {' · '.join(measures)}"), align="left", style="dim")
    if part.prompt is None:
        yield Text(
            "  The prompt cannot be shown: its template or model is unknown here.", style="yellow"
        )
    else:
        yield from _passage("System prompt", part.prompt.system, width)
        yield from _passage("User prompt", part.prompt.user, width)
    yield from _passage("Completion", part.completion or _NOT_KEPT, width)
    for number, sample in enumerate(part.samples[1:], start=2):
        yield from _passage(f"Sample {number} of the vote", sample or _NOT_KEPT, width)
    changes = ", ".join(part.changes[:_MAX_PATHS]) or "nothing"
    if part.completion is not None:
        yield from _passage("Changed by validation", changes, width)
    answer = part.error_message or encoded(part.answer, indent=2)
    yield from _passage("Stored", answer, width)


def _later(steps: Sequence[ExplainedStep]) -> Iterator[RenderableType]:
    for step in steps:
        yield Rule(Text(step.stage.capitalize()), align="left", style="dim")
        yield from _passage("System prompt", step.prompt.system, _TEXT_CHARACTERS)
        yield from _passage("User prompt", step.prompt.user, _TEXT_CHARACTERS)
        yield from _passage("Completion", step.completion or _NOT_KEPT, _TEXT_CHARACTERS)


_NOT_KEPT = "Not in the cache."


def _passage(label: str, words: str, width: int | None) -> Iterator[RenderableType]:
    shown = safe(words[:width] if width else words)
    more = f"\n… {len(words) - width:,} more characters" if width and len(words) > width else ""
    yield Text(f"  {label}", style="bold dim")
    yield indented(Text(f"{shown}{more}"), 4)


def _calls(calls: Sequence[Call]) -> RenderableType:
    rows = [
        (
            "–" if call.chunk is None else str(call.chunk + 1),
            call.stage,
            f"{call.provider}/{call.model}",
            call.prompt_version,
            "cache" if call.cache_hit else f"{call.latency_ms or 0:,} ms",
            f"{call.input_tokens or 0:,} + {call.output_tokens or 0:,}",
            "unknown" if call.cost_usd is None else dollars(call.cost_usd),
            one_line(call.error_message or ("valid" if call.valid else "not valid"), 60),
        )
        for call in calls
    ]
    names = ("Part", "Stage", "Model", "Prompt", "Took", "Tokens", "Cost", "Outcome")
    return layouts.folded(names, rows, header_style="dim")
