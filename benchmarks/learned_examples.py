"""`python -m benchmarks.learned_examples` measures corrections used as examples in prompts.

The documents of a corpus are divided into five parts by their hashes. Each part is classified once,
with corrected documents of the other four parts as examples. The model is a script that imitates a
small model: it reads the examples in its prompt, and prefers the label of similar examples to the
answer of the built-in model, which uses none.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from benchmarks import quality, report
from chordwise.domain import json_values, tokens, words
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.extractive import ranking
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.learned_examples import (
    ExampleIndex,
    JudgedAnswer,
    LearnedExample,
    example_from,
)
from chordwise.domain.learning.truths import Remark, Verdict
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, ModelProfile
from chordwise.llm.providers.extractive import ExtractiveModel
from chordwise.pipeline.asking import Question, ask
from chordwise.settings.sections import PromptSettings

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
    """A document with its true label."""

    text: str
    label: str

    @property
    def part(self) -> int:
        """Return the fifth of the corpus that the document belongs to, by its hash."""
        return int(hash_of(self.text)[:8], 16) % _PARTS


def hash_of(text: str) -> str:
    """Return the hash that identifies a document of plain text."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class FollowingExamples:
    """Adds the similarity of each example in the prompt to its label, and returns the best label.

    The label of the built-in model starts with a similarity of 0.3.
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
        """Answer with the best label, using the examples that the prompt contains."""
        self.asked_tokens.append(tokens.estimate(request.system + request.user))
        completion = self.built_in.complete(request)
        answer = json_values.as_object(json.loads(completion.text))
        scores = defaultdict(float, {json_values.text(answer["primary_label"]): _PRIOR})
        vector = _vector(request.task.text)
        for _, text, example in _EXAMPLE.findall(request.user):
            label = json_values.text(json.loads(example)["primary_label"])
            scores[label] += ranking.similarity(vector, _vector(text))
        best = max(scores, key=scores.__getitem__)
        secondary = None if answer["secondary_label"] == best else answer["secondary_label"]
        answer |= {"primary_label": best or None, "secondary_label": secondary}
        return replace(completion, text=json.dumps(answer))


def _vector(text: str) -> ranking.Vector:
    terms = words.terms(text)
    return ranking.vector(terms, dict.fromkeys(terms, 1.0))


def measured(
    corpus: str, documents: Sequence[Labelled], counts: Sequence[int]
) -> Iterator[tuple[quality.Row, float]]:
    """Yield the share of right labels and the mean prompt tokens for each number of corrections.

    Each document is classified once per row.
    """
    labels = tuple(sorted({document.label for document in documents}))
    options = AnalysisOptions(labels=labels)
    for count in counts:
        hits: list[float] = []
        model = FollowingExamples()
        for part in range(_PARTS):
            others = [document for document in documents if document.part != part]
            random = Random(part)  # noqa: S311 - the same corrections each time
            chosen = random.sample(others, min(count, len(others)))
            prompts = PromptSettings()
            limits = prompts.learned_examples, prompts.learned_example_tokens
            index = ExampleIndex(list(_corrected(options, chosen)), *limits)
            test_set = [document for document in documents if document.part == part]
            hits += [
                float(_label(model, options, index, document) == document.label)
                for document in test_set
            ]
        yield quality.share(corpus, f"{count}", hits), statistics.fmean(model.asked_tokens)


def _corrected(options: AnalysisOptions, chosen: Sequence[Labelled]) -> Iterator[LearnedExample]:
    """Yield the examples that result from correcting an answer to each document."""
    for document in chosen:
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
            corrected=document.label,
        )
        example = example_from(
            JudgedAnswer(
                document_id=uuid.uuid5(uuid.NAMESPACE_URL, document.text),
                sha256=hash_of(document.text),
                text=document.text,
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


def _label(
    model: FollowingExamples, options: AnalysisOptions, index: ExampleIndex, document: Labelled
) -> str:
    shown = index.select(hash_of(document.text), document.text)
    task = AnalysisTask(
        analysis_type=AnalysisType.CLASSIFICATION,
        stage=Stage.ANALYZE,
        options=options,
        text=document.text,
        examples=tuple(example.example for example in shown),
    )
    question = Question(model=model, task=task, source=Source(document.text))
    return json_values.text(ask(question).output["primary_label"])


def table(rows: Sequence[tuple[quality.Row, float]]) -> str:
    """Return the rows as a Markdown table."""
    head = ("corpus", "corrections", "n", "right label", "95 %", "prompt tokens")
    return report.table(head, [[*share.cells(), f"{tokens:,.0f}"] for share, tokens in rows])


def documents_in(folder: Path) -> list[Labelled]:
    """Return the documents of a classification corpus, each text once."""
    by_text: dict[str, Labelled] = {}
    for row in quality.truths_in(folder):
        if (label := quality.label_of(row)) != "out_of_scope":
            text = quality.text_of(row, folder)
            by_text[text] = Labelled(text=text, label=label)
    return list(by_text.values())


def main() -> None:
    """Measure the corpora, print the table, and with `--write` update benchmarks/quality.md."""
    parser = quality.parser("learned_examples", __doc__, CORPORA)
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), metavar="N")
    options = parser.parse_args()
    rows = [
        row
        for name in options.only
        for row in measured(name, documents_in(options.corpora / name), options.counts)
    ]
    quality.publish(_TABLE_STARTS, table(rows), writes=options.write)


if __name__ == "__main__":
    main()
