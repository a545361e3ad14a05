"""Stored results for people: one after the other, or many in a table; and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from chordwise.cli.rendering import answers, sources
from chordwise.cli.rendering.plain_text import one_line
from chordwise.cli.rendering.words import EXTRACTIVE, score, share
from chordwise.domain import missing_rows
from chordwise.domain.critique import CritiqueOutcome
from chordwise.domain.json_values import JsonObject, objects, text
from chordwise.domain.states import JobStatus
from chordwise.pipeline.runs.stored_results import StoredResult

MOST_IN_FULL = 10
_HEADLINE_WIDTH = 300


def laid_out(results: Sequence[StoredResult]) -> Iterator[RenderableType]:
    """Return a few results in full and many as a table, and who answered where it matters."""
    if len(results) > MOST_IN_FULL:
        yield _table(results)
    else:
        for result in results:
            yield from _in_full(result)
    if any(not result.language_model for result in results):
        yield Text(EXTRACTIVE, style="yellow")


def _in_full(result: StoredResult) -> Iterator[RenderableType]:
    yield Rule(_heading(result), align="left", characters="─", style="dim")
    yield Text(f"  {_measures(result)}", style="dim")
    if result.review_reason:
        yield Text(f"  Review: {one_line(result.review_reason)}", style="yellow")
    for chunk in objects(result.failed_chunks):
        start, end, code = (chunk.get(name) for name in ("start_char", "end_char", "error_code"))
        yield Text(f"  Not covered: characters {start}–{end} ({code})", style="yellow")
    for sentence in missing_rows.sentences(missing_rows.from_json(result.missing_rows)):
        yield Text(f"  {one_line(sentence, _HEADLINE_WIDTH)}", style="yellow")
    yield answers.laid_out(result.analysis_type, result.output)
    yield from _critique(result.critique or {})
    yield Text()


def _critique(critique: JsonObject) -> Iterator[RenderableType]:
    """Say what a critique objects to still, or why there was none; nothing where all is well."""
    if critique.get("outcome") in (CritiqueOutcome.KEPT, CritiqueOutcome.FAILED):
        outcome, reason = text(critique.get("outcome")), text(critique.get("reason"))
        yield Text(f"  Critique {outcome}: {one_line(reason, _HEADLINE_WIDTH)}", style="yellow")
        for each in objects(critique.get("violations")):
            shown = one_line(text(each.get("problem")), _HEADLINE_WIDTH)
            yield Text(f"  {one_line(text(each.get('path')))}: {shown}", style="yellow")


def _heading(result: StoredResult) -> Text:
    heading = Text(one_line(result.source, _HEADLINE_WIDTH), style="bold")
    heading.append(f" · {result.analysis_type}", style="not bold")
    if result.status != JobStatus.SUCCEEDED:
        heading.append(f" · {result.status}", style="yellow")
    if result.needs_review:
        heading.append(" · needs review", style="yellow")
    return heading


def _measures(result: StoredResult) -> str:
    who = f"{result.provider}/{result.model}" + ("" if result.language_model else " (built in)")
    parts = [
        f"confidence {result.confidence:.2f}",
        f"quality {score(result.quality)}",
        f"coverage {share(result.coverage)}",
        *([] if result.agreement is None else [f"agreement {share(result.agreement)}"]),
        *(_critiqued(result.critique or {})),
        who,
        *(["reused"] if result.reused else []),
    ]
    return one_line(" · ".join(parts))


def _critiqued(critique: JsonObject) -> list[str]:
    """Return what a critique led to where nothing more has to be said about it."""
    outcome = text(critique.get("outcome"))
    is_well = outcome in (CritiqueOutcome.PASSED, CritiqueOutcome.REVISED)
    return [f"critique {outcome}"] if is_well else []


def _table(results: Sequence[StoredResult]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Document", max_width=sources.WIDTH, overflow="fold")
    types = {result.analysis_type for result in results}
    if len(types) > 1:
        table.add_column("Type", no_wrap=True)
    table.add_column("Conf.", justify="right", no_wrap=True)
    table.add_column("Answer", ratio=1)
    documents = sources.shortened([result.source for result in results])
    for document, result in zip(documents, results, strict=True):
        kind = [result.analysis_type] if len(types) > 1 else []
        table.add_row(document, *kind, f"{result.confidence:.2f}", _answer(result))
    return table


def _answer(result: StoredResult) -> Text:
    answer = answers.headline(result.analysis_type, result.output)
    shown = Text(one_line(answer, 140))
    if result.status != JobStatus.SUCCEEDED:
        lost = missing_rows.losses(missing_rows.from_json(result.missing_rows))
        why = "".join(f": {one_line(said)}" for said in missing_rows.sentences(lost))
        shown.append(f" ({result.status}{why.removesuffix('.')})", style="yellow")
    if result.needs_review:
        shown.append(" (needs review)", style="yellow")
    return shown
