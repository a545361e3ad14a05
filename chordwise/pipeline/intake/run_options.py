"""The options of a run, the identity of its results, and the rules for its name."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from pydantic import ValidationError

from chordwise.domain import critique, examples, json_values, validation
from chordwise.domain.analysis_tasks import (
    AnalysisOptions,
    AnalysisTask,
    AnalysisType,
    Example,
    Stage,
    implied_types,
    options_for,
    options_from,
    options_to_json,
)
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.states import Lane
from chordwise.domain.templates import PromptTemplate
from chordwise.embedded import stack
from chordwise.errors import ConfigurationError, ReadError, UsageError
from chordwise.llm.model import UNANSWERED_BY_EXTRACTIVE
from chordwise.llm.providers import require_key
from chordwise.pipeline.models import budgets, model_client
from chordwise.prompts import library, packs
from chordwise.readers import contents
from chordwise.readers.reader_output import WHOLE, Columns
from chordwise.settings import CritiqueSettings, ProfileSettings, Settings
from chordwise.settings.sections import problems
from chordwise.storage.record import id_in

PIPELINE_VERSION = 6
"""Incremented with each change of the code that changes the answer to the same question."""
MAX_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The questions that a run asks of each document, and how it asks them.

    If `name` is empty, a name is generated. `save_as` is the name of the table of answers, empty if
    there is none. `fresh` asks again even if an answer is stored; without `use_cache` the cache of
    answers is not used. The calls of a `nightly` run yield to those of other runs. In the batch
    `lane` the questions wait for a batch of the provider, if the model supports batches. A run that
    `follows` does not repeat a question that a job of another run is asking, but waits for its
    answer. `budget_usd` is the limit on the cost of its calls, `None` for the default of the
    settings; `columns` are the columns that are read from tables. `paths` are the arguments that
    name the input, absolute and printable: repeating the command resumes an interrupted run.
    `profile` is the name of the profile, if any; with `learned_examples`, answers of the profile
    that people approved or corrected are shown as examples. The documents of a run that `is_suite`
    are never used as examples. A run that `is_refresh` belongs to no experiment.
    """

    types: tuple[AnalysisType, ...] = (AnalysisType.SUMMARY,)
    analysis: AnalysisOptions = field(default_factory=AnalysisOptions)
    model: str
    name: str = ""
    save_as: str = ""
    fresh: bool = False
    use_cache: bool = True
    nightly: bool = False
    lane: Lane = Lane.ONLINE
    follows: bool = False
    budget_usd: Decimal | None = None
    columns: Columns = WHOLE
    paths: tuple[str, ...] = ()
    profile: str = ""
    learned_examples: bool = True
    is_suite: bool = False
    is_refresh: bool = False

    def analysis_of(self, kind: AnalysisType) -> AnalysisOptions:
        """Return the options that the answers of one of the types depend on."""
        return options_for(kind, self.types, self.analysis)


def effective_options(settings: Settings, options: RunOptions) -> RunOptions:
    """Return the effective options: principles are taken from the settings unless given.

    If no language model is asked, votes and critique are disabled: the built-in model would give
    the same answer in each sample, and cannot examine an answer.

    Raises:
        ConfigurationError: The model is unknown.
        UsageError: Only the built-in model is asked, and it does not support an analysis type.
    """
    wanted = options.analysis
    if settings.is_built_in(options.model):
        if unanswered := UNANSWERED_BY_EXTRACTIVE.intersection(options.types):
            raise UsageError(
                f"The built-in model does not support {', '.join(sorted(unanswered))}.",
                "Choose a language model: --model, or model in the settings.",
            )
        return replace(options, analysis=replace(wanted, votes=1, critique=False))
    principles = wanted.principles or settings.critique.principles
    return replace(options, analysis=replace(wanted, principles=principles))


