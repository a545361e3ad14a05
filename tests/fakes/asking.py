"""Questions about a short text, without a database or a ledger."""

from __future__ import annotations

from dataclasses import replace

from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage
from chordwise.domain.answers import Answer
from chordwise.domain.grounding import Source
from chordwise.llm.model import ChatModel, Completion
from chordwise.pipeline.asking import AskingPolicy, Question, ask
from chordwise.pipeline.asking.check import CheckResult
from tests.fakes.pipeline import PARAGRAPH, a_summary

TEXT = PARAGRAPH
TASK = AnalysisTask(analysis_type=AnalysisType.SUMMARY, stage=Stage.ANALYZE, text=TEXT)
GOOD = a_summary("rebuilt in 1856")
PLAIN = AskingPolicy(prompts=("plain",))
OFFSET = 1_000


def ignore(_completion: Completion, _verdict: CheckResult) -> None:
    """Record no check."""


def question(model: ChatModel, task: AnalysisTask, text: str = TEXT) -> Question:
    """Return a question about a whole document, without a ledger."""
    return Question(model=model, task=task, source=Source(text), record_check=ignore)


def answer_of(model: ChatModel, policy: AskingPolicy = PLAIN, text: str = TEXT) -> Answer:
    """Ask about a text that starts at character 1,000 of its document; return the answer."""
    task, source = replace(TASK, text=text), Source(text, OFFSET)
    return ask(Question(model=model, task=task, source=source, record_check=ignore, policy=policy))
