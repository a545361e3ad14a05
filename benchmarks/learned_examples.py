"""`python -m benchmarks.learned_examples` measures what corrections bring as examples in prompts.

The documents of a corpus are parted in five by their hashes. Of four parts, so many documents are
corrected as a person would correct them, and the fifth part is classified with these examples; each
part is measured once. The model stands for a small one: it reads the examples in its prompt, and
follows those that are like the text more than the built-in model, which answers without any.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from benchmarks import quality
from chordwise.domain import json_values, tokens
from chordwise.domain.extractive import ranking, words
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.learned_examples import (
    ExampleIndex,
    JudgedAnswer,
    LearnedExample,
    learned,
)
from chordwise.domain.learning.measures import wilson
from chordwise.domain.learning.truths import Remark, Verdict
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, ModelProfile
from chordwise.llm.providers.extractive import ExtractiveModel
from chordwise.pipeline.asking import Question, ask
from chordwise.settings.sections import PromptSettings
from chordwise.storage.documents import hash_of

COUNTS = (0, 20, 50, 200)
CORPORA = ("clinc_oos", "speeches", "sentence_sentiment")
_PARTS = 5
_PRIOR = 0.3
_TABLE_STARTS = "<!-- make quality: corrections -->\n"
_EXAMPLE = re.compile(
    r"Example \d+, the text:\n(TEXT-\w+)\n(.*?)\n\1\nExample \d+, the answer:\n(\{[^\n]*\})",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A document with the label that people gave it; `part` is one of five, by its hash."""

    text: str
    label: str

    @property
    def part(self) -> int:
        """Return the fifth of the corpus that it belongs to."""
        return int(hash_of(self.text)[:8], 16) % _PARTS


@dataclass(slots=True)
class FollowingExamples:
    """Adds the likeness of each example in the prompt to its label, and takes the best label.

    The label that the built-in model gives has a likeness of 0.3.
    """

    built_in: ChatModel = field(default_factory=ExtractiveModel)
    asked_tokens: list[int] = field(default_factory=list)

    @property
    def profile(self) -> ModelProfile:
        """Return the profile of a small model."""
        return ModelProfile(
            provider="scripted",
            model="following-examples",
            context_tokens=16_384,
            max_output_tokens=1_024,
        )

    def complete(self, request: CompletionRequest) -> Completion:
        """Read the examples out of the prompt, as a model has to."""
        self.asked_tokens.append(tokens.estimate(request.system + request.user))
        completion = self.built_in.complete(request)
        answer = json_values.as_object(json.loads(completion.text))
        scores = defaultdict(float, {json_values.text(answer["primary_label"]): _PRIOR})
        own = _vector(request.task.text)
        for _, text, example in _EXAMPLE.findall(request.user):
            label = json_values.text(json.loads(example)["primary_label"])
            scores[label] += ranking.similarity(own, _vector(text))
        best = max(scores, key=scores.__getitem__)
        secondary = None if answer["secondary_label"] == best else answer["secondary_label"]
        answer |= {"primary_label": best or None, "secondary_label": secondary}
        return replace(completion, text=json.dumps(answer))


def _vector(text: str) -> ranking.Vector:
    terms = words.terms(text)
    return ranking.vector(terms, dict.fromkeys(terms, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What so many corrections brought: the share of right labels, and the tokens of a prompt."""

    corpus: str
    corrections: int
    count: int
    value: float
    low: float
    high: float
    prompt_tokens: float


def measured(corpus: str, documents: Sequence[Labelled], counts: Sequence[int]) -> Iterator[Row]:
    """Yield a row for each number of corrections; each document is answered once in each."""
    labels = tuple(sorted({each.label for each in documents}))
    options = AnalysisOptions(labels=labels)
    for count in counts:
        hits: list[float] = []
        model = FollowingExamples()
        for part in range(_PARTS):
            others = [each for each in documents if each.part != part]
            random = Random(part)  # noqa: S311 - the same corrections each time
            chosen = random.sample(others, min(count, len(others)))
            index = _index(_corrected(options, chosen))
            asked = [each for each in documents if each.part == part]
            hits += [float(_label(model, options, index, each) == each.label) for each in asked]
        low, high = wilson(math.fsum(hits), len(hits))
        yield Row(
            corpus=corpus,
            corrections=count,
            count=len(hits),
            value=statistics.fmean(hits),
            low=low,
            high=high,
            prompt_tokens=statistics.fmean(model.asked_tokens),
        )


def _corrected(options: AnalysisOptions, chosen: Sequence[Labelled]) -> Iterator[LearnedExample]:
    """Yield the examples that a person makes who corrects an answer to each document."""
    for each in chosen:
        wrong: JsonObject = {
            "primary_label": "none of these",
            "secondary_label": None,
            "confidence": 0.5,
            "features": [],
            "uncertainty_factors": [],
        }
        remark = Remark(
            path="/primary_label",
            verdict=Verdict.CORRECTED,
            judged="none of these",
            corrected=each.label,
        )
        example = learned(
            JudgedAnswer(
                document_id=uuid.uuid5(uuid.NAMESPACE_URL, each.text),
                sha256=hash_of(each.text),
                text=each.text,
                analysis_type=AnalysisType.CLASSIFICATION,
                options=options,
                output=wrong,
                remarks=[remark],
                feedback_ids=[],
            ),
            PromptSettings().learned_example_tokens,
        )
        if example is not None:
            yield example


def _index(examples: Iterator[LearnedExample]) -> ExampleIndex:
    prompts = PromptSettings()
    return ExampleIndex(list(examples), prompts.learned_examples, prompts.learned_example_tokens)


def _label(
    model: FollowingExamples, options: AnalysisOptions, index: ExampleIndex, document: Labelled
) -> str:
    shown = index.chosen(hash_of(document.text), document.text)
    task = AnalysisTask(
        analysis_type=AnalysisType.CLASSIFICATION,
        stage=Stage.ANALYZE,
        options=options,
        text=document.text,
        examples=tuple(each.example for each in shown),
    )
    question = Question(
        model=model,
        task=task,
        source=Source(document.text),
        record_check=lambda _completion, _result: None,
    )
    return json_values.text(ask(question).output["primary_label"])


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| corpus | corrections | n | right label | 95 % | tokens of a prompt |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row.corpus}` | {row.corrections} | {row.count} | {row.value:.2f} "
        f"| {row.low:.2f} to {row.high:.2f} | {row.prompt_tokens:,.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def documents_in(folder: Path) -> list[Labelled]:
    """Return the documents of a corpus of classifications, each text once."""
    found: dict[str, Labelled] = {}
    for row in quality.truths_in(folder):
        if (label := quality.label_of(row)) != "out_of_scope":
            text = quality.text_of(row, folder)
            found[text] = Labelled(text=text, label=label)
    return list(found.values())


def main() -> None:
    """Measure the corpora, print the table, and write it into the page where that is said."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learned_examples", description=__doc__
    )
    parser.add_argument("corpora", type=Path, help="the folder with a folder for each corpus")
    parser.add_argument("--only", nargs="+", default=list(CORPORA), metavar="NAME")
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), metavar="N")
    parser.add_argument("--write", action="store_true", help="write the table into docs/quality.md")
    options = parser.parse_args()
    rows = [
        row
        for name in options.only
        for row in measured(name, documents_in(options.corpora / name), options.counts)
    ]
    found = table(rows)
    print(found, end="")
    if options.write:
        quality.write(_TABLE_STARTS, found)


if __name__ == "__main__":
    main()