def identity(settings: Settings, analysis_type: AnalysisType, options: RunOptions) -> str:
    """Return the hash of everything that a result depends on, except the document."""
    analysis = options.analysis_of(analysis_type)
    task = AnalysisTask(analysis_type=analysis_type, stage=Stage.ANALYZE, options=analysis)
    synthesis = replace(task, stage=Stage.SYNTHESIZE)
    parts: Mapping[str, object] = {
        "type": analysis_type,
        "options": options_to_json(replace(analysis, templates=())),
        "prompts": [
            template.version
            for each in (task, synthesis)
            for template in library.templates_for(each, settings.prompts.fallback)
        ],
        "models": model_client.identity(settings, options.model),
        "chunk_tokens": settings.pipeline.chunk_tokens,
        "pipeline": PIPELINE_VERSION,
        **_critique(analysis_type, analysis),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def checked_profile(values: Mapping[str, object]) -> ProfileSettings:
    """Return a profile with these values, by the names of its fields.

    Raises:
        UsageError: A value is invalid.
    """
    try:
        return ProfileSettings.model_validate(values, by_name=True)
    except ValidationError as error:
        raise UsageError(f"Invalid options: {'; '.join(problems(error))}.") from error


def require_answerable(settings: Settings, options: RunOptions) -> Decimal | None:
    """Refuse a run whose questions nobody could answer; return its cap, `None` without one.

    Workers outside the stack here may have keys that this process does not have.

    Raises:
        UsageError: The budget cannot be one.
        ConfigurationError: A model is unknown or has no key, or there is a budget and no price.
    """
    model_client.identity(settings, options.model)
    if stack.is_alone(settings):
        for name in (*settings.selected_names(options.model), *settings.fallback):
            model = settings.model_named(name)
            require_key(model, settings.api_key_for(model))
    return budgets.cap_for(settings, options.model, options.budget_usd)


def identities(settings: Settings, options: RunOptions) -> dict[AnalysisType, str]:
    """Return the `identity` of the results of each requested analysis type."""
    return {each: identity(settings, each, options) for each in options.types}


def _critique(analysis_type: AnalysisType, options: AnalysisOptions) -> dict[str, object]:
    """Return what a critique depends on, including the text of the default principles."""
    if not options.critique:
        return {}
    prompts = [library.latest(name).version for name in (library.CRITIQUE, library.REVISION)]
    principles = critique.principles_for(analysis_type, options)
    return {"critique": prompts, "principles": list(principles)}


def to_json(options: RunOptions) -> JsonObject:
    """Return the value of the column `runs.options`: all options except the name."""
    return {
        "types": [each.value for each in options.types],
        "save_as": options.save_as,
        "model": options.model,
        "fresh": options.fresh,
        "use_cache": options.use_cache,
        "nightly": options.nightly,
        "lane": options.lane.value,
        "follows": options.follows,
        "budget_usd": None if options.budget_usd is None else str(options.budget_usd),
        "text_column": options.columns.text,
        "id_column": options.columns.identity,
        "paths": list(options.paths),
        "profile": options.profile,
        "learned_examples": options.learned_examples,
        "is_suite": options.is_suite,
        "is_refresh": options.is_refresh,
        **options_to_json(options.analysis),
    }


def from_json(stored: JsonObject, name: str) -> RunOptions:
    """Return the options that `to_json` wrote; `name` is the name of the run."""
    budget = json_values.text(stored.get("budget_usd"))
    return RunOptions(
        types=tuple(AnalysisType(each) for each in json_values.strings(stored.get("types"))),
        analysis=options_from(stored),
        model=json_values.text(stored.get("model")),
        name=name,
        save_as=json_values.text(stored.get("save_as")),
        fresh=stored.get("fresh") is True,
        use_cache=stored.get("use_cache") is not False,
        nightly=stored.get("nightly") is True,
        lane=Lane(json_values.text(stored.get("lane")) or Lane.ONLINE),
        follows=stored.get("follows") is True,
        budget_usd=Decimal(budget) if budget else None,
        columns=Columns(
            text=json_values.text(stored.get("text_column")),
            identity=json_values.text(stored.get("id_column")),
        ),
        paths=tuple(json_values.strings(stored.get("paths"))),
        profile=json_values.text(stored.get("profile")),
        learned_examples=stored.get("learned_examples") is not False,
        is_suite=stored.get("is_suite") is True,
        is_refresh=stored.get("is_refresh") is True,
    )


def check_name(name: str) -> None:
    """Reject names that would be ambiguous as `RUN` on the command line.

    Raises:
        UsageError: The name cannot be used.
    """
    if id_in(name) is not None:
        raise UsageError("A run's name must not look like an id.", "Choose another --run-name.")
    fits = len(name) <= MAX_NAME_LENGTH and name.isprintable() and name.strip()
    if name == "latest" or not fits:
        raise UsageError(
            "The run's name cannot be used.",
            f"Use up to {MAX_NAME_LENGTH} printable characters; “latest” is reserved.",
        )


_FEWEST_LABELS = 2
_MAX_MEGABYTES = 1
_MAX_TOML_CHARACTERS = 256 * 1024
# The time and memory of the parser grow quadratically with the number of parts of a key. Longer
# parts need no check: the size limit of a file permits too few of them.
_PART = r"""(?:[\w-]{1,99}+|"(?:[^"\\\n]|\\.){0,99}+"|'[^'\n]{0,99}+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{16}}", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,4}")


def required_profile(settings: Settings, name: str) -> ProfileSettings:
    """Return the profile of this name.

    Raises:
        ConfigurationError: It does not exist.
    """
    if name not in settings.profiles:
        raise ConfigurationError(
            f"There is no profile “{name}”.", "Define profiles in chordwise.toml."
        )
    return settings.profiles[name]


def run_options(
    settings: Settings, profile: ProfileSettings, run_name: str = "", profile_name: str = ""
) -> RunOptions:
    """Return the options of a run that a profile describes; `run_name` may be empty.

    Raises:
        UsageError: The profile contradicts itself, or its schema, pack or templates cannot be used.
        ConfigurationError: A template cannot be used.
    """
    has_labels = bool(profile.labels or profile.labels_file)
    has_schema = profile.schema_file is not None
    types = implied_types(profile.types, schema=has_schema, labels=has_labels)
    analysis = _analysis_options(profile, types, settings.base_folder)
    if profile.pack:
        types, analysis = packs.completed(packs.named(profile.pack), profile.types, analysis)
    templates = user_templates(settings, profile.prompt, types)
    options = RunOptions(
        types=types,
        analysis=replace(analysis, templates=templates),
        model=profile.model or settings.model,
        name=run_name,
        save_as=profile.save_as,
        nightly=profile.nightly,
        lane=profile.lane,
        budget_usd=profile.budget_usd,
        columns=_columns(profile),
        profile=profile_name,
        learned_examples=profile.learned_examples,
    )
    if profile.examples_file is None:
        return options
    own = _examples(settings.base_folder / profile.examples_file, options)
    return replace(options, analysis=replace(options.analysis, examples=own))


def user_templates(
    settings: Settings, variant: str, types: Sequence[AnalysisType]
) -> tuple[PromptTemplate, ...]:
    """Return the user's templates of a prompt variant; empty if `variant` is empty.

    Raises:
        UsageError: No folder of templates is set, or the variant has none for these types.
        ConfigurationError: The variant does not exist, or one of its templates cannot be used.
    """
    if not variant:
        return ()
    folder = settings.prompts.folder
    if folder is None:
        what = f"There is no prompt “{variant}”: no folder of prompts is set."
        raise UsageError(what, 'Set [prompts] folder = "prompts" (docs/prompts.md).')
    found = library.templates_in(settings.base_folder / folder, variant)
    if not any(each.name.partition(".")[0] in types for each in found):
        asked = " and ".join(types)
        raise UsageError(
            f"The prompt “{variant}” has no template for {asked}.",
            f"It has: {', '.join(each.title for each in found)}.",
        )
    return found


def read_schema(path: Path) -> JsonObject:
    """Return the JSON Schema in a file.

    Raises:
        UsageError: The file cannot be read, is not JSON, or is not a usable schema.
    """
    content = _text_in(path, "schema")
    try:
        return validation.check_schema(json.loads(content))
    except (ValueError, RecursionError) as error:
        what, hint = f"The schema {path} is not JSON: {error}.", "Correct the file"
        raise UsageError(what, f"{hint}, or name another schema.") from error
    except UsageError as error:
        hint = error.hint or f"Correct {path}, or name another schema."
        raise UsageError(error.what, hint) from error


def labels_of(given: Iterable[str], file: Path | None) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the labels that are given or read from a file, with their meanings.

    Duplicates are removed.

    Raises:
        UsageError: Both are given, there is only one label, or the file cannot be read.
    """
    labels = tuple(dict.fromkeys(given))
    if labels and file is not None:
        raise UsageError("Both labels and a file of labels are given.", "Give one of them.")
    described = {} if file is None else _read_labels(file)
    labels = labels or tuple(described)
    if (labels or file) and len(labels) < _FEWEST_LABELS:
        hint = f"Add labels to {file}." if file else "Example: --labels invoice,letter"
        raise UsageError("A classification needs two labels or more.", hint)
    return labels, {label: meaning for label, meaning in described.items() if meaning}


def checked_language(tag: str) -> str:
    """Return the given language tag.

    Raises:
        UsageError: It is not a valid tag.
    """
    if tag and not _LANGUAGE.fullmatch(tag):
        raise UsageError(f"“{tag}” is not a language tag.", "Examples: de, pt-BR, zh-Hans.")
    return tag


def _read_labels(path: Path) -> dict[str, str]:
    """Return the labels in a file with their meanings: TOML, JSON, or one label per line."""
    what, content = f"The labels {path} cannot be read", _text_in(path, "labels")
    try:
        match path.suffix.lower():
            case ".json":
                found = json.loads(content, object_pairs_hook=_once_each)
            case ".toml":
                found = parse_toml(content)
            case _:
                lines = (line.partition(":") for line in content.splitlines() if line.strip())
                found = _once_each([(label.strip(), meaning) for label, _, meaning in lines])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what}: {error}.", 'label = "what it means"') from error
    described = json_values.texts(found)
    if not isinstance(found, dict) or len(described) < len(found):
        raise UsageError(f"{what}: expected a text for each label.", 'label = "what it means"')
    return {label: " ".join(meaning.split()) for label, meaning in described.items()}


