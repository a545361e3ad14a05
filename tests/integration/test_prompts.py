"""Tests of runs with the user's own prompts: what is asked, and what is stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, options_from
from chordwise.domain.json_values import objects
from chordwise.errors import ConfigurationError, UsageError
from chordwise.pipeline.intake.run_options import identity, requested, run_options
from chordwise.settings import Profile, PromptSettings, Settings
from tests.fakes.pipeline import PARAGRAPH, a_pipeline, a_run, a_summary

OWN = "system = 'In short. $instructions $schema'\nuser = '''$mark\n$text\n$mark'''\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "summary.analyze@brief.toml").write_text(OWN, "utf-8")
    return folder


def with_folder(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"prompts": PromptSettings(folder=folder)})


def test_workers_ask_with_the_stored_text(settings: Settings, folder: Path) -> None:
    changed = with_folder(settings, folder)
    profile = Profile(prompt="brief", model="scripted")
    pipeline = a_pipeline(settings, a_summary("rebuilt in 1856"))
    submission = pipeline.submit(PARAGRAPH, options=run_options(changed, profile, "short"))
    (folder / "summary.analyze@brief.toml").unlink()

    pipeline.work(submission)

    (request,) = pipeline.model.requests
    result = pipeline.result(pipeline.job(submission).id)
    assert request.system.startswith("In short.")
    assert result.prompt_version == request.prompt_version
    stored = pipeline.rows("SELECT version, system FROM prompt_versions WHERE version ~ 'brief'")
    assert stored == [(result.prompt_version, "In short. $instructions $schema")]
    assert pipeline.rows("SELECT * FROM stale_results") == []


def test_an_edited_template_is_asked_again(settings: Settings, folder: Path) -> None:
    changed = with_folder(settings, folder)
    options = run_options(changed, Profile(prompt="brief", model="scripted"))
    pipeline = a_pipeline(settings, a_summary("rebuilt in 1856"), repeat_last=True)
    pipeline.analyze(PARAGRAPH, options=options)
    pipeline.analyze(PARAGRAPH, options=replace(options))
    (folder / "summary.analyze@brief.toml").write_text(OWN.replace("short", "brief"), "utf-8")
    letters = changed.model_copy(update={"profiles": {"letters": Profile(prompt="brief")}})
    edited = requested(letters, Profile(model="scripted"), {"profile": "letters"})

    pipeline.analyze(PARAGRAPH, options=edited)

    assert [request.system[:9] for request in pipeline.model.requests] == ["In short.", "In brief."]


def test_a_variant_without_a_template_is_refused(settings: Settings, folder: Path) -> None:
    changed = with_folder(settings, folder)

    with pytest.raises(UsageError, match="no folder of prompts"):
        run_options(settings, Profile(prompt="brief"))
    with pytest.raises(ConfigurationError, match="no prompt “long”"):
        run_options(changed, Profile(prompt="long"))
    with pytest.raises(UsageError, match="has no template for classification"):
        run_options(changed, Profile(prompt="brief", labels=["a", "b"]))


def test_meanings_and_language_are_part_of_the_question(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    plain = AnalysisOptions(labels=("a", "b"))
    described = replace(plain, label_descriptions={"b": "second", "a": "first"})
    questions = [plain, described, replace(described, answer_language="de")]

    kind = AnalysisType.CLASSIFICATION
    hashes = {
        identity(pipeline.context.settings, kind, a_run(kind, analysis=question))
        for question in questions
    }
    submission = pipeline.submit(PARAGRAPH, options=a_run(kind, analysis=questions[-1]))

    assert len(hashes) == len(questions)
    assert options_from(pipeline.job(submission).options) == questions[-1]


def test_a_pack_asks_for_all_of_its_types(settings: Settings) -> None:
    options = run_options(settings, Profile(pack="support", model="extractive"), "support")
    pipeline = a_pipeline(settings)

    submission = pipeline.analyze(PARAGRAPH, options=options)

    results = "SELECT split_part(prompt_version, '@', 1) FROM results ORDER BY 1"
    assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}
    assert [name for (name,) in pipeline.rows(results)] == [
        "classification.analyze",
        "extraction.schema.analyze",
        "sentiment.analyze",
    ]


def test_a_quote_from_a_template_example_is_refused_and_counted(settings: Settings) -> None:
    profile = Profile(pack="support", types=["classification"], model="scripted")
    options = run_options(settings, profile, "leaking")
    (example,) = options.analysis.examples
    pipeline = a_pipeline(settings, json.dumps(example.answer), repeat_last=True)

    submission = pipeline.analyze(PARAGRAPH, options=options)

    result = pipeline.result(pipeline.job(submission).id)
    assert [failure["check"] for failure in objects(result.failed_checks)] == ["example"] * 2
    assert (result.quality, result.needs_review) == (0, True)
    grounded = "SELECT DISTINCT grounded FROM facts WHERE quote IS NOT NULL"
    assert pipeline.rows(grounded) == [(False,)]
    assert options_from(pipeline.job(submission).options) == options.analysis
