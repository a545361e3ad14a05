"""Tests of the encoder of the built-in model, and of texts for which it is not used."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest
from pydantic import SecretStr

from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.errors import ConfigurationError
from chordwise.llm.model import ChatModel
from chordwise.llm.provider import connect
from chordwise.llm.providers.extractive import Encoder, answer
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_request, a_task

NO_KEY = SecretStr("")
NAMED = ModelSettings(provider="extractive", model="minilm-1")
FORECAST = "Heavy rain and strong winds are expected tomorrow."
TRIP = """The ferry sails at noon. Our guide met us at the harbour with umbrellas for all.
Cabins for the night cost 90 dollars. The captain was proud of the old engine."""


@pytest.fixture(scope="module")
def with_encoder() -> ChatModel:
    return connect(NAMED, NO_KEY)


def answered(model: ChatModel, task: AnalysisTask) -> JsonObject:
    completion = model.complete(replace(a_request(), task=task))
    return json_values.as_object(json.loads(completion.text))


def test_texts_with_similar_meaning_have_similar_vectors(with_encoder: ChatModel) -> None:
    encoder = Encoder()
    near = encoder.similarity(FORECAST, "There will be a storm.")

    assert near > encoder.similarity(FORECAST, "The invoice is due in May.") + 0.2
    assert encoder.similarity(FORECAST, FORECAST) == pytest.approx(1, abs=1e-5)
    assert with_encoder.profile.model == "minilm-1"
    assert not with_encoder.profile.understands_language


def test_a_label_without_common_words_is_found(with_encoder: ChatModel) -> None:
    options = AnalysisOptions(labels=("astronomy", "gardening", "weather"))
    task = a_task(AnalysisType.CLASSIFICATION, FORECAST, options)

    output = answered(with_encoder, task)

    assert answer(task)["primary_label"] != "weather"
    assert output["primary_label"] == "weather"
    assert json_values.objects(output["features"])[0]["quote"] == FORECAST


def test_each_phrase_of_a_description_is_compared(with_encoder: ChatModel) -> None:
    """One of many phrases decides; a text that resembles none of them has no label.

    If there is a label “other”, the text has that one.
    """
    labels = {
        "shop": "opening hours, gift vouchers, returned parcels, lost receipts",
        "garage": "worn tyres, a flat battery, strange noises of the motor, oil leaks",
    }
    options = AnalysisOptions(labels=tuple(labels), label_descriptions=labels)
    with_rest = AnalysisOptions(labels=("other", "astronomy", "tax law"))

    chosen = [
        answered(with_encoder, a_task(AnalysisType.CLASSIFICATION, text, label_options))[
            "primary_label"
        ]
        for text, label_options in (
            ("My van rattles loudly while I drive.", options),
            ("Whisk the eggs with the sugar.", options),
            ("My sister knits woollen socks.", with_rest),
        )
    ]

    assert chosen == ["garage", None, "other"]


@pytest.mark.parametrize(
    ("text", "sign"),
    [("I would buy it again at once.", 1), ("I sent it back after one day.", -1)],
)
def test_sentiment_is_found_without_words_of_the_lexicon(
    with_encoder: ChatModel, text: str, sign: int
) -> None:
    task = a_task(AnalysisType.SENTIMENT, text)

    assert answer(task)["score"] == 0
    assert (json_values.number(answered(with_encoder, task)["score"]) or 0) * sign > 0


def test_a_question_finds_the_sentence_with_the_answer(
    with_encoder: ChatModel,
) -> None:
    options = AnalysisOptions(instructions="How much is a bed on the ferry for one night?")
    task = a_task(AnalysisType.EXTRACTION, TRIP, options)

    (by_words,) = json_values.objects(answer(task)["fields"])
    (by_meaning,) = json_values.objects(answered(with_encoder, task)["fields"])

    assert by_words["quote"] is None
    assert by_meaning["quote"] == "Cabins for the night cost 90 dollars."


def test_texts_in_other_scripts_are_ranked_by_words(with_encoder: ChatModel) -> None:
    """The encoder is for English and ranks Russian or Chinese worse than words do."""
    task = a_task(AnalysisType.SENTIMENT, "Это было прекрасно. Мне очень понравилось.")

    assert answered(with_encoder, task) == answer(task)


def test_the_model_requires_the_optional_dependencies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(ConfigurationError, match="not installed") as caught:
        connect(NAMED, NO_KEY)

    assert "chordwise[encoder]" in caught.value.hint
    assert connect(ModelSettings(provider="extractive"), NO_KEY).profile.model == "textrank-1"
