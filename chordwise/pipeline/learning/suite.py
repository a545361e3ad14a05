"""Suites: folders of labelled documents that a model is evaluated on, beside the built-in model."""

from __future__ import annotations

import glob
import heapq
import json
import tomllib
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from pydantic import Field, ValidationError

from chordwise.domain import json_values, validation
from chordwise.domain.analysis import NO_LABEL
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.dates import DateOrder
from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.fields import Rule
from chordwise.domain.learning.truths import Truth
from chordwise.domain.visible_text import printable
from chordwise.errors import UsageError
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.intake.document_batches import BatchWriter, Offered
from chordwise.pipeline.intake.run_options import RunOptions, run_options
from chordwise.pipeline.intake.submit import open_run
from chordwise.pipeline.learning import evaluation, gold
from chordwise.pipeline.learning.gold import Gold, Unusable, content_of, read_records, skipping
from chordwise.pipeline.learning.scope import Scope
from chordwise.pipeline.runtime.context import Context
from chordwise.readers.discovery import discover
from chordwise.readers.reader import Reader
from chordwise.relations.relation import Row
from chordwise.settings import Profile, Settings
from chordwise.storage.runs import Run

FILE = "suite.toml"
OF_CORPORA = Path(__file__).parent / "suites"
"""The folder of suite files for published corpora, named after the corpora's folders."""
_HINT = "docs/evaluation.md, Suites, shows what a suite looks like."


class SuiteLayout(StrEnum):
    """How a suite stores its documents and the truth."""

    FILES = "files"
    RECORDS = "records"
    EXTRACTBENCH = "extractbench"


class SuiteSettings(Profile):
    """The file `suite.toml`: the question, as in a profile, and the places of documents and truth.

    Paths are relative to the file; in the layout `records` the paths in the records are relative to
    the file of records. `name`, `path`, `text`, `label`, `summary` and the values of `fields` are
    JSON Pointers into these records. `rules` define when a value of a field counts as right, and
    `dates` how ambiguous dates are read. `no_label` is the label that means that no
    label fits.
    """

    layout: SuiteLayout = SuiteLayout.FILES
    documents: Path = Path("documents")
    gold: Path = Path("gold.jsonl")
    name: str = "/id"
    path: str = "/path"
    text: str = "/text"
    label: str = ""
    no_label: str = ""
    summary: str = ""
    fields: Mapping[str, str] = Field(default_factory=dict)
    rules: Mapping[str, Rule] = Field(default_factory=dict)
    dates: DateOrder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteDocument:
    """A document of a suite: the file at `path`, or a text."""

    name: str
    path: Path | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuitePart:
    """One question of a suite, the documents to ask it about, and the truth about them."""

    name: str
    options: RunOptions
    documents: Sequence[SuiteDocument]
    gold: Gold


def read(settings: Settings, folder: Path, limit: int | None = None) -> Sequence[SuitePart]:
    """Read a suite; with `limit`, at most that many documents per part, by hashes of their names.

    What cannot be used is `unusable` in the gold of the last part.

    Raises:
        UsageError: The suite does not exist or is invalid.
    """
    suite = _suite_settings(folder)
    unusable: list[Unusable] = []
    match suite.layout:
        case SuiteLayout.FILES:
            paths = [
                file.path for file in discover([str(_inside(folder, suite.documents))]) if file.path
            ]
            parts = [
                SuitePart(
                    name=folder.name,
                    options=_question(settings, folder, suite),
                    documents=[_document(folder, path) for path in paths],
                    gold=gold.read(_inside(folder, suite.gold), suite.dates, unusable),
                )
            ]
        case SuiteLayout.RECORDS:
            parts = [_of_records(settings, folder, suite, unusable)]
        case SuiteLayout.EXTRACTBENCH:
            parts = list(_of_schemas(settings, folder, suite, unusable))
    parts = [_prepared(part, suite, limit) for part in parts if part.gold.truths]
    if not any(part.documents for part in parts):
        first = unusable[0] if unusable else None
        what = f"The suite {folder} has no documents with right answers."
        raise UsageError(f"{first['document']} {first['reason']}." if first else what, _HINT)
    last = replace(parts[-1].gold, unusable=unusable)
    return [*parts[:-1], replace(parts[-1], gold=last)]


