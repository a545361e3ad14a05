"""Tests of what users see of running batches: names, start and deadline."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs import run_control
from chordwise.relations import progress
from chordwise.relations.progress import BatchWait
from chordwise.rendering import live as rendered
from chordwise.rendering.live import ProgressLines
from chordwise.rendering.run_waits import RunWatch
from chordwise.settings import Settings
from chordwise.storage.database import driver
from tests.fakes.batch_nights import (
    OTHER,
    in_batches,
    opened,
    pass_hours,
    schedule,
    work_until_finished,
)
from tests.fakes.commands import output_of, point_to
from tests.fakes.pipeline import PARAGRAPH, Pipeline
from tests.peers.batch_provider import BatchProvider


@pytest.fixture
def provider() -> BatchProvider:
    provider = BatchProvider()
    provider.holds = True
    return provider


@pytest.fixture
def pipeline(small_chunks: Settings, provider: BatchProvider) -> Pipeline:
    return opened(small_chunks, provider)


@pytest.fixture
def show(
    small_chunks: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[tuple[str, ...]], str]:
    point_to(small_chunks, monkeypatch)

    def shown(arguments: tuple[str, ...]) -> str:
        return output_of("runs", *arguments).out

    return shown


def waits_of(pipeline: Pipeline, submission: Submission) -> Sequence[BatchWait]:
    with pipeline.context.database.read() as session:
        return progress.of_run(driver(session), submission.run_id)


def in_words(pipeline: Pipeline, submission: Submission) -> list[str]:
    return [line.plain for line in rendered.batch_lines(waits_of(pipeline, submission))]


def test_a_run_shows_the_batches_it_waits_for(
    pipeline: Pipeline, show: Callable[[tuple[str, ...]], str]
) -> None:
    pipeline.analyze(PARAGRAPH, OTHER, options=in_batches())
    schedule(pipeline)

    shown = " ".join(show(("latest",)).split())
    (listed,) = json.loads(show(("latest", "--json")))["batches"]

    assert "Batch scripted/script-1 · batch-1 · running · 2 questions · since 20" in shown
    assert "· online after 20" in shown
    assert (listed["provider_id"], listed["questions"], listed["done"]) == ("batch-1", 2, 0)
    assert listed["since"] < listed["until"]


def test_questions_not_yet_in_a_batch_are_shown_as_gathered(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """The run of the same question waits for the same batch; an error of the provider is shown."""
    submission = pipeline.analyze(PARAGRAPH, options=in_batches())
    following = pipeline.submit(f" {PARAGRAPH}", options=in_batches())

    (wait,) = waits_of(pipeline, submission)
    (line,) = in_words(pipeline, submission)

    assert (wait.batch_id, wait.status, wait.questions) == (None, "gathering", 1)
    assert "gathering · 1 question · since" in line
    assert "1 question for the next batch, online after" in rendered.in_short([wait])
    pipeline.work(following)
    schedule(pipeline)
    (wait,) = waits_of(pipeline, following)
    assert (wait.provider_id, wait.questions) == ("batch-1", 1)
    provider.statuses = {"retrieve": 401}
    pass_hours(pipeline, 1)
    schedule(pipeline)
    assert in_words(pipeline, submission)[0].endswith("It says 401.")


def test_a_shared_batch_shows_how_many_of_its_questions_are_of_other_runs(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    mine = pipeline.submit(PARAGRAPH, options=in_batches())
    others = pipeline.submit(OTHER, f"{OTHER} Again.", options=in_batches())
    pipeline.work(mine)
    pipeline.work(others)
    schedule(pipeline)
    assert "1 question (3 in all)" in in_words(pipeline, mine)[0]

    pipeline.execute("""UPDATE batches SET counts = '{"total": 3, "completed": 1, "failed": 1}'""")

    assert "2 questions (2 of 3 done)" in in_words(pipeline, others)[0]
    assert provider.batches[0].fates is None


def test_a_finished_run_waits_for_nothing(pipeline: Pipeline, provider: BatchProvider) -> None:
    done = pipeline.submit(PARAGRAPH, options=in_batches())
    provider.holds = False
    work_until_finished(pipeline, done)
    provider.holds = True
    cancelled = pipeline.analyze(OTHER, options=in_batches())
    schedule(pipeline)

    run_control.cancel(pipeline.context.database, cancelled.run_id)

    assert waits_of(pipeline, done) == waits_of(pipeline, cancelled) == ()


def test_a_wait_shows_its_reason_and_prints_the_explanation_once(pipeline: Pipeline) -> None:
    submission = pipeline.analyze(PARAGRAPH, options=in_batches())
    schedule(pipeline)
    warned: list[str] = []
    said: list[str] = []
    now = [0.0]

    def pass_a_while(_seconds: float) -> None:
        now[0] += 25
        if now[0] > 1_000:
            pipeline.execute("UPDATE runs SET status = 'paused'")

    watch = RunWatch(
        pipeline.context.settings,
        pipeline.context.database,
        warned.append,
        clock=lambda: now[0],
        pause=pass_a_while,
    )
    watch.wait_until_over(submission.run_id, ProgressLines(said.append, lambda: now[0]))

    assert len(warned) == 1
    assert warned[0].startswith("Batches are answered within a day")
    assert "1 question in 1 batch since 20" in said[0]
    assert "online after 20" in said[0]
    assert len(said) == 2
