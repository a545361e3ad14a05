"""Quality: Approve, reject or correct results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Author, OnlyDocument, OnlyTypes
from chordwise.domain.learning.feedback_input import FeedbackInput, parsed
from chordwise.domain.learning.truths import Verdict
from chordwise.domain.number_formats import counted
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.learning import feedback as remarks
from chordwise.pipeline.learning.feedback import Given, Signed
from chordwise.relations.relation import Row
from chordwise.relations.results import ResultSelection
from chordwise.rendering.screen import Screen

_MAX_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackOptions:
    """The options of the command."""

    target: Annotated[
        str | None, typer.Argument(metavar="RUN|JOB", help="A run name, a run id, or a job id.")
    ] = None
    approve: Annotated[bool, typer.Option("--approve", help="Mark as right.")] = False
    reject: Annotated[bool, typer.Option("--reject", help="Mark as wrong.")] = False
    correct: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=VALUE", help="Set the right value; may be repeated."),
    ] = None
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Withdraw the last feedback; the history is kept.")
    ] = False
    path: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Approve, reject or withdraw only this value."),
    ] = None
    types: OnlyTypes = None
    document: OnlyDocument = ""
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read feedback from a CSV or JSONL file.")
    ] = None
    note: Annotated[str, typer.Option(metavar="TEXT", help="The reason.")] = ""
    author: Author = ""


def feedback(
    invocation: Invocation, options: FeedbackOptions, *, as_json: AsJson = False
) -> ExitCode:
    """Approve, reject or correct results.

    chordwise feedback latest --document review-7.txt --correct label=negative

    chordwise feedback --file checked.csv
    """
    entered = _entered(options)
    if [bool(entered), bool(options.file), options.withdraw].count(True) != 1:
        raise UsageError(
            "Give one of --approve, --reject, --correct PATH=VALUE, --withdraw, or --file FILE."
        )
    results = ResultSelection(types=tuple(options.types or ()), document=options.document)
    lines = remarks.read(options.file) if options.file else []
    signed = [Signed(entered=entry, note=options.note, author=options.author) for entry in entered]
    with access.write(access.reach(invocation)) as session:
        if options.withdraw:
            outcome = _withdrawn(session, remarks.one(session, options.target, results), options)
        elif signed:
            outcome = remarks.give(session, remarks.one(session, options.target, results), signed)
        else:
            selection = remarks.wanted(session, options.target, results)
            outcome = remarks.give_all(session, selection, lines)
    _report(invocation.screen, outcome, as_json=as_json)
    return ExitCode.INCOMPLETE if outcome.unmatched else ExitCode.SUCCESS


def _withdrawn(session: Session, target: Row, options: FeedbackOptions) -> Given:
    feedback_ids = {remarks.last(session, target, path).id for path in options.path or [""]}
    for feedback_id in sorted(feedback_ids):
        remarks.withdraw(session, feedback_id, options.author)
    return Given(withdrawn=len(feedback_ids))


def _report(screen: Screen, outcome: Given, *, as_json: bool) -> None:
    if as_json:
        screen.write_json(
            stored=outcome.stored,
            known=outcome.known,
            withdrawn=outcome.withdrawn,
            unmatched=outcome.unmatched,
        )
        return
    if outcome.withdrawn:
        screen.info(f"{counted(outcome.withdrawn, 'remark')} withdrawn.")
        return
    note = f"; {outcome.known:,} already stored" if outcome.known else ""
    screen.info(f"{counted(outcome.stored, 'remark')} stored{note}.")
    for entry in outcome.unmatched[:_MAX_SHOWN]:
        screen.info(f"Line {entry['line']}, {entry['document']}: {entry['reason']}")
    if len(outcome.unmatched) > _MAX_SHOWN:
        screen.info(f"… and {len(outcome.unmatched) - _MAX_SHOWN:,} more; use --json for all.")


def _entered(options: FeedbackOptions) -> list[FeedbackInput]:
    """Return the feedback that the options give.

    Raises:
        UsageError: The options contradict each other.
    """
    approve, reject, paths = options.approve, options.reject, options.path
    if approve and reject:
        raise UsageError("--approve and --reject cannot be used together.")
    if options.correct and (approve or reject) and not paths:
        raise UsageError("--correct cannot be used with --approve or --reject of the whole answer.")
    if paths and not (approve or reject or options.withdraw):
        raise UsageError("--path needs --approve, --reject or --withdraw.")
    inputs = [_correction(text) for text in options.correct or ()]
    if approve or reject:
        verdict = Verdict.APPROVED if approve else Verdict.REJECTED
        inputs += [FeedbackInput(verdict=verdict, path=path) for path in paths or [""]]
    return inputs


def _correction(text: str) -> FeedbackInput:
    place, separator, value = text.partition("=")
    if not separator or not place.strip():
        raise UsageError(f"“{text}” is not PATH=VALUE.", "Example: --correct label=negative")
    return FeedbackInput(verdict=Verdict.CORRECTED, path=place.strip(), value=parsed(value))
