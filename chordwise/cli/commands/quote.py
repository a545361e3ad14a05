"""Commands 7: Estimate the tokens and the cost of an analysis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.command import ExcludeFields
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.cli.request import Arguments, Options, Paths
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import approximate, counted
from chordwise.domain.states import Lane
from chordwise.errors import ExitCode
from chordwise.llm.prices import BATCH
from chordwise.pipeline.intake.run_options import RunOptions, requested
from chordwise.pipeline.models.budgets import PRICE_HINT
from chordwise.pipeline.quoting import quote as quoting
from chordwise.pipeline.quoting.quote import (
    ASSUMED,
    Quote,
    QuotedLine,
    amount,
    ask_sample,
    expected_cost,
)
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.readers.discovery import STDIN, discover
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import Screen


def quote(
    invocation: Invocation,
    paths: Paths,
    arguments: Annotated[Arguments, ExcludeFields("run_name", "no_cache", "yes")],
    options: Annotated[Options, ExcludeFields("save_as", "family", "nightly", "budget_usd")],
    *,
    sample: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Send N chunks of each type to the model; costs money."
        ),
    ] = 0,
    as_json: AsJson = False,
) -> ExitCode:
    """Estimate the tokens and the cost of an analysis. Only --sample calls a model.

    chordwise quote reports/ --model openai/gpt-6.1-terra --lane batch

    chordwise quote reports/ -t summary -t extraction --sample 10
    """
    run_options = requested(invocation.settings(), options, arguments)
    files = discover(paths)
    with access.reading_context(access.reach(invocation)) as quoter:
        documents = quoting.read_for(quoter, files, run_options)
        tally = quoting.gather(quoter, documents, run_options, sample)
        estimate = quoting.priced(quoter, tally)
        if sample and estimate.lines:
            questions = counted(sum(len(kind.sample) for kind in tally.kinds.values()), "question")
            cost = expected_cost(estimate, tally)
            costs = "unknown" if cost is None else f"at most {dollars(cost)}"
            invocation.screen.info(f"Sending a sample of {questions}. Cost: {costs}.")
            ask_sample(quoter, tally, fresh=run_options.fresh)
            estimate = quoting.priced(quoter, tally)
    if as_json:
        invocation.screen.write_json(**quoting.members(estimate))
    else:
        lane = run_options.lane if "lane" in options.model_fields_set else None
        invocation.screen.show(*render(estimate, lane))
    return ExitCode.INCOMPLETE if estimate.unread else ExitCode.SUCCESS


def announce(
    context: ReadingContext,
    paths: Sequence[str],
    options: RunOptions,
    budget_usd: Decimal,
    screen: Screen,
) -> None:
    """Show the expected cost of a run and warn if its budget may not suffice.

    The numbers are those of `quote`, in the lane of the run. The files are read for the estimate
    and again for the run; standard input cannot be read twice and gets no estimate.

    Raises:
        UsageError: The paths no longer match any file.
        ConfigurationError: The model cannot be used as configured.
        ServiceUnavailableError: The database cannot be reached.
    """
    if STDIN in paths:
        screen.note("The cost of standard input cannot be estimated in advance.")
        return
    estimate = quoting.estimate_files(context, discover(paths), options)
    if estimate.lines:
        screen.info_renderables(_table(estimate, are_all_shown=False))
    for sentence in sentences(estimate, budget_usd):
        screen.info(sentence)


def sentences(estimate: Quote, budget_usd: Decimal) -> Iterator[str]:
    """Return the expected cost against a budget, with a warning if the budget may not suffice."""
    expected, budget = amount(estimate.total), dollars(budget_usd)
    yield f"Expected cost: {expected}. Budget: {budget}."
    if estimate.total is None or budget_usd >= estimate.total.high:
        return
    likely = "will probably" if budget_usd < estimate.total.typical else "may"
    yield (
        f"Warning: the budget {likely} not suffice. The run then pauses; continue it with "
        "`chordwise continue RUN --budget USD`."
    )


_NUMBERS = ("In", "Out", "Cost", "Between")
_COLUMNS = ("Type", "Model", "Lane", *_NUMBERS)
_MAX_UNREAD = 5
_SAMPLE = "--sample 10"


def render(estimate: Quote, lane: Lane | None, sample: str = _SAMPLE) -> Iterator[RenderableType]:
    """Return the table, the totals, and the assumptions behind the numbers.

    Without a lane, the costs of all available lanes are shown. `sample` is the option that sends
    a sample to the model; empty for none.
    """
    if estimate.lines:
        yield _table(estimate, are_all_shown=lane is None)
    if (read := estimate.transcription) is not None:
        scans = f"{one_line(read.model)} first reads {counted(read.pages, 'page')} of scans"
        yield Text(f"{scans}: {amount(read.cost)}, assuming typical page lengths.")
    yield from (Text(_in_words(line), style="dim") for line in estimate.lines)
    cached = f"; {counted(estimate.cached, 'question')} cached and free" if estimate.cached else ""
    yield Text(
        f"{counted(estimate.documents, 'document')} · {counted(estimate.jobs, 'analysis')}, "
        f"{estimate.reused:,} of them already stored and free{cached}."
    )
    totals = estimate.totals
    if lane is not None and estimate.lines:
        lanes = dict.fromkeys(line.lane for line in estimate.lines)
        totals = {" and ".join(lanes): estimate.total}
    for name, cost in totals.items():
        yield Text(f"Total, {name}: {amount(cost)}")
    if not estimate.lines:
        yield Text(f"Total: {amount(estimate.total)}")
    yield from (Text(remark, style="dim") for remark in remarks(estimate, lane, sample))


def remarks(estimate: Quote, lane: Lane | None, sample: str = _SAMPLE) -> Iterator[str]:
    """Return the assumptions and gaps of a quote, one sentence each."""
    for counter, is_exact in {line.counter: line.counts_exactly for line in estimate.lines}.items():
        yield f"Input tokens are {'counted' if is_exact else 'estimated'} by {counter}."
    if any(line.basis == ASSUMED for line in estimate.lines):
        remedy = f"; {sample} measures it" if sample else ""
        yield f"Output length is assumed, so the intervals are wide{remedy}."
    for model in dict.fromkeys(_unpriced(estimate)):
        yield f"The price of {one_line(model)} is unknown. {PRICE_HINT}"
    if lane is Lane.BATCH:
        yield from _without_batches(estimate)
    if estimate.duplicates:
        yield f"Duplicates skipped: {estimate.duplicates:,}."
    for unread in estimate.unread[:_MAX_UNREAD]:
        yield f"Not included: {one_line(unread.error.what)}"
    if len(estimate.unread) > _MAX_UNREAD:
        yield f"… and {len(estimate.unread) - _MAX_UNREAD:,} more unreadable files."


def _unpriced(estimate: Quote) -> Iterator[str]:
    yield from (line.model for line in estimate.lines if line.costs[line.lane] is None)
    if estimate.transcription is not None and estimate.transcription.cost is None:
        yield estimate.transcription.model


def _without_batches(estimate: Quote) -> Iterator[str]:
    for model in dict.fromkeys(line.model for line in estimate.lines if line.lane != BATCH):
        yield f"{one_line(model)} has no Batch API; it uses the online lane."
    if any(line.lane == BATCH for line in estimate.lines):
        yield "Questions unanswered after batch.spill_over_hours are asked at the online price."


def _table(estimate: Quote, *, are_all_shown: bool) -> RenderableType:
    """Return the numbers in all available lanes, or only in the lane of the run.

    A narrow terminal shows the two bounds on separate lines and folds long names.
    """
    wide = [
        _row(line, lane)
        for line in estimate.lines
        for lane in (line.costs if are_all_shown else (line.lane,))
    ]
    narrow = [(*row[:-1], row[-1].replace("–", "–\n")) for row in wide]
    return layouts.FirstThatFits(
        layouts.table(_COLUMNS, wide, right=_NUMBERS),
        layouts.folded(_COLUMNS, narrow, ("Type", "Lane", *_NUMBERS), right=_NUMBERS),
    )


def _row(line: QuotedLine, lane: str) -> tuple[str, ...]:
    cost = line.costs[lane]
    input_tokens, output_tokens = (
        approximate(round(tokens.typical)) for tokens in (line.input_tokens, line.output_tokens)
    )
    kind = (line.analysis_type, one_line(line.model), lane)
    if cost is None:
        return (*kind, input_tokens, output_tokens, "unknown", "")
    between = "" if cost.low == cost.high else f"{dollars(cost.low)}–{dollars(cost.high)}"
    return (*kind, input_tokens, output_tokens, dollars(cost.typical), between)


def _in_words(line: QuotedLine) -> str:
    joining = round(line.syntheses.typical)
    joins = f", {joining:,} syntheses" if joining else ""
    examining = round(line.critiques.typical)
    examines = f", {examining:,} critiques and revisions" if examining else ""
    tokens = line.output_tokens
    low, high = (approximate(round(number)) for number in (tokens.low, tokens.high))
    basis = f"{line.basis}, {line.observations:,} observations" if line.observations else line.basis
    chunks = f"{counted(line.chunks, 'chunk')} of at most {line.chunk_tokens:,} tokens"
    questions = f"{chunks}, {counted(line.questions, 'question')}{joins}{examines}"
    return (
        f"{line.analysis_type} by {one_line(line.model)}: {questions}; "
        f"output {low} to {high} tokens, {basis}."
    )
