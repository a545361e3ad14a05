"""What users see while batches are running: which ones, since when, and until when."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from chordwise.cli.rendering import live as rendered
from chordwise.cli.rendering.live import Lines
from chordwise.cli.run_watch import Watch
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs import retry
from chordwise.pipeline.runs import progress
from chordwise.pipeline.runs.progress import BatchWait
from chordwise.settings import Settings
from tests.fakes.batch_nights import OTHER, in_batches, opened, pass_hours, pass_the_night, schedule
from tests.fakes.commands import point_to, run
from tests.fakes.pipeline import PARAGRAPH, Pipeline
from tests.peers.batch_provider import BatchProvider


@pytest.fixture
def provider() -> BatchProvider:
    provider = BatchProvider()
    provider.holds = True
    return provider


@pytest.fixture
def pipeline(small_chunks: Settings, provider: BatchProvider) -> Pipeline:
    """Open a pipeline that hands in at once."""
    return opened(small_chunks, provider)


@pytest.fixture
def show(
    small_chunks: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[tuple[str, ...]], str]:
    """Return the command `runs` over this test's servers, as a function to its output."""
    point_to(small_chunks, monkeypatch)

    def shown(arguments: tuple[str, ...]) -> str:
        capsys.readouterr()
        run(["runs", *arguments])
        return capsys.readouterr().out

    return shown


def found(pipeline: Pipeline, submission: Submission) -> Sequence[BatchWait]:
    with pipeline.context.database.read() as session:
        return progress.of_run(session, submission.run_id)


def in_words(pipeline: Pipeline, submission: Submission) -> list[str]:
    return [line.plain for line in rendered.batch_lines(found(pipeline, submission))]


def test_a_run_says_which_batches_it_waits_for(
    pipeline: Pipeline, show: Callable[[tuple[str, ...]], str]
) -> None:
    """Their names at the provider, how many questions, since when, and what happens then."""
    pipeline.analyze(PARAGRAPH, OTHER, options=in_batches())
    schedule(pipeline)

    shown = " ".join(show(("latest",)).split())
    (listed,) = json.loads(show(("latest", "--json")))["batches"]

    assert "Batch scripted/script-1 · batch-1 · running · 2 questions · since 20" in shown
    assert "· online after 20" in shown
    assert (listed["provider_id"], listed["questions"], listed["done"]) == ("batch-1", 2, 0)
    assert listed["since"] < listed["until"]


def test_questions_that_are_in_no_batch_yet_are_gathered(pipeline: Pipeline) -> None:
    submission = pipeline.analyze(PARAGRAPH, options=in_batches())

    (wait,) = found(pipeline, submission)
    (line,) = in_words(pipeline, submission)

    assert (wait.batch_id, wait.status, wait.questions) == (None, "gathering", 1)
    assert "gathering · 1 question · since" in line
    assert "1 question for the next batch, online after" in rendered.in_short([wait])


def test_a_batch_with_questions_of_other_runs_says_how_many_there_are(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """And how many the provider has dealt with, as far as it counts."""
    mine = pipeline.submit(PARAGRAPH, options=in_batches())
    others = pipeline.submit(OTHER, f"{OTHER} Again.", options=in_batches())
    pipeline.work(mine)
    pipeline.work(others)
    schedule(pipeline)
    assert "1 question (3 in all)" in in_words(pipeline, mine)[0]

    pipeline.execute("""UPDATE batches SET counts = '{"total": 3, "completed": 1, "failed": 1}'""")

    assert "2 questions (2 of 3 done)" in in_words(pipeline, others)[0]
    assert provider.batches[0].fates is None


def test_a_follower_waits_for_the_batch_of_the_other(pipeline: Pipeline) -> None:
    leading = pipeline.submit(PARAGRAPH, options=in_batches())
    following = pipeline.submit(f" {PARAGRAPH}", options=in_batches())
    pipeline.work(leading)
    pipeline.work(following)
    schedule(pipeline)

    (wait,) = found(pipeline, following)

    assert wait.provider_id == "batch-1"
    assert wait.questions == 1


def test_a_provider_that_cannot_be_asked_is_named_with_its_words(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """A wrong key is shown although the batch is out."""
    submission = pipeline.analyze(PARAGRAPH, options=in_batches())
    schedule(pipeline)
    provider.statuses = {"retrieve": 401}
    pass_hours(pipeline, 1)
    schedule(pipeline)

    assert in_words(pipeline, submission)[0].endswith("It says 401.")


def test_a_run_that_is_over_waits_for_nothing(pipeline: Pipeline, provider: BatchProvider) -> None:
    done = pipeline.submit(PARAGRAPH, options=in_batches())
    provider.holds = False
    pass_the_night(pipeline, done)
    provider.holds = True
    called_off = pipeline.analyze(OTHER, options=in_batches())
    schedule(pipeline)

    retry.cancel(pipeline.context.database, called_off.run_id)

    assert found(pipeline, done) == found(pipeline, called_off) == ()


def test_a_wait_says_what_it_waits_for_and_explains_itself_once(pipeline: Pipeline) -> None:
    """A log of a whole night is no longer than what happened in it."""
    submission = pipeline.analyze(PARAGRAPH, options=in_batches())
    schedule(pipeline)
    warned: list[str] = []
    said: list[str] = []
    now = [0.0]

    def pass_a_while(_seconds: float) -> None:
        now[0] += 25
        if now[0] > 1_000:
            pipeline.execute("UPDATE runs SET status = 'paused'")

    watch = Watch(
        pipeline.context.settings,
        pipeline.context.database,
        warned.append,
        clock=lambda: now[0],
        pause=pass_a_while,
    )
    watch.until_over(submission.run_id, Lines(said.append, lambda: now[0]))

    assert len(warned) == 1
    assert warned[0].startswith("Batches are answered within a day")
    assert "1 question in 1 batch since 20" in said[0]
    assert "online after 20" in said[0]
    assert len(said) == 2
