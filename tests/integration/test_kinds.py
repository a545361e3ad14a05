"""Tests that a kind is one file that its package finds: each adds a toy of a kind."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from chordwise import AnalysisRequest, AnalysisType, DocumentAnalyzer
from chordwise import settings as settings_module
from chordwise.errors import ConfigurationError, ReadError
from chordwise.llm.prices import FreePrice, price_of
from chordwise.pipeline.deliveries import delivery_attempts
from chordwise.pipeline.diagnosis.doctor import check_configured_paths
from chordwise.readers.parser_main import extract
from chordwise.readers.reader_output import Extracted, ReadOptions
from chordwise.settings import Settings
from tests.fakes.commands import point_to
from tests.fakes.learning import doubted
from tests.fakes.pipeline import SHORT, a_pipeline, a_run, a_summary, quoting_the_text
from tests.fakes.processes import completed
from tests.fakes.toy_kinds import added, command
from tests.web.conftest import serving

TONE = '''
"""Tone: whether a text shouts."""

from chordwise.domain import schemas
from chordwise.domain.analysis import AnalysisDefinition, AnswerSection


class Tone(AnalysisDefinition):
    principal_fields = ("quote",)
    label_path = "/label"
    complexity = 0.1
    assumed_length = 50, 0.0
    principles = ("The tone is that of the author.",)
    label_columns = {"tone": "label"}
    sections = (
        AnswerSection("Tone", label_path),
        AnswerSection("Heard in", "/signs", members=("sign",)),
    )

    def schema(self, options):
        sign = schemas.closed({"sign": schemas.string(), "quote": schemas.quote()})
        label = schemas.one_of(self.labels(options))
        return schemas.closed({"label": label, "signs": schemas.array(sign)})

    def labels(self, options):
        return ("loud", "quiet")

    def merge(self, answers, options):
        return answers[0]

    def built_in(self):
        return self

    def analyze(self, task):
        mark = "!" if "!" in task.text else "."
        sign = {"sign": mark, "quote": task.text}
        return {"label": "loud" if mark == "!" else "quiet", "signs": [sign]}

    def synthesize(self, task):
        return self.merge(task.answers, task.options)


ANALYSIS = Tone()
'''
PROMPT = 'system = "Say how loud the text is. $instructions $schema"\nuser = "$mark $text $mark"\n'
LOUD = "Stop it!"
ANSWER = {"label": "loud", "signs": [{"sign": "an order", "quote": LOUD}]}


@pytest.fixture
def tone(tmp_path: Path) -> Iterator[AnalysisType]:
    """Add an analysis type and its template."""
    templates = {f"tone.{stage}@1.toml": PROMPT for stage in ("analyze", "synthesize")}
    with (
        added(tmp_path, "chordwise.domain.analyses", {"tone.py": TONE}),
        added(tmp_path, "chordwise.prompts.released", templates),
    ):
        yield AnalysisType("tone")


def test_an_analysis_type_is_a_file(
    tone: AnalysisType, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is asked with its prompt, stored, shown, judged by its label and queued for review."""
    pipeline = a_pipeline(settings, json.dumps(ANSWER))
    point_to(settings, monkeypatch)

    submission = pipeline.analyze(LOUD, options=a_run(tone))
    shown = command(tmp_path, "results", "--run", submission.name, "--type", "tone")

    assert pipeline.model.requests[0].system.startswith("Say how loud the text is.")
    assert pipeline.value("SELECT label FROM document_results") == "loud"
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Tone      loud" in shown.stdout
    assert "1. an order" in shown.stdout
    doubted(pipeline, "loud", "votes disagree")
    assert pipeline.rows("SELECT path, value FROM review_queue") == [("/label", "loud")]
    assert command(tmp_path, "feedback", "latest", "--correct", "label=soft").returncode == 2
    assert command(tmp_path, "feedback", "latest", "--correct", "label=quiet").returncode == 0
    assert pipeline.value("SELECT label FROM document_results") == "quiet"


def test_an_analysis_type_is_answered_by_the_built_in_model(tone: AnalysisType) -> None:
    """Its file has the answer."""
    analysis = DocumentAnalyzer().analyze_document(AnalysisRequest(text=LOUD, analysis_type=tone))

    assert analysis.output["label"] == "loud"
    assert [fact.quote for fact in analysis.facts if fact.quote] == [LOUD]


