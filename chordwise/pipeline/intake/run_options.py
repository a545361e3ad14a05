"""The options of a run, the identity of its results, and the rules for its name."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, TypedDict

from pydantic import TypeAdapter

from chordwise.domain import critique, examples, identifiers, items, json_values, validation
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import (
    AnalysisOptions,
    AnalysisTask,
    AnalysisType,
    Example,
    PromptTemplate,
    Stage,
    implied_types,
    options_for,
    options_to_json,
)
from chordwise.domain.flags import RUN_NAME, Option
from chordwise.domain.identifiers import id_in
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.states import Lane
from chordwise.embedded import stack
from chordwise.errors import ConfigurationError, ReadError, UsageError
from chordwise.llm.provider import require_key
from chordwise.pipeline.models import budgets, model_client
from chordwise.prompts import library, packs
from chordwise.readers import contents
from chordwise.readers.reader_output import Columns
from chordwise.settings import Profile, Settings

PIPELINE_VERSION = 9
"""Incremented with each change of the code that changes the answer to the same question."""
MAX_NAME_LENGTH = 200


class RunArguments(TypedDict, total=False):
    """The options of a run that no profile has, and the name of its profile."""

    profile: Annotated[str, Option("Use [profiles.NAME]; options override it.", "NAME")]
    run_name: Annotated[str, RUN_NAME]
    fresh: Annotated[bool, Option("Do not reuse stored answers.")]
    no_cache: Annotated[bool, Option("Do not use the completion cache; implied by --fresh.")]
    yes: Annotated[bool, Option("Do not ask, whatever the expected cost.", flags=("--yes", "-y"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The questions that a run asks of each document, and how it asks them.

    If `name` is empty, a name is generated. `save_as` is the name of the table of answers, empty if
    there is none, and `family` the item that links documents in it. `fresh` asks again even if an
    answer is stored; without `use_cache` the cache of answers is not used. A run that `follows`
    does not repeat a question that a job of another run is asking, but waits for its answer.
    `paths` are the arguments that name the input, absolute and printable: repeating the command
    resumes an interrupted run. `profile` is the name of the profile, if any. The documents of a run
    that `is_suite` are never used as examples. A run that `is_refresh` belongs to no experiment.
    """

    types: tuple[AnalysisType, ...] = (AnalysisType.SUMMARY,)
    analysis: AnalysisOptions = field(default_factory=AnalysisOptions)
    model: str
    name: str = ""
    save_as: str = ""
    family: str = ""
    fresh: bool = False
    use_cache: bool = True
    nightly: bool = False
    lane: Lane = Lane.ONLINE
    follows: bool = False
    budget_usd: Decimal | None = None
    text_column: str = ""
    id_column: str = ""
    paths: tuple[str, ...] = ()
    profile: str = ""
    learned_examples: bool = True
    is_suite: bool = False
    is_refresh: bool = False

    @property
    def columns(self) -> Columns:
        """The columns that are read from tables."""
        return Columns(text=self.text_column, identity=self.id_column)

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
    analysis = options.analysis
    if settings.is_built_in(options.model):
        if unanswered := [kind for kind in options.types if not analysis_for(kind).built_in()]:
            raise UsageError(
                f"The built-in model does not support {', '.join(sorted(unanswered))}.",
                "Choose a language model: --model, or model in the settings.",
            )
        return replace(options, analysis=replace(analysis, votes=1, critique=False))
    principles = analysis.principles or settings.critique.principles
    return replace(options, analysis=replace(analysis, principles=principles))