def _once_each(pairs: Sequence[tuple[str, JsonValue]]) -> JsonObject:
    """Return an object with these members.

    Raises:
        ValueError: A name is repeated.
    """
    found: JsonObject = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"“{name}” is repeated")
        found[name] = value
    return found


def _examples(path: Path, options: RunOptions) -> tuple[Example, ...]:
    """Return the examples in a file that belong to the requested analysis types."""
    content = _text_in(path, "examples")
    try:
        if path.suffix.lower() == ".toml":
            stored = parse_toml(content).get("examples")
        else:
            stored = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The examples {path} cannot be read: {error}.") from error
    found = [each for each in examples.parse(stored) if each.analysis_type in options.types]
    for each in found:
        if problem := examples.problem(each, options.analysis):
            about = f"an example of the type {each.analysis_type} in {path}"
            raise UsageError(f"The answer of {about} is not valid: {problem}.")
    return tuple(found)


def _text_in(path: Path, noun: str) -> str:
    """Return the text of a file, up to a size limit, as an untrusted side-car may name it."""
    what = f"The {noun} {path} cannot be read"
    try:
        with contents.opened(path, _MAX_MEGABYTES, follow_symlinks=True) as file:
            return file.read().decode("utf-8-sig")
    except ReadError as error:
        hint = "Put the file there, or name another."
        raise UsageError(f"{what}: the file {error.what}", hint) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what}: it is not UTF-8 text.") from error


