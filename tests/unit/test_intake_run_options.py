"""Tests of converting profiles and side-cars to the options of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import pytest

from chordwise import settings
from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import Lane
from chordwise.errors import UsageError
from chordwise.pipeline.asking.question import request_for
from chordwise.pipeline.inbox.scan import with_side_car
from chordwise.pipeline.intake.run_options import (
    RunOptions,
    effective_options,
    identities,
    labels_of,
    run_options,
)
from chordwise.readers.reader_output import Columns
from chordwise.settings import Profile, Settings
from tests.fakes.scripted_model import ScriptedModel

PROFILE = """
[profiles.contracts]
folder = "contracts"
types = ["extraction", "classification"]
instructions = "The fee."
labels = ["lease", "sale"]
schema = "contract.json"
save_as = "leases"
family = "file number"
model = "house"
lane = "batch"
nightly = true
budget_usd = 2.50
confidence_threshold = 0.7
critique = true
principles = ["No guessing."]
votes = 3
chunk_tokens = 900
prompt = "brief"
answer_language = "de"
examples = "examples.toml"
text_column = "body"
id_column = "number"
"""
NOTHING = '{"data": {}, "evidence": []}'
EXAMPLES = f"""
[[examples]]
type = "extraction"
text = "A mill."
answer = '{NOTHING}'
"""
TEMPLATE = "system = '$schema $instructions'\nuser = '$mark $text $mark'\n"
FEE = '{"type": "object", "properties": {"fee": {"type": "number"}}}'
RENT = FEE.replace("fee", "rent")
Asked: TypeAlias = Callable[[RunOptions], object]


def fields(options: RunOptions) -> object:
    schema = options.analysis.schema
    return schema and list(json_values.as_object(schema["properties"]))


ENTRIES: dict[str, tuple[Asked, str, object, str, object]] = {
    "types": (
        lambda o: o.types,
        '["summary"]',
        (AnalysisType.SUMMARY,),
        "[]",
        (AnalysisType.EXTRACTION, AnalysisType.CLASSIFICATION),
    ),
    "instructions": (lambda o: o.analysis.instructions, '"x"', "x", '""', ""),
    "items": (lambda o: o.analysis.items, '["fee: money"]', ("fee: money",), "[]", ()),
    "labels": (lambda o: o.analysis.labels, '["a", "b"]', ("a", "b"), "[]", ()),
    "schema": (fields, '"rent.json"', ["rent"], '""', None),
    "save_as": (lambda o: o.save_as, '"x"', "x", '""', ""),
    "family": (lambda o: o.family, '"x"', "x", '""', ""),
    "model": (lambda o: o.model, '"other"', "other", '""', "extractive"),
    "lane": (lambda o: o.lane, '"online"', Lane.ONLINE, '"online"', Lane.ONLINE),
    "nightly": (lambda o: o.nightly, "true", True, "false", False),
    "budget_usd": (lambda o: o.budget_usd, "9", Decimal(9), '""', None),
    "confidence_threshold": (lambda o: o.analysis.confidence_threshold, "0.2", 0.2, "0", 0.0),
    "critique": (lambda o: o.analysis.critique, "true", True, "false", False),
    "principles": (lambda o: o.analysis.principles, '["y"]', ("y",), "[]", ()),
    "chunk_tokens": (lambda o: o.analysis.chunk_tokens, "500", 500, '""', None),
    "votes": (lambda o: o.analysis.votes, "5", 5, "1", 1),
    "labels_file": (
        lambda o: (o.analysis.labels, o.analysis.label_descriptions),
        '"kinds.toml"',
        (("a", "b"), {"a": "the first"}),
        '""',
        (("lease", "sale"), {}),
    ),
    "answer_language": (lambda o: o.analysis.answer_language, '"pt-BR"', "pt-BR", '""', ""),
    "pack": (lambda o: "invoices" in o.analysis.instructions, '"financial"', True, '""', False),
    "examples": (
        lambda o: [example.text for example in o.analysis.examples],
        '"more.json"',
        ["Another mill."],
        '""',
        [],
    ),
    "learned_examples": (lambda o: o.learned_examples, "false", False, "true", True),
    "prompt": (
        lambda o: {template.variant for template in o.analysis.templates},
        '"long"',
        {"long"},
        '""',
        set(),
    ),
    "text_column": (
        lambda o: o.columns,
        '"text"',
        Columns(text="text", identity="number"),
        '""',
        Columns(),
    ),
    "id_column": (lambda o: o.columns.identity, '"id"', "id", '""', ""),
}


def options_of(folder: Path, side_car: str, profile: str = PROFILE) -> RunOptions:
    (folder / "contract.json").write_text(FEE, "utf-8")
    (folder / "rent.json").write_text(RENT, "utf-8")
    (folder / "examples.toml").write_text(EXAMPLES, "utf-8")
    stored = [{"type": "extraction", "text": "Another mill.", "answer": NOTHING}]
    (folder / "more.json").write_text(json.dumps(stored), "utf-8")
    (folder / "kinds.toml").write_text('a = "the first"\nb = ""\n', "utf-8")
    (folder / "prompts").mkdir(exist_ok=True)
    for name in ("brief", "long"):
        for kind in ("extraction.schema", "summary", "classification"):
            content = TEMPLATE.replace(
                "$schema", "$schema $labels" if kind[0] == "c" else "$schema"
            )
            file = folder / "prompts" / f"{kind}.analyze@{name}.toml"
            file.write_text(content, "utf-8")
    settings_file = f'[prompts]\nfolder = "prompts"\n{profile}'
    (folder / "chordwise.toml").write_text(settings_file, "utf-8")
    beside = folder / "a.txt.chordwise.toml"
    beside.write_text(side_car, "utf-8")
    loaded = settings.load(folder / "chordwise.toml")
    return run_options(loaded, with_side_car(loaded.profiles["contracts"], beside, folder))


def test_every_entry_of_a_profile_is_tested() -> None:
    names = {field.alias or name for name, field in Profile.model_fields.items()}

    assert names - {"folder", "keep_days", "readers"} == ENTRIES.keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_a_side_car_can_override_or_remove_an_entry(tmp_path: Path, name: str) -> None:
    of, value, expected, nothing, without = ENTRIES[name]

    overridden = options_of(tmp_path, f"{name} = {value}")
    taken_away = options_of(tmp_path, f"{name} = {nothing}")

    assert (of(overridden), of(taken_away)) == (expected, without)


def test_a_side_car_cannot_add_learned_examples(tmp_path: Path) -> None:
    """They have parts of documents that the author of the side-car may not be allowed to see."""
    with pytest.raises(UsageError, match="which its profile switches off"):
        options_of(tmp_path, "learned_examples = true", f"{PROFILE}\nlearned_examples = false\n")


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ('["summary"]', (None, ())),
        ('["extraction"]', (["fee"], ())),
        ('["classification", "summary"]', (None, ("lease", "sale"))),
        ('["extraction", "classification"]', (["fee"], ("lease", "sale"))),
    ],
)
def test_options_of_other_types_are_dropped(
    tmp_path: Path, types: str, expected: tuple[object, object]
) -> None:
    """The profile's schema is for extractions, its labels are for classifications."""
    options = options_of(tmp_path, f"types = {types}")

    assert (fields(options), options.analysis.labels) == expected


