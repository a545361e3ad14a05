"""Tests that the synthesis of a list takes time and memory in proportion to its rows."""

from __future__ import annotations

import sys
import tracemalloc
import uuid
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import TypeAlias

import pytest

from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.places import Places
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.asking.assessment import AssessedAnswer
from chordwise.pipeline.asking.merge import Synthesizer
from chordwise.pipeline.asking.question import about_part
from chordwise.pipeline.jobs import job_results
from chordwise.pipeline.jobs.job_results import JobInput
from chordwise.storage import chunks, results
from chordwise.storage.chunk_work import JobEnd
from tests.fakes.asking import ignore
from tests.fakes.order_rows import SCHEMA, extracting
from tests.fakes.scripted_model import ScriptedModel

SIZES = (100, 400)
FACTOR = 4
ROWS_OF_CHUNK = 25
MODEL = ScriptedModel([extracting()], repeat_last=True)
OPTIONS = (AnalysisOptions(schema=SCHEMA), AnalysisOptions(instructions="names"))
Trace: TypeAlias = "Callable[[FrameType, str, object], Trace | None]"
TASK = AnalysisTask(
    analysis_type=AnalysisType.EXTRACTION,
    stage=Stage.ANALYZE,
    options=OPTIONS[0],
)


def synthesis_of(size: int) -> Callable[[], JobEnd]:
    lines = [f"Part-{number:06} costs {number:06} EUR.\n" for number in range(size)]
    text, length = "".join(lines), len(lines[0]) * ROWS_OF_CHUNK
    parts = []
    for start in range(0, len(text), length):
        task, source = about_part(TASK, Source(text), start, start + length)
        answer = ask(Question(model=MODEL, task=task, source=source, record_check=ignore))
        ended = chunks.answered(answer)
        parts.append(replace(ended, start_char=start, end_char=start + length))
    document = Question(model=MODEL, task=TASK, source=Source(text), record_check=ignore)
    ids = {"id": uuid.uuid4(), "document_id": uuid.uuid4()}
    job = JobInput(**ids, task=TASK, text=text, places=Places, wants_language_model=True)

    def synthesize() -> JobEnd:
        answers = [chunks.answer_of(part) for part in parts]
        synthesis = Synthesizer(document=document).synthesize(answers)
        examined = AssessedAnswer(answer=synthesis.answer)
        return job_results.with_result(job, parts, synthesis, examined)

    return synthesize


def steps_in(work: Callable[[], object], event_name: str = "opcode") -> int:
    """Return how often an event of a tracer occurs: instructions, or calls."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Trace | None:
        nonlocal count
        frame.f_trace_opcodes = event_name == "opcode"
        count += event == event_name
        return trace if event_name == "opcode" else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("options", OPTIONS, ids=["schema", "items"])
def test_joining_is_proportional_to_the_number_of_chunks(options: AnalysisOptions) -> None:
    analysis = analysis_for(AnalysisType.EXTRACTION)

    def steps(size: int) -> int:
        answers = [_an_answer(number, options) for number in range(size)]
        return steps_in(lambda: analysis.join(answers, options))

    assert steps(FACTOR * 100) < 1.1 * FACTOR * steps(100)


def _an_answer(number: int, options: AnalysisOptions) -> JsonObject:
    span: JsonObject = {"quote": "it", "start_char": number, "end_char": number + 2}
    if options.schema is None:
        field: JsonObject = {"item": "names", "status": "found", "value": str(number), **span}
        return {"fields": [field]}
    rows: list[JsonValue] = [{"name": str(number), "price": number}]
    evidence: list[JsonValue] = [{"path": "/line_items/0", **span}]
    return {"data": {"line_items": rows}, "evidence": evidence}


@pytest.mark.nightly
def test_time_and_memory_of_a_synthesis_are_proportional_to_the_rows() -> None:
    small, large = (synthesis_of(size) for size in SIZES)
    small()  # fills caches
    peaks = []
    for work in (small, large):
        tracemalloc.start()
        work()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    calls = steps_in(large, "call") / steps_in(small, "call")

    assert calls < 1.1 * FACTOR
    assert peaks[1] / peaks[0] < 1.25 * FACTOR


def test_the_facts_of_long_results_are_held_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FACTS_AT_ONCE", 100)

    end = synthesis_of(200)()

    assert end.result is not None
    assert sum(map(len, end.result.more_facts)) < 100 * 300