def identity(settings: Settings, analysis_type: AnalysisType, options: RunOptions) -> str:
    """Return the hash of everything that a result depends on, except the document."""
    analysis = options.analysis_of(analysis_type)
    task = AnalysisTask(analysis_type=analysis_type, stage=Stage.ANALYZE, options=analysis)
    synthesis = replace(task, stage=Stage.SYNTHESIZE)
    parts: Mapping[str, object] = {
        "type": analysis_type,
        # As text, since a model reads the members of a schema in their order.
        "options": json.dumps(options_to_json(replace(analysis, templates=()))),
        "prompts": [
            template.version
            for stage_task in (task, synthesis)
            for template in library.templates_for(stage_task, settings.prompts.fallback)
        ],
        "models": model_client.identity(settings, options.model),
        "chunk_tokens": settings.pipeline.chunk_tokens,
        "pipeline": PIPELINE_VERSION,
        **_critique(analysis_type, analysis),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def require_answerable(settings: Settings, options: RunOptions) -> Decimal | None:
    """Refuse a run whose questions no worker could answer; return its cap, `None` without one.

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
    return {kind: identity(settings, kind, options) for kind in options.types}


def _critique(analysis_type: AnalysisType, options: AnalysisOptions) -> dict[str, object]:
    """Return what a critique depends on, including the text of the default principles."""
    if not options.critique:
        return {}
    prompts = [library.latest(name).version for name in (library.CRITIQUE, library.REVISION)]
    principles = critique.principles_for(analysis_type, options)
    return {"critique": prompts, "principles": list(principles)}


_OPTIONS = TypeAdapter(RunOptions)


def to_json(options: RunOptions) -> JsonObject:
    """Return the value of the column `runs.options`: all options except the name."""
    values: JsonObject = _OPTIONS.dump_python(options, mode="json", exclude={"name", "analysis"})
    return values | options_to_json(options.analysis)


def from_json(values: JsonObject, name: str) -> RunOptions:
    """Return the options that `to_json` wrote; `name` is the name of the run."""
    return _OPTIONS.validate_python({**values, "name": name, "analysis": values})


def differing(options: JsonObject, stored: JsonObject) -> list[str]:
    """Return the names of the options in which two values of `to_json` differ."""
    names = sorted(options.keys() | stored.keys())
    return [name for name in names if options.get(name) != stored.get(name)]


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


def required_profile(settings: Settings, name: str) -> Profile:
    """Return the profile of this name.

    Raises:
        ConfigurationError: It does not exist.
    """
    if name not in settings.profiles:
        raise ConfigurationError(
            f"There is no profile “{name}”.", "Define profiles in chordwise.toml."
        )
    return settings.profiles[name]


def requested(settings: Settings, options: Profile, arguments: RunArguments) -> RunOptions:
    """Return the options of a run: those that are set, over those of its profile.

    Raises:
        UsageError: The options contradict each other or the profile, or the profile is unknown.
    """
    files = ("schema_file", "labels_file", "examples_file")
    paths = {option: path for option in files if isinstance(path := getattr(options, option), Path)}
    options = options.model_copy(update={option: path.absolute() for option, path in paths.items()})
    name = arguments.get("profile", "")
    profile = chosen_profile(settings, options, name)
    base = run_options(settings, profile, arguments.get("run_name", ""), name)
    use_cache = not arguments.get("no_cache", False)
    return replace(base, fresh=arguments.get("fresh", False), use_cache=use_cache)


def chosen_profile(settings: Settings, options: Profile, name: str) -> Profile:
    """Return the profile of this name, if any, overridden by the options that are set.

    Raises:
        UsageError: The profile is unknown.
    """
    if name and name not in settings.profiles:
        names = sorted(settings.profiles)
        defining = "Define it as [profiles.NAME] in chordwise.toml."
        hint = identifiers.known_names(name, names) if names else defining
        raise UsageError(f"There is no profile “{name}”.", hint)
    return options.over(settings.profiles[name]) if name else options


def run_options(
    settings: Settings, profile: Profile, run_name: str = "", profile_name: str = ""
) -> RunOptions:
    """Return the options of a run that a profile describes; `run_name` may be empty.

    Raises:
        UsageError: The profile contradicts itself, or its schema, pack or templates cannot be used.
        ConfigurationError: A template cannot be used.
    """
    has_labels = bool(profile.labels or profile.labels_file)
    has_schema = profile.schema_file is not None or bool(profile.items)
    profile_types = tuple(map(AnalysisType, profile.types))
    types = implied_types(profile_types, schema=has_schema, labels=has_labels)
    analysis = _analysis_options(profile, types, settings.base_folder)
    if profile.pack:
        types, analysis = packs.completed(packs.named(profile.pack), profile_types, analysis)
    templates = user_templates(settings, profile.prompt, types)
    if profile.id_column and not profile.text_column:
        raise UsageError(
            "id_column applies only to rows.", "Also set --text-column or text_column."
        )
    entries = {name: getattr(profile, name) for name in _kept(RunOptions)}
    options = RunOptions(
        **entries | {"types": types, "model": profile.model or settings.model},
        analysis=replace(analysis, templates=templates),
        name=run_name,
        profile=profile_name,
    )
    if profile.examples_file is None:
        return options
    file_examples = _examples(settings.base_folder / profile.examples_file, options)
    return replace(options, analysis=replace(options.analysis, examples=file_examples))


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
    templates = library.templates_in(settings.base_folder / folder, variant)
    if not any(template.name.partition(".")[0] in types for template in templates):
        kinds = " and ".join(types)
        raise UsageError(
            f"The prompt “{variant}” has no template for {kinds}.",
            f"It has: {', '.join(template.title for template in templates)}.",
        )
    return templates


def _read_schema(path: Path) -> JsonObject:
    content = _text_in(path, "schema")
    try:
        return validation.check_schema(json.loads(content))
    except (ValueError, RecursionError) as error:
        what, hint = f"The schema {path} is not JSON: {error}.", "Correct the file"
        raise UsageError(what, f"{hint}, or name another schema.") from error
    except UsageError as error:
        hint = error.hint or f"Correct {path}, or name another schema."
        raise UsageError(error.what, hint) from error


def labels_of(
    names: Collection[str], file: Path | None
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the labels that are given or read from a file, with their meanings if there are any.

    Duplicates are removed.

    Raises:
        UsageError: Both are given, there is only one label, or the file cannot be read.
    """
    labels = tuple(dict.fromkeys(names))
    if labels and file is not None:
        raise UsageError("Both labels and a file of labels are given.", "Give one of them.")
    described = dict(names) if isinstance(names, Mapping) else {}
    described = described if file is None else _read_labels(file)
    labels = labels or tuple(described)
    if (labels or file) and len(labels) < _FEWEST_LABELS:
        hint = f"Add labels to {file}." if file else "Example: --labels invoice,letter"
        raise UsageError("A classification needs two labels or more.", hint)
    return labels, {label: meaning for label, meaning in described.items() if meaning}


def _checked_language(tag: str) -> str:
    if tag and not _LANGUAGE.fullmatch(tag):
        raise UsageError(f"“{tag}” is not a language tag.", "Examples: de, pt-BR, zh-Hans.")
    return tag


def _read_labels(path: Path) -> dict[str, str]:
    """Return the labels in a file with their meanings: TOML, JSON, or one label per line."""
    what, content = f"The labels {path} cannot be read", _text_in(path, "labels")
    try:
        match path.suffix.lower():
            case ".json":
                value = json.loads(content, object_pairs_hook=_once_each)
            case ".toml":
                value = parse_toml(content)
            case _:
                lines = (line.partition(":") for line in content.splitlines() if line.strip())
                value = _once_each([(label.strip(), meaning) for label, _, meaning in lines])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what}: {error}.", 'label = "what it means"') from error
    described = json_values.texts(value)
    if not isinstance(value, dict) or len(described) < len(value):
        raise UsageError(f"{what}: expected a text for each label.", 'label = "what it means"')
    return {label: " ".join(meaning.split()) for label, meaning in described.items()}