def evaluate(
    context: Context,
    part: SuitePart,
    model: str,
    now: datetime,
    wait: Callable[[uuid.UUID], object],
) -> Sequence[Row]:
    """Ask a model about the documents, `wait` for the run, and compare the answers with the truth.

    The run does not reuse earlier answers. The rows are those of `evaluation.evaluate`, with the
    `part` of the suite, the `run` and the `asked` model.

    A document without an answer counts as wrong.
    """
    options = replace(part.options, model=model, fresh=True, save_as="", is_suite=True)
    submission = open_run(context, options, now)
    with BatchWriter(submission.take_in) as writer, Reader(context.settings.readers) as reader:
        for document in part.documents:
            if document.path is None:
                writer.put(Offered(document=reader.read_text(document.text, document.name)))
                continue
            for reading in reader.read_documents(
                document.path,
                submission.options.columns,
                source=document.name,
                transcriber=submission.transcriber,
            ):
                writer.put(Offered(document=reading))
    submission.close()
    wait(submission.run_id)
    with context.database.read() as session:
        run = session.get_one(Run, submission.run_id)
    scope = Scope(settings=context.settings, run=run, types=options.types, gold=part.gold)
    names = {"part": part.name, "run": submission.name, "asked": model}
    return [{**names, **row} for row in evaluation.evaluate(context.database, scope)]


def evaluate_all(
    context: Context,
    parts: Iterable[SuitePart],
    model: str,
    now: datetime,
    wait: Callable[[uuid.UUID], object],
) -> Iterator[tuple[Sequence[Row], ...]]:
    """Yield the metrics of each part for the model and, if it differs, the built-in model."""
    models = dict.fromkeys((model, EXTRACTIVE))
    for part in parts:
        yield tuple(evaluate(context, part, name, now, wait) for name in models)


def _suite_settings(folder: Path) -> SuiteSettings:
    path, known = folder / FILE, OF_CORPORA / f"{folder.absolute().name}.toml"
    if known.is_file() and not path.exists():
        path = known
    try:
        return SuiteSettings.model_validate(tomllib.loads(_text_in(path)))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.", _HINT) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}, {place}: {first['msg']}.", _HINT) from error


def _text_in(path: Path) -> str:
    return content_of(path).decode("utf-8-sig")


def _inside(folder: Path, target: Path) -> Path:
    """Return a path that a suite names, which must be in its folder, as a suite is untrusted."""
    path = folder / target
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"The suite {folder} names {printable(str(target))}, which is outside of its folder.",
            "Copy the file or folder into the suite.",
        )
    return path


def _question(settings: Settings, folder: Path, suite: SuiteSettings) -> RunOptions:
    schema = suite.schema_file
    if isinstance(schema, Path):
        schema = _inside(folder, schema).absolute()
    return run_options(settings, suite.model_copy(update={"schema_file": schema}))


def _document(folder: Path, path: Path) -> SuiteDocument:
    whole, within = path.absolute(), folder.absolute()
    name = whole.relative_to(within) if whole.is_relative_to(within) else whole
    return SuiteDocument(name=printable(str(name)), path=path)


def _of_records(
    settings: Settings, folder: Path, suite: SuiteSettings, unusable: list[Unusable]
) -> SuitePart:
    """Return the part of a JSON Lines file with the truth and the texts or paths of documents."""
    file = read_records(_inside(folder, suite.gold), unusable)
    documents, truths = [], {}
    for line, record in file.records:
        path = json_values.text(json_values.at(record, suite.path))
        text = json_values.text(json_values.at(record, suite.text))
        name = path or json_values.text(json_values.at(record, suite.name)) or f"{line}"
        label = json_values.text(json_values.at(record, suite.label)) or None
        truth = Truth(
            label=NO_LABEL if label and label == suite.no_label else label,
            reference=json_values.text(json_values.at(record, suite.summary)) or None,
            fields={name: json_values.at(record, place) for name, place in suite.fields.items()},
        )
        if not any(gold.covers(truth, kind) for kind in AnalysisType):
            continue
        if path or text:
            where = _inside(folder, file.path.parent / path) if path else None
            documents.append(SuiteDocument(name=name, path=where, text=text))
            truths[name] = truth
        else:
            place = f"{file.path.name}, line {line}"
            unusable.append({"document": place, "reason": "has neither a text nor a path"})
    return SuitePart(
        name=folder.name,
        options=_question(settings, folder, suite),
        documents=documents,
        gold=Gold(name=suite.gold.name, sha256=file.sha256, truths=truths),
    )


_GOLD = ".gold.json"
_SCHEMA = "schema.json"
_RULES = "evaluation_config"
"""The schema member that defines how a field is compared; it is not part of JSON Schema."""


