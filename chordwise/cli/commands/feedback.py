"""Quality: Approve, reject or correct results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Author, OnlyDocument, OnlyTypes
from chordwise.domain.learning.feedback_input import FeedbackInput, parsed
from chordwise.domain.learning.truths import Verdict
from chordwise.domain.number_formats import counted
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.learning import feedback as remarks
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
    outcome: Row = {"stored": 0, "known": 0, "withdrawn": 0, "unmatched": []}
    with access.write(access.reach(invocation)) as session:
        if options.withdraw:
            target = remarks.one(session, options.target, results)
            feedback_ids = {remarks.last(session, target, path).id for path in options.path or [""]}
            for feedback_id in sorted(feedback_ids):
                remarks.withdraw(session, feedback_id, options.author)
            outcome["withdrawn"] = len(feedback_ids)
        elif entered:
            target = remarks.one(session, options.target, results)
            outcome["stored"] = remarks.give(session, target, entered)
            outcome["known"] = len(entered) - outcome["stored"]
        else:
            selection = remarks.in_run(session, options.target, results)
            outcome |= remarks.give_all(session, selection, lines)
    if as_json:
        invocation.screen.write_json(**outcome)
    else:
        _report(invocation.screen, outcome)
    return ExitCode.INCOMPLETE if outcome["unmatched"] else ExitCode.SUCCESS


def _report(screen: Screen, outcome: Row) -> None:
    if outcome["withdrawn"]:
        screen.info(f"{counted(outcome['withdrawn'], 'remark')} withdrawn.")
        return
    note = f"; {outcome['known']:,} already stored" if outcome["known"] else ""
    screen.info(f"{counted(outcome['stored'], 'remark')} stored{note}.")
    unmatched = outcome["unmatched"]
    for line in unmatched[:_MAX_SHOWN]:
        screen.info(f"Line {line['line']}, {line['document']}: {line['reason']}")
    if len(unmatched) > _MAX_SHOWN:
        screen.info(f"… and {len(unmatched) - _MAX_SHOWN:,} more; use --json for all.")


def _entered(options: FeedbackOptions) -> list[FeedbackInput]:
    approve, reject, paths = options.approve, options.reject, options.path
    if approve and reject:
        raise UsageError("--approve and --reject cannot be used together.")
    if options.correct and (approve or reject) and not paths:
        raise UsageError("--correct cannot be used with --approve or --reject of the whole answer.")
    if paths and not (approve or reject or options.withdraw):
        raise UsageError("--path needs --approve, --reject or --withdraw.")
    inputs = []
    for text in options.correct or ():
        place, separator, value = text.partition("=")
        if not separator or not place.strip():
            raise UsageError(f"“{text}” is not PATH=VALUE.", "Example: --correct label=negative")
        inputs.append((Verdict.CORRECTED, place.strip(), parsed(value)))
    if approve or reject:
        verdict = Verdict.APPROVED if approve else Verdict.REJECTED
        inputs += [(verdict, path, None) for path in paths or [""]]
    note, author = options.note, options.author
    return [
        FeedbackInput(verdict=verdict, path=path, value=value, note=note, author=author)
        for verdict, path, value in inputs
    ]