DIARY = '''
"""Diary: a line for each event in a file."""

from pathlib import Path

from chordwise.settings.receivers import Receiver


class Diary(Receiver):
    events = ("run.finished", "report.written")
    file: Path

    def deliver(self, notice, settings):
        with self.file.open("a") as file:
            file.write(f"{notice.event} {notice.content['account']['run']}\\n")

    def check(self, settings):
        return f"events are written to {self.file}"


RECEIVER = Diary
'''


@pytest.fixture
def _diary(tmp_path: Path) -> Iterator[None]:
    with added(tmp_path, "chordwise.pipeline.deliveries.receivers", {"diary.py": DIARY}):
        yield


@pytest.mark.usefixtures("_diary")
def test_a_receiver_is_a_file(settings: Settings, tmp_path: Path) -> None:
    """Its table is read and checked, and its deliveries are made; other settings are refused."""
    file = tmp_path / "chordwise.toml"
    file.write_text(f'[deliveries.diary]\nfile = "{tmp_path}/diary.txt"\n')
    deliveries = settings_module.load(file).deliveries
    pipeline = a_pipeline(settings.model_copy(update={"deliveries": deliveries}), quoting_the_text)

    submission = pipeline.analyze(SHORT)
    delivery_attempts.skip_unwanted(pipeline.context)
    while delivery_attempts.deliver_next(pipeline.context):
        pass

    (check,) = check_configured_paths(pipeline.context.settings)
    assert (check.name, check.finding) == ("diary", f"events are written to {tmp_path}/diary.txt")
    assert (tmp_path / "diary.txt").read_text() == f"run.finished {submission.name}\n"
    file.write_text("[deliveries.pigeon]\n")
    with pytest.raises(ConfigurationError, match="unknown table pigeon; known: diary, file"):
        settings_module.load(file)


PARROT = '''
"""Parrot: a model that says what its key says."""

from decimal import Decimal

from chordwise.llm.model import Completion, FinishReason, ModelProfile, Usage
from chordwise.llm.provider import Provider


class ParrotModel:
    def __init__(self, settings, said):
        self.profile = ModelProfile(
            provider="parrot", model=settings.model, context_tokens=9_000, max_output_tokens=900
        )
        self._said = said

    def complete(self, request):
        return Completion(
            text=self._said,
            finish_reason=FinishReason.STOP,
            usage=Usage(input_tokens=1, output_tokens=1),
            provider="parrot",
            model=self.profile.model,
        )


class Parrot(Provider):
    host = "api.parrot.example"

    def connect(self, settings, api_key, transport):
        return ParrotModel(settings, api_key.get_secret_value())

    def is_free(self, settings):
        return True


PROVIDER = Parrot()
'''


@pytest.fixture
def _parrot(tmp_path: Path) -> Iterator[None]:
    with added(tmp_path, "chordwise.llm.providers", {"parrot.py": PARROT}):
        yield