@pytest.mark.parametrize(
    ("side_car", "complaint", "hint"),
    [
        ('schema = "rent.json"', "schema is for extractions, but .* are sentiment", "extraction"),
        ('labels = ["a", "b"]', "labels are for classifications, but", "classification"),
        (
            'types = ["summary"]\nschema = "rent.json"',
            "the requested types are summary",
            "extraction",
        ),
        ('id_column = "a"', "applies only to rows", "text_column"),
        ("budget_usd = 0", "budget_usd: .* greater than 0", 'budget_usd = ""'),
        ("types = 3", "types: ", "docs/inbox.md"),
        (
            'types = "summary"',
            r'types: it must be a list, such as \["summary"\]\.',
            "docs/inbox.md",
        ),
        ('typs = ["summary"]', "invalid: unknown setting typs\\.", "docs/inbox.md"),
        (
            'types = ["extraction"]\nexamples = "other.toml"',
            r"an example of the type extraction in .*other\.toml",
            "",
        ),
    ],
)
def test_contradictory_options_are_rejected(
    tmp_path: Path, side_car: str, complaint: str, hint: str
) -> None:
    (tmp_path / "other.toml").write_text(EXAMPLES.replace('"data"', '"date"'), "utf-8")

    with pytest.raises(UsageError, match=complaint) as caught:
        options_of(tmp_path, side_car, '[profiles.contracts]\ntypes = ["sentiment"]\n')

    assert hint in caught.value.hint


