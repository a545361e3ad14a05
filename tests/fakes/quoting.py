"""A desk at which folders and texts are quoted, over a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisType
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.quoting import quote
from chordwise.pipeline.quoting.quote import Quote, Quoter
from chordwise.settings import Settings
from tests.fakes.commands import point_to, run
from tests.fakes.pipeline import (
    LONG,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    close_all,
    quoting_the_text,
    with_settings,
)

GPT = "openai/gpt-6.1-terra"
SHORT = "The bridge was opened in May. Carts crossed it on the same day."


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A database, two documents in a folder, and the command."""

    pipeline: Pipeline
    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def quoter(self) -> Quoter:
        """Return what quotes as the command does, over the pipeline's database."""
        context = self.pipeline.context
        return Quoter(settings=context.settings, database=context.database, models=context.models)

    def call(self, *arguments: str) -> tuple[int, str, str]:
        """Quote the folder; return the exit code and what was written."""
        self.capsys.readouterr()
        code = run(["quote", str(self.folder), *arguments])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def quote(self, *arguments: str) -> JsonObject:
        """Quote the folder as JSON."""
        return json_values.as_object(json.loads(self.call("--json", *arguments)[1]))

    def count(self, table: str) -> object:
        """Return how many rows a table has."""
        return self.pipeline.value(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own names

    def estimate(self, *texts: str, options: RunOptions | None = None) -> Quote:
        """Quote texts as a run of the pipeline would ask them."""
        return quote.estimate(self.quoter, map(a_document, texts), options or a_run())


@contextmanager
def a_desk(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Desk]:
    """Point the command to this test's servers, with no key for any provider."""
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "bridge.txt").write_text(SHORT, "utf-8")
    (folder / "harbour.txt").write_text(LONG, "utf-8")
    monkeypatch.chdir(tmp_path)
    point_to(settings, monkeypatch)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    narrow = with_settings(settings, "pipeline", chunk_tokens=300)
    pipeline = a_pipeline(narrow, quoting_the_text, repeat_last=True)
    yield Desk(pipeline=pipeline, folder=folder, capsys=capsys)
    close_all()


def line_of(quoted: JsonObject) -> JsonObject:
    """Return the only line."""
    (line,) = json_values.objects(quoted["lines"])
    return line


def typical(value: object) -> float:
    """Return what is expected of an interval."""
    assert isinstance(value, dict)
    assert value["low"] <= value["typical"] <= value["high"]
    return float(value["typical"])


def quote_of(desk: Desk) -> Quote:
    """Return the quote of a text for a model whose price is known."""
    options = RunOptions(types=(AnalysisType.SUMMARY,), model=GPT)
    return desk.estimate(SHORT, options=options)