@pytest.mark.usefixtures("_parrot")
def test_a_provider_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked as PROVIDER/MODEL or by a table, with the key for its host, at its price."""
    monkeypatch.setenv("PARROT_API_KEY", a_summary(LOUD))
    file = tmp_path / "chordwise.toml"
    file.write_text('[models.bird]\nprovider = "parrot"\nmodel = "grey"\n')

    analysis = DocumentAnalyzer("parrot/grey").analyze_document(AnalysisRequest(text=LOUD))

    settings = settings_module.load(file)
    bird = settings.model_named("bird")
    assert (analysis.provider, analysis.model) == ("parrot", "grey")
    assert [fact.quote for fact in analysis.facts if fact.quote] == [LOUD]
    assert settings.api_key_for(bird).get_secret_value() == a_summary(LOUD)
    assert isinstance(price_of(bird), FreePrice)
    elsewhere = bird.model_copy(update={"base_url": "https://parrot.example"})
    assert settings.api_key_for(elsewhere).get_secret_value() == ""
    with pytest.raises(ConfigurationError, match=r"bird.provider: it must be one of anthropic, "):
        settings_module.load(models={"bird": {"provider": "crow"}})


RUNES = '''
"""Runes: texts that begin with RUNE, reversed."""

from chordwise.readers.formats import Format, of_bytes
from chordwise.readers.reader_output import Extracted


def read(data, max_characters):
    return Extracted(text=data[4:].decode()[::-1], media_type="text/x-runes")


FORMAT = Format(
    "RUN",
    of_bytes(read),
    extensions=(".run",),
    matches=lambda data, _: data.startswith(b"RUNE"),
)
'''


@pytest.fixture
def _runes(tmp_path: Path) -> Iterator[None]:
    with added(tmp_path, "chordwise.readers.formats", {"runes.py": RUNES}):
        yield


@pytest.mark.usefixtures("_runes")
def test_a_format_is_a_file() -> None:
    """It is read, a file that only has its name is refused, and messages list it."""
    options = ReadOptions(max_characters=100, max_part_bytes=100)

    read = extract(io.BytesIO(b"RUNE.ti potS"), options)

    assert isinstance(read, Extracted)
    assert (read.text, read.media_type) == ("Stop it.", "text/x-runes")
    with pytest.raises(ReadError, match=r"is named .run, but its content is of another"):
        extract(io.BytesIO(b"Stop it."), replace(options, name="a.run"))
    with pytest.raises(ReadError, match="is a program") as refused:
        extract(io.BytesIO(b"MZ\x90"), replace(options, name="a.run"))
    assert "RTF, RUN, TXT" in refused.value.hint


WEATHER = '''
"""The weather, as a page."""

from starlette.responses import HTMLResponse
from starlette.routing import Route

from chordwise.web.site import TEMPLATES, SitePage, csrf_of, user_of

BODY = '{% extends "base.html" %}{% block content %}It rained on {{ day }}.{% endblock %}'


def _weather(request):
    html = TEMPLATES.from_string(BODY).render(
        path=request.url.path, user=user_of(request), csrf=csrf_of(request), notice="", day="Monday"
    )
    return HTMLResponse(html)


PAGE = SitePage((Route("/weather", _weather),), "Weather")
'''


@pytest.fixture
def _weather(tmp_path: Path) -> Iterator[None]:
    with added(tmp_path, "chordwise.web.pages", {"weather.py": WEATHER}):
        yield


@pytest.mark.usefixtures("_weather")
def test_a_page_is_a_file(settings: Settings) -> None:
    """It is served to those who are signed in, and each page links to it, after the others."""
    with serving(settings) as served, httpx.Client(follow_redirects=True) as browser:
        base = served.link.partition("/?")[0]
        refused = browser.get(f"{base}/weather").text
        titles = re.findall(r'<a href="/(\w+)"', browser.get(served.link).text)
        weather = browser.get(f"{base}/weather").text

    assert "It rained" not in refused
    assert "It rained on Monday." in weather
    assert titles[:2] + titles[7:9] == ["runs", "tables", "sql", "weather"]


ECHO = '''"""Runs: Say a word again."""

from chordwise.cli.invocation import Invocation


def echo(invocation: Invocation, word: str) -> None:
    """Say a word again.

    chordwise echo hello
    """
    invocation.screen.write(f"{word}\\n")
'''


@pytest.fixture
def _echo(tmp_path: Path) -> Iterator[None]:
    with added(tmp_path, "chordwise.cli.commands", {"echo.py": ECHO}):
        yield


@pytest.mark.usefixtures("_echo")
def test_a_command_is_a_file(tmp_path: Path) -> None:
    """It is listed with its topic and run, and the list imports no command."""
    listed = command(tmp_path, "--help").stdout.partition("\nRuns:\n")[2].partition("\n\n")[0]

    assert re.findall(r"(?m)^  (\w+) ", listed)[:3] == ["cancel", "continue", "echo"]
    assert command(tmp_path, "echo", "hello").stdout == "hello\n"
    assert "Usage: chordwise echo" in command(tmp_path, "echo", "--help").stdout
    imported = completed(sys.executable, "-X", "importtime", "-m", "chordwise", "--help").stderr
    assert "chordwise.cli.application" in imported
    for absent in ("pydantic", "sqlalchemy", "chordwise.cli.commands.runs"):
        assert f" {absent}\n" not in imported