def test_the_default_type_is_extraction_with_a_schema_and_summary_without(tmp_path: Path) -> None:
    """An empty entry of a profile means none."""
    schema = tmp_path / "contract.json"
    schema.write_text(FEE, "utf-8")
    profile = Profile.model_validate({"schema": schema, "instructions": " the fee "})

    options = run_options(Settings(), profile, "tonight")
    usual = run_options(Settings(model="house"), Profile())
    emptied = options_of(tmp_path, "", '[profiles.contracts]\nschema = ""\nbudget_usd = ""\n')

    assert (options.types, fields(options)) == ((AnalysisType.EXTRACTION,), ["fee"])
    assert (options.analysis.instructions, options.name) == ("the fee", "tonight")
    assert usual.types == emptied.types == (AnalysisType.SUMMARY,)
    assert (usual.model, usual.lane, usual.budget_usd) == ("house", Lane.ONLINE, None)
    assert emptied.budget_usd is None


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"types": ["summary"], "schema": "contract.json"}, "only to extractions"),
        ({"types": ["summary"], "labels": ["a", "b"]}, "only to classifications"),
        ({"labels": ["only"]}, "two labels"),
        ({"labels": ["a", "b"], "labels_file": "kinds.txt"}, "labels and a file"),
        ({"labels_file": "there-is-none.txt"}, "cannot be read"),
        ({"answer_language": "German, please"}, "not a language tag"),
        ({"pack": "medical"}, "no pack"),
        ({"examples": "there-are-none.toml"}, "cannot be read"),
        ({"examples": "broken.json"}, r"broken\.json cannot be read"),
        ({"id_column": "number"}, "applies only to rows"),
        ({"schema": "there-is-none.json"}, "cannot be read"),
    ],
)
def test_a_contradictory_profile_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: dict[str, object], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("[", "utf-8")
    profile = Profile.model_validate(entries)

    with pytest.raises(UsageError, match=complaint):
        run_options(Settings(), profile)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "Put the file there, or name another."),
        ("{", "Correct the file, or name another schema."),
        ('{"type": "object", "required": 7}', "Correct {schema}, or name another schema."),
        ('{"type": "array"}', 'Its root needs "type": "object".'),
    ],
)
def test_an_invalid_schema_has_a_hint(tmp_path: Path, content: str | None, hint: str) -> None:
    schema = tmp_path / "contract.json"
    if content is not None:
        schema.write_text(content, "utf-8")

    with pytest.raises(UsageError) as caught:
        run_options(Settings(), Profile.model_validate({"schema": schema}))

    assert caught.value.hint == hint.replace("{schema}", str(schema))


@pytest.mark.parametrize("entry", ["schema", "labels_file", "examples"])
def test_a_pipe_instead_of_a_file_is_refused(tmp_path: Path, entry: str) -> None:
    """A side-car can name it; reading it could take forever."""
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)

    with pytest.raises(UsageError, match="named pipe"):
        run_options(Settings(), Profile.model_validate({entry: pipe}))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("kinds.txt", "\ufeffinvoice: asks for  money: now\n\n letter \n", ""),
        ("kinds.toml", 'invoice = "asks for money: now"\nletter = ""\n', ""),
        ("kinds.json", '{"invoice": "asks for money: now", "letter": ""}', ""),
        ("kinds.txt", "only: one", "two labels or more"),
        ("kinds.toml", "a = 1\nb = 2", "expected a text for each label"),
        ("kinds.toml", "a = ", "cannot be read"),
        ("kinds.toml", f"a{'.a' * 20_000} = 1", "a key in it, is too long"),
        ("kinds.txt", "a: one\nb\na: two", "“a” is repeated"),
        ("kinds.json", '{"a": "one", "b": "", "a": "two"}', "“a” is repeated"),
        ("kinds.json", '["a", "b"]', "expected a text for each label"),
        ("kinds.json", "{", "cannot be read"),
    ],
)
def test_labels_are_read_with_their_descriptions(
    tmp_path: Path, name: str, content: str, complaint: str
) -> None:
    file = tmp_path / name
    file.write_text(content, "utf-8")

    if complaint:
        with pytest.raises(UsageError, match=complaint) as caught:
            labels_of((), file)
        assert name in f"{caught.value.what}{caught.value.hint}"
    else:
        described = {"invoice": "asks for money: now"}
        assert labels_of((), file) == (("invoice", "letter"), described)


