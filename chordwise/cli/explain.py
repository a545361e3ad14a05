"""`chordwise explain`: why a document was answered as it was."""

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
from chordwise.cli.rendering import layouts
from chordwise.cli.rendering import results as rendered_results
from chordwise.cli.rendering.plain_text import encoded, one_line, safe, score
from chordwise.cli.rendering.screen import indented
from chordwise.domain.money import dollars
from chordwise.pipeline.runs import explanation
from chordwise.pipeline.runs.explanation import Call, ExplainedChunk, Explanation

_TEXT_CHARACTERS = 1_200
_MAX_CHUNKS = 3


def explain(
    invocation: Invocation,
    name: Annotated[
        str, typer.Argument(metavar="JOB|DOCUMENT", help="A job's id, or a part of a source.")
    ],
    *,
    chunk: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only this part of the document, whole.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a document was answered so. Prompts, completions, what was changed, calls and costs.

    chordwise explain service-agreement.md

    chordwise explain service-agreement.md --chunk 2
    """
    settings = access.reach(invocation)
    with access.read(settings) as session:
        found = explanation.explain(session, settings, explanation.find(session, name))
    if as_json:
        invocation.screen.write_json(explanation=found)
        return
    invocation.screen.show(*_laid_out(found, chunk))


def _laid_out(found: Explanation, chunk: int | None) -> Iterator[RenderableType]:
    heading = f"{found.analysis_type} by {found.model} · {found.status} · job {found.job_id}"
    yield Text(one_line(heading), style="bold")
    if found.error_message:
        yield Text(f"  {one_line(found.error_message)}", style="yellow")
    if found.result is not None:
        yield from rendered_results.laid_out([found.result])
    yield _calls(found.calls)
    parts = [each for each in found.chunks if chunk in (None, each.position + 1)]
    for part in parts if chunk else parts[:_MAX_CHUNKS]:
        yield from _part(part, len(found.chunks), None if chunk else _TEXT_CHARACTERS)
    if chunk is None and len(parts) > _MAX_CHUNKS:
        rest = f"{len(parts) - _MAX_CHUNKS} more parts: --chunk N shows one, --json all."
        yield Text(rest, style="yellow")


def _part(part: ExplainedChunk, count: int, width: int | None) -> Iterator[RenderableType]:
    place = f"Part {part.position + 1} of {count} · characters {part.start_char}–{part.end_char}"
    measures = [part.status]
    if part.confidence is not None and part.quality is not None:
        measures.append(f"confidence {part.confidence:.2f} · quality {score(part.quality)}")
    yield Rule(Text(f"{place} · {' · '.join(measures)}"), align="left", style="dim")
    if part.prompt is None:
        yield Text("  The template or the model of this answer is not known here.", style="yellow")
    else:
        yield from _passage("Asked, as the system", part.prompt.system, width)
        yield from _passage("Asked", part.prompt.user, width)
    yield from _passage("Written by the model", part.completion or _NOT_KEPT, width)
    changes = ", ".join(part.changes[:20]) or "nothing"
    if part.completion is not None:
        yield from _passage("Changed by validation", changes, width)
    answer = part.error_message or encoded(part.answer, indent=2)
    yield from _passage("Stored", answer, width)


_NOT_KEPT = "It is not kept: the cache has no completion of this request."


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