def parse_toml(content: str) -> JsonObject:
    """Return the content of an untrusted TOML file.

    Raises:
        ValueError, RecursionError: It is not TOML, too long, or has a key with too many parts.
    """
    if len(content) > _MAX_TOML_CHARACTERS or _LONG_KEY.search(content):
        raise ValueError("it, or a key in it, is too long")
    return json_values.as_object(tomllib.loads(content))


def read_principles(path: Path) -> tuple[str, ...]:
    """Return the principles in a text file, one per line, without bullets and blank lines.

    Raises:
        UsageError: The file cannot be read, or its principles are missing, too long or too many.
    """
    lines = _text_in(path, "principles").splitlines()
    found = [line.lstrip("-*• \t").strip() for line in lines]
    try:
        principles = CritiqueSettings(principles=tuple(each for each in found if each)).principles
    except ValidationError as error:
        what = "; ".join(each["msg"] for each in error.errors(include_url=False))
        raise UsageError(f"The principles {path} cannot be used: {what}.") from error
    if not principles:
        raise UsageError(f"There are no principles in {path}.", "Write one on each line.")
    return principles


def _columns(profile: ProfileSettings) -> Columns:
    if profile.id_column and not profile.text_column:
        raise UsageError(
            "id_column applies only to rows.", "Also set --text-column or text_column."
        )
    return Columns(text=profile.text_column, identity=profile.id_column)


def _analysis_options(
    profile: ProfileSettings, types: tuple[AnalysisType, ...], base: Path
) -> AnalysisOptions:
    file = profile.labels_file and base / profile.labels_file
    labels, descriptions = labels_of(profile.labels, file)
    if profile.schema_file is not None and AnalysisType.EXTRACTION not in types:
        raise UsageError("A schema applies only to extractions.", "Add the type extraction.")
    if labels and AnalysisType.CLASSIFICATION not in types:
        raise UsageError("Labels apply only to classifications.", "Add the type classification.")
    return AnalysisOptions(
        instructions=profile.instructions.strip(),
        labels=labels,
        schema=read_schema(base / profile.schema_file) if profile.schema_file else None,
        label_descriptions=descriptions,
        answer_language=checked_language(profile.answer_language),
        confidence_threshold=profile.confidence_threshold,
        votes=profile.votes,
        critique=profile.critique or bool(profile.principles),
        principles=profile.principles,
        chunk_tokens=profile.chunk_tokens or 0,
    )
