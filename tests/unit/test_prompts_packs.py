"""Tests of the packs: complete, usable with every provider, and overridden by the user."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chordwise.domain import examples, schema_data
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.errors import UsageError
from chordwise.llm import schema_dialects
from chordwise.pipeline.asking import ask
from chordwise.pipeline.models.model_client import Models
from chordwise.prompts import packs
from chordwise.prompts.packs import Pack
from chordwise.settings import Settings
from tests.fakes.asking import TEXT, question
from tests.fakes.completion_requests import a_task

EVERY = packs.all_packs()
OWN: JsonObject = {"type": "object", "properties": {"fee": {"type": "number"}}}


@pytest.mark.parametrize("pack", EVERY.values(), ids=EVERY)
def test_a_pack_is_complete(pack: Pack) -> None:
    types, options = packs.completed(pack, (), AnalysisOptions())

    assert types == pack.types
    assert options.schema is not None
    assert options.schema["x-checks"]
    assert options.labels == tuple(options.label_descriptions)
    assert options.examples == pack.examples
    assert [examples.problem(example, options) for example in pack.examples] == [""]


@pytest.mark.parametrize("pack", EVERY.values(), ids=EVERY)
def test_providers_can_enforce_the_schema_of_a_pack(pack: Pack) -> None:
    """All of its members are required, and those that a text may lack are nullable."""
    _, options = packs.completed(pack, (), AnalysisOptions())
    schema = analysis_for(AnalysisType.EXTRACTION).schema(options)

    assert schema_dialects.for_openai_strict(schema) is not None
    assert schema_dialects.for_anthropic(schema) is not None


@pytest.mark.parametrize("pack", EVERY.values(), ids=EVERY)
def test_the_built_in_model_can_be_used_with_a_pack(pack: Pack) -> None:
    types, options = packs.completed(pack, (), AnalysisOptions())
    model = Models(Settings()).open("extractive")

    for kind in types:
        task = replace(a_task(kind, TEXT, options), is_whole=True)
        assert ask(question(model, task)).output


def test_a_party_that_several_parts_of_a_contract_name_is_listed_once() -> None:
    _, options = packs.completed(packs.named("legal"), (), AnalysisOptions())
    buyer: JsonObject = {"name": "Ann Ltd", "role": "Buyer"}
    seller: JsonObject = {"name": "Bob Inc.", "role": None}
    answers: list[JsonObject] = [
        {"data": {"parties": [buyer]}, "evidence": []},
        {"data": {"parties": [buyer, seller]}, "evidence": []},
    ]

    joined = schema_data.join(answers, options.schema or {}).output

    assert joined["data"] == {"parties": [buyer, seller]}


def test_the_options_of_the_user_override_the_pack() -> None:
    legal, support = packs.named("legal"), packs.named("support")
    user_options = AnalysisOptions(schema=OWN, labels=("a", "b"), instructions="the fee")

    types, options = packs.completed(legal, (AnalysisType.EXTRACTION,), user_options)
    _, labelled = packs.completed(support, (), AnalysisOptions(labels=("a", "b")))

    assert types == (AnalysisType.EXTRACTION,)
    assert (options.schema, options.labels, options.examples) == (OWN, ("a", "b"), ())
    assert options.instructions == f"{legal.instructions}\nthe fee"
    assert (labelled.label_descriptions, labelled.examples) == ({}, ())
    assert labelled.schema == support.schema


def test_a_pack_adds_only_options_of_the_requested_types() -> None:
    _, options = packs.completed(EVERY["legal"], (AnalysisType.SUMMARY,), AnalysisOptions())

    assert (options.schema, options.labels, options.examples) == (None, (), ())


def test_an_unknown_pack_is_rejected() -> None:
    with pytest.raises(UsageError, match="no pack “medical”") as caught:
        packs.named("medical")

    assert caught.value.hint == "Known: financial, legal, scientific, support."