def _of_schemas(
    settings: Settings, folder: Path, suite: SuiteSettings, unusable: list[Unusable]
) -> Iterator[SuitePart]:
    """Yield a part for each schema: files, a gold JSON beside each, the schema beside or above."""
    root = _inside(folder, suite.documents)
    cases: dict[Path | None, dict[Path, Path]] = defaultdict(dict)
    for path in sorted(root.rglob("*.json")):
        stem = path.name.removesuffix(_GOLD).removesuffix(".json")
        beside = sorted(
            file
            for file in path.parent.glob(f"{glob.escape(stem)}.*")
            if file.stem == stem and file.suffix.lower() != ".json"
        )
        if beside or path.name.endswith(_GOLD):
            document = beside[0] if beside else path.with_name(stem)
            cases[_schema_of(path, stem, root)][document] = path
    for path in cases.pop(None, {}).values():
        reason = "has no document or no schema beside it"
        unusable.append({"document": _document(folder, path).name, "reason": reason})
    extraction = suite.model_copy(update={"types": (AnalysisType.EXTRACTION,)})
    options = _question(settings, folder, extraction)
    for schema, truth_paths in cases.items():
        if schema is None:
            continue
        with skipping(_document(folder, schema).name, unusable):
            written = validation.unwrapped(_json(schema))
            checked = validation.check_schema(_without_rules(written))
            yield SuitePart(
                name=f"{folder.name}/{schema.parent.name}",
                options=replace(options, analysis=replace(options.analysis, schema=checked)),
                documents=[_document(folder, path) for path in truth_paths],
                gold=_gold_of(folder, truth_paths, dict(_rules(written)), unusable),
            )


def _gold_of(
    folder: Path,
    truth_paths: Mapping[Path, Path],
    rules: Mapping[str, Rule],
    unusable: list[Unusable],
) -> Gold:
    truths, digest = {}, sha256()
    for path, truth in truth_paths.items():
        with skipping(_document(folder, truth).name, unusable):
            values = _json(truth)
            if not isinstance(values, dict):
                raise UsageError(f"{truth} is not a JSON object.", _HINT)
            digest.update(content_of(truth))
            fields = {json_values.pointer("", name): value for name, value in values.items()}
            truths[_document(folder, path).name] = Truth(fields=fields, rules=rules)
    return Gold(name=_SCHEMA, sha256=digest.hexdigest(), truths=truths)


def _schema_of(path: Path, stem: str, root: Path) -> Path | None:
    """Return the schema of a document: one with its name, or the nearest in its folder or above."""
    sibling = path.with_name(f"{stem}.{_SCHEMA}")
    if sibling.is_file():
        return sibling
    for folder in (path.parent, *path.parent.parents):
        if schemas := sorted(folder.glob(f"*{_SCHEMA}")):
            return schemas[0]
        if folder == root:
            return None
    return None


def _json(path: Path) -> JsonValue:
    try:
        value: JsonValue = json.loads(_text_in(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}.", _HINT) from error
    return value


def _rules(schema: JsonValue) -> Iterator[tuple[str, Rule]]:
    """Yield the rules of a schema's fields; rules other than a tolerance are treated as `equal`."""
    members = json_values.at(schema, "/properties")
    for name, member in members.items() if isinstance(members, dict) else ():
        if "toleranc" in json.dumps(json_values.at(member, f"/{_RULES}")):
            yield json_values.pointer("", name), Rule.TYPED


def _without_rules(schema: JsonValue) -> JsonValue:
    if isinstance(schema, dict):
        return {name: _without_rules(member) for name, member in schema.items() if name != _RULES}
    return [_without_rules(element) for element in schema] if isinstance(schema, list) else schema


def _prepared(part: SuitePart, suite: SuiteSettings, limit: int | None) -> SuitePart:
    """Return a part with the rules of the suite, in which all documents, at most `limit`, count."""
    names = {document.name for document in part.documents}
    is_limited = limit is not None and len(names) > limit
    if limit is not None and is_limited:
        names = set(heapq.nlargest(limit, names, key=lambda name: sha256(name.encode()).digest()))
    documents = [document for document in part.documents if document.name in names]
    truths = {
        name: replace(truth, rules={**truth.rules, **suite.rules}, dates=suite.dates or truth.dates)
        for name, truth in part.gold.truths.items()
        if not is_limited
        or any(source == name or source.endswith((f"/{name}", f"#{name}")) for source in names)
    }
    whole = replace(part.gold, truths=truths, is_complete=True)
    return replace(part, documents=documents, gold=whole)
