"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from chordwise.domain.states import Lane
from chordwise.domain.tasks import MAX_VOTES, AnalysisType

Paths: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="Files, folders, patterns in quotes, or - for stdin."),
]
Types: TypeAlias = Annotated[
    list[AnalysisType] | None,
    typer.Option("--type", "-t", help="What to find out; may be repeated. Default: summary."),
]
OnlyTypes: TypeAlias = Annotated[
    list[AnalysisType] | None,
    typer.Option("--type", "-t", help="Only of this type; may be repeated."),
]
Instructions: TypeAlias = Annotated[
    str, typer.Option(metavar="TEXT", help="What to pay attention to; for extraction: the items.")
]
SchemaFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--schema", metavar="FILE.json", help="A JSON Schema for an extraction."),
]
Labels: TypeAlias = Annotated[
    str, typer.Option(metavar="A,B,C", help="The labels to choose from in a classification.")
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A name in [models], provider/model, a tier, or auto."),
]
Profile: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="Ask what [profiles.NAME] says; options go before it.")
]
TextColumn: TypeAlias = Annotated[
    str,
    typer.Option(metavar="NAME", help="CSV, JSONL, workbooks: a document per row, text from here."),
]
IdColumn: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="The column that names the rows; else their numbers.")
]
RunName: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="What to call the run; made up where not given.")
]
Fresh: TypeAlias = Annotated[
    bool, typer.Option("--fresh", help="Ask again even where an answer is stored.")
]
NoCache: TypeAlias = Annotated[
    bool, typer.Option("--no-cache", help="Use no completion again; --fresh implies it.")
]
Nightly: TypeAlias = Annotated[
    bool, typer.Option("--nightly", help="Let the calls of other runs go first.")
]
InLane: TypeAlias = Annotated[
    Lane | None,
    typer.Option("--lane", help="batch: half the price, within a day; else online."),
]
ConfidenceThreshold: TypeAlias = Annotated[
    float,
    typer.Option(min=0, max=1, metavar="0…1", help="Mark answers below this for review."),
]
Votes: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, max=MAX_VOTES, metavar="N", help="Ask each question N times and let them vote."
    ),
]
Critique: TypeAlias = Annotated[
    bool, typer.Option("--critique", help="Examine the answer about a document, and mend it once.")
]
PrinciplesFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--principles", metavar="FILE", help="Examine by these, one on each line."),
]
Budget: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="USD", help="What the run's calls may cost; it pauses before more."),
]
NoWait: TypeAlias = Annotated[
    bool, typer.Option("--no-wait", help="Return at once; the work goes on.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="As one JSON document.")]
Raw: TypeAlias = Annotated[
    bool, typer.Option("--raw", help="Leave texts in CSV and XLSX that begin like formulas.")
]
RunArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's name or id, or latest.")
]