def _once_each(pairs: Sequence[tuple[str, JsonValue]]) -> JsonObject:
    """Return an object with these members, unless a name is repeated."""
    members: JsonObject = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"“{name}” is repeated")
        members[name] = value
    return members


def _examples(path: Path, options: RunOptions) -> tuple[Example, ...]:
    """Return the examples in a file that belong to the requested analysis types."""
    content = _text_in(path, "examples")
    try:
        if path.suffix.lower() == ".toml":
            entries = parse_toml(content).get("examples")
        else:
            entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The examples {path} cannot be read: {error}.") from error
    matches = [item for item in examples.parse(entries) if item.analysis_type in options.types]
    for example in matches:
        if problem := examples.problem(example, options.analysis):
            about = f"an example of the type {example.analysis_type} in {path}"
            raise UsageError(f"The answer of {about} is not valid: {problem}.")
    return tuple(matches)


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


def read_principles(path: Path) -> list[str]:
    """Return the principles in a text file, one per line, without bullets and blank lines.

    Raises:
        UsageError: The file cannot be read, or has no principles.
    """
    lines = _text_in(path, "principles").splitlines()
    principles = [text for line in lines if (text := line.lstrip("-*• \t").strip())]
    if not principles:
        raise UsageError(f"There are no principles in {path}.", "Write one on each line.")
    return principles


def _analysis_options(
    profile: Profile, types: tuple[AnalysisType, ...], base: Path
) -> AnalysisOptions:
    file = base / profile.labels_file if profile.labels_file else None
    labels, descriptions = labels_of(profile.labels, file)
    schema = profile.schema_file
    if schema is not None and AnalysisType.EXTRACTION not in types:
        raise UsageError("A schema applies only to extractions.", "Add the type extraction.")
    if profile.items and (schema is not None or AnalysisType.EXTRACTION not in types):
        raise UsageError("Items apply only to extractions without a schema.", "Leave one out.")
    if labels and AnalysisType.CLASSIFICATION not in types:
        raise UsageError("Labels apply only to classifications.", "Add the type classification.")
    if isinstance(schema, Mapping):
        schema = validation.check_schema(dict(schema))
    else:
        schema = None if schema is None else _read_schema(base / schema)
    entries = {name: getattr(profile, name) for name in _kept(AnalysisOptions)} | {
        "instructions": profile.instructions.strip(),
        "labels": labels,
        "answer_language": _checked_language(profile.answer_language),
        "critique": profile.critique or bool(profile.principles),
    }
    options = AnalysisOptions(**entries, schema=schema, label_descriptions=descriptions)
    if AnalysisType.EXTRACTION in types and schema is None and (profile.items or not profile.pack):
        items.check(options)
    return options


def _kept(of: type[RunOptions | AnalysisOptions]) -> set[str]:
    """Return the entries of a profile that are kept under the same name."""
    return {entry.name for entry in fields(of)} & Profile.model_fields.keys()