@pytest.mark.parametrize(
    "path", ["../kinds.toml", "{above}/kinds.toml", ".env", ".aws/keys.json", "a.txt", "link.toml"]
)
def test_a_side_car_cannot_name_other_files(tmp_path: Path, path: str) -> None:
    """The author of the side-car could read the lines of any file as labels of an answer."""
    (tmp_path / "kinds.toml").write_text('a = ""\nb = ""\n', "utf-8")
    folder = tmp_path / "settings"
    (folder / ".aws").mkdir(parents=True)
    for name in (".env", ".aws/keys.json", "a.txt"):
        (folder / name).write_text('{"a": "secret", "b": "secret"}\n\nc', "utf-8")
    (folder / "link.toml").symlink_to(tmp_path / "kinds.toml")

    with pytest.raises(UsageError, match="labels_file is not a TOML or JSON file below"):
        options_of(folder, f'labels_file = "{path.format(above=tmp_path)}"')


def test_reasoning_with_only_the_built_in_model_is_rejected() -> None:
    options = RunOptions(types=(AnalysisType.SUMMARY, AnalysisType.REASONING), model="extractive")

    with pytest.raises(UsageError, match="does not support reasoning") as raised:
        effective_options(settings.load(), options)

    assert "--model" in raised.value.hint
    loaded = settings.load(fallback=("extractive",))
    assert effective_options(loaded, replace(options, model="openai/gpt-x")).types == options.types


TYPES = (AnalysisType.EXTRACTION, AnalysisType.CLASSIFICATION, AnalysisType.SUMMARY)


@pytest.mark.parametrize(
    ("change", "schema", "stale"),
    [
        ({"instructions": "fee, term, penalty"}, None, TYPES[:1]),
        ({"instructions": "Answer in German."}, {"type": "object"}, TYPES),
        ({"schema": {"type": "object", "properties": {}}}, {"type": "object"}, TYPES[:1]),
        ({"labels": ("lease", "sale", "other")}, None, TYPES[1:2]),
        ({"label_descriptions": {"sale": "a purchase"}}, None, TYPES[1:2]),
        ({"answer_language": "de"}, None, TYPES),
    ],
)
def test_an_option_belongs_to_the_questions_that_use_it(
    change: dict[str, object], schema: JsonObject | None, stale: tuple[AnalysisType, ...]
) -> None:
    analysis = AnalysisOptions(instructions="fee, term", labels=("lease", "sale"), schema=schema)
    options = RunOptions(types=TYPES, analysis=analysis, model="extractive")
    changed = replace(options, analysis=replace(analysis, **change))  # type: ignore[arg-type]  # of the test

    before, after = identities(Settings(), options), identities(Settings(), changed)

    assert tuple(kind for kind in TYPES if before[kind] != after[kind]) == stale


@pytest.mark.parametrize(
    ("types", "schema", "shown"),
    [
        (TYPES, None, TYPES[:1]),
        (TYPES, {"type": "object"}, TYPES),
        (TYPES[1:], None, TYPES[1:]),
    ],
)
def test_items_of_an_extraction_are_in_no_other_prompt(
    types: tuple[AnalysisType, ...], schema: JsonObject | None, shown: tuple[AnalysisType, ...]
) -> None:
    """Instructions are items if there is an extraction without a schema, otherwise guidance."""
    analysis = AnalysisOptions(instructions="the rare fee", labels=("lease", "sale"), schema=schema)
    options = RunOptions(types=types, analysis=analysis, model="extractive")
    prompts = {
        kind: request_for(
            ScriptedModel([]),
            AnalysisTask(
                analysis_type=kind, stage=Stage.ANALYZE, options=options.analysis_of(kind), text="A"
            ),
        ).system
        for kind in types
    }

    assert tuple(kind for kind in types if "the rare fee" in prompts[kind]) == shown
    assert not any("- people" in prompts[kind] for kind in types if kind not in shown)
