"""Examples learned from feedback, and their selection for a document.

An approved or corrected answer becomes an example. The examples for a document are selected by
maximal marginal relevance (Carbonell and Goldstein, The Use of MMR, SIGIR 1998): their texts are
similar to the document and dissimilar to each other. An inverted index over words finds them.
"""

from __future__ import annotations

import heapq
import json
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chordwise.domain import examples, grounding, json_values, tokens, value_in_quote, words
from chordwise.domain.analyses.extraction import FOUND
from chordwise.domain.analysis import NO_LABEL, AnalysisDefinition, analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Example
from chordwise.domain.extractive import ranking
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import USER_DATA, JsonObject, JsonValue, text_of
from chordwise.domain.learning import corrections, fields, truths
from chordwise.domain.learning.corrections import Corrected
from chordwise.domain.learning.truths import Remark, Truth, Verdict

_HELD_OUT = 5
_NAMESPACE = uuid.UUID("5b0c8a52-6a3e-4d6e-9a0b-0c1f3f6d7e21")
_GAP = "\n[…]\n"
_LEAST_AROUND = 20
_COMPARED_CHARACTERS = 8_000
_POOL = 50
_RELEVANCE = 0.5
_FRAME_TOKENS = 60
_COMMON, _COMMON_SHARE = 20, 4


def is_held_out(sha256: str) -> bool:
    """Return whether a document is reserved for evaluation: one in five, by the hash of its text.

    A held-out document never becomes an example, so evaluation on it is unbiased.
    """
    return int(sha256[:8], 16) % _HELD_OUT == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAnswer:
    """An answer about a text, its options, and the remarks on it, the latest last."""

    document_id: uuid.UUID
    sha256: str
    text: str
    analysis_type: AnalysisType
    options: AnalysisOptions
    output: JsonObject
    remarks: Sequence[Remark]
    feedback_ids: Sequence[uuid.UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedExample:
    """An example, its document and feedback, and the terms of its text.

    `folded` is the beginning of the text, case-folded and with normalized white space.
    """

    example: Example
    document_id: uuid.UUID
    sha256: str
    feedback_ids: tuple[uuid.UUID, ...]
    folded: str
    terms: tuple[str, ...]

    @property
    def id(self) -> uuid.UUID:
        """Return an id that depends on the document, the text, the answer and the feedback."""
        said = [str(self.document_id), self.example.analysis_type, self.example.text]
        said += [json.dumps(self.example.answer, sort_keys=True), *map(str, self.feedback_ids)]
        return uuid.uuid5(_NAMESPACE, json.dumps(said))

    @property
    def token_count(self) -> int:
        """Return the estimated number of tokens that the example takes in a prompt."""
        answer = json.dumps(self.example.answer, ensure_ascii=False)
        return tokens.estimate(f"{self.example.text}{answer}") + _FRAME_TOKENS


def example_from(judged: JudgedAnswer, characters: int) -> LearnedExample | None:
    """Return the example made of a judged answer, with at most `characters` characters of text.

    `None` if the right answer is unknown, or invalid: its quotes have to be in the shown text.
    """
    answer = confirmed(judged)
    if answer is None:
        return None
    quotes = [json_values.text(finding["quote"]) for finding in grounding.quotes(answer)]
    shown = excerpt(judged.text, quotes, characters)
    if shown is None:
        return None
    example = Example(analysis_type=judged.analysis_type, text=shown, answer=answer)
    if examples.problem(example, judged.options):
        return None
    learned = LearnedExample(
        example=example,
        document_id=judged.document_id,
        sha256=judged.sha256,
        feedback_ids=tuple(judged.feedback_ids),
        folded=_folded(judged.text),
        terms=_terms(judged.text),
    )
    return replace(learned, example=replace(example, id=learned.id))


def confirmed(judged: JudgedAnswer) -> JsonObject | None:
    """Return the right answer in the form that a model returns, or `None` if it is unknown.

    An extraction needs a corrected value, or approval of each field; any other answer approval as
    a whole, or a correction. No part of it may be rejected without a correction.
    """
    analysis = analysis_for(judged.analysis_type)
    truth = truths.from_remarks(judged.analysis_type, judged.remarks)
    corrected = corrections.correct(judged.output, analysis, truth, schema=judged.options.schema)
    if not _is_confirmed(judged, truth, corrected):
        return None
    output = judged.output if corrected.output is None else corrected.output
    if (label := truth.label) is not None:
        output = judged.output
        if not fields.is_same(truths.label_in(judged.analysis_type, output), label):
            output = analysis.with_label(output, None if label == NO_LABEL else label)
    return _as_answered(output, judged, analysis)


def _is_confirmed(judged: JudgedAnswer, truth: Truth, corrected: Corrected) -> bool:
    if analysis_for(judged.analysis_type).label_path:
        return truth.label is not None
    about_it = truths.latest_about(judged.output, truth.remarks)
    if truth.wrong_fields or any(remark.verdict is Verdict.REJECTED for remark in about_it):
        return False
    if corrected.output is not None:
        return True
    if judged.analysis_type == AnalysisType.EXTRACTION:
        return all(name in truth.fields for name in fields.names(judged.output))
    return any(not remark.path and remark.verdict is Verdict.APPROVED for remark in about_it)


def _as_answered(
    output: JsonObject, judged: JudgedAnswer, analysis: AnalysisDefinition
) -> JsonObject:
    """Return a stored output in the form that a model returns, with quotes from the text."""
    source = Source(judged.text)
    answer = json_values.as_object(_fitted(output, analysis.schema(judged.options)))
    if judged.analysis_type != AnalysisType.EXTRACTION:
        return answer
    if USER_DATA in answer:
        evidence = json_values.objects(answer.get("evidence"))
        kept = (_requoted(entry, answer, source) for entry in evidence)
        return {**answer, "evidence": [entry for entry in kept if entry.get("quote")]}
    listed = json_values.objects(answer.get("fields"))
    return {**answer, "fields": [_requoted(field, answer, source) for field in listed]}


def _fitted(value: JsonValue, schema: JsonObject) -> JsonValue:
    """Return a value restricted to the members of a closed schema, without ungrounded findings."""
    known = schema.get("properties")
    if isinstance(value, dict) and isinstance(known, dict):
        shared = ((name, value[name]) for name in known if name in value)
        return {
            name: it if name == USER_DATA else _fitted(it, json_values.as_object(known[name]))
            for name, it in shared
        }
    if isinstance(value, list):
        grounded = [e for e in value if not (isinstance(e, dict) and e.get("grounded") is False)]
        return [_fitted(item, json_values.as_object(schema.get("items"))) for item in grounded]
    return value


def _requoted(entry: JsonObject, answer: JsonObject, source: Source) -> JsonObject:
    quote = json_values.text(entry.get("quote"))
    if "path" in entry:
        item = json_values.text(entry["path"])
        value = json_values.at(answer[USER_DATA], item)
    else:
        item, value = json_values.text(entry.get("item")), entry.get("value")
        if entry.get("status") != FOUND:
            return {**entry, "value": None, "quote": None}
    if isinstance(value, dict | list):
        return entry
    if quote and value_in_quote.occurs_in(value, quote, item) is not False:
        return entry
    span = source.locate(text_of(value) or "")
    return {**entry, "quote": source.wording(span) if span else None}


def excerpt(text: str, quotes: Sequence[str], characters: int) -> str | None:
    """Return the text, or its beginning or the parts around quotes; `None` if they are too long."""
    if len(text) <= characters:
        return text
    source = Source(text)
    located = [source.locate(quote) for quote in quotes]
    spans = sorted((span.start_char, span.end_char) for span in located if span is not None)
    spans = spans or [(0, 0)]
    room = characters - sum(end - start for start, end in spans) - len(_GAP) * (len(spans) + 1)
    around = room // (2 * len(spans)) if quotes else room
    if around < _LEAST_AROUND or len(spans) < len(quotes):
        return None
    windows: list[tuple[int, int]] = []
    for start, end in spans:
        window = _at_blanks(text, (start, end), around)
        if windows and window[0] <= windows[-1][1]:
            before = windows.pop()
            window = before[0], max(before[1], window[1])
        windows.append(window)
    shown = _GAP.join(text[start:end].strip() for start, end in windows)
    beginning = _GAP.lstrip() if windows[0][0] else ""
    return f"{beginning}{shown}{_GAP.rstrip() if windows[-1][1] < len(text) else ''}"


def _at_blanks(text: str, span: tuple[int, int], around: int) -> tuple[int, int]:
    start, end = max(0, span[0] - around), min(len(text), span[1] + around)
    if start:
        start = next((at for at in range(start, span[0]) if text[at].isspace()), start)
    if end < len(text):
        end = next((at for at in range(end, span[1], -1) if text[at - 1].isspace()), end)
    return start, end


def _folded(text: str) -> str:
    return " ".join(text[:_COMPARED_CHARACTERS].casefold().split())


def _terms(text: str) -> tuple[str, ...]:
    return tuple(words.terms(text[:_COMPARED_CHARACTERS]))


class ExampleIndex:
    """An index of examples; it selects at most `limit` with at most `max_tokens` tokens."""

    def __init__(self, learned: Sequence[LearnedExample], limit: int, max_tokens: int) -> None:
        self._learned = learned
        self._limit = limit
        self._max_tokens = max_tokens
        self._weights = ranking.inverse_document_frequencies([example.terms for example in learned])
        self._vectors = [ranking.vector(example.terms, self._weights) for example in learned]
        self._tokens = [example.token_count for example in learned]
        self._cosines: dict[tuple[int, int], float] = {}
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for index, vector in enumerate(self._vectors):
            for term, value in vector.items():
                self._postings[term].append((index, value))
        most_common = max(_COMMON, len(learned) // _COMMON_SHARE)
        common = [term for term, listed in self._postings.items() if len(listed) > most_common]
        for term in common:  # they distinguish little, and their lists are the longest
            del self._postings[term]

    def __len__(self) -> int:
        return len(self._learned)

    def select(self, sha256: str, text: str) -> tuple[LearnedExample, ...]:
        """Return the examples to show for a document, the most similar one last.

        Examples of the same text, ignoring case and white space, are excluded.
        """
        if not self._learned:
            return ()
        folded = _folded(text)
        likeness: dict[int, float] = defaultdict(float)
        for term, value in ranking.vector(_terms(text), self._weights).items():
            for place, other in self._postings.get(term, ()):
                likeness[place] += value * other
        others = (
            (place, value)
            for place, value in likeness.items()
            if self._learned[place].sha256 != sha256 and self._learned[place].folded != folded
        )
        pool = dict(heapq.nlargest(_POOL, others, key=lambda pair: pair[1]))
        return tuple(self._learned[place] for place in reversed(self._picked(pool)))

    def _picked(self, pool: dict[int, float]) -> Sequence[int]:
        alike = dict.fromkeys(pool, 0.0)
        picked: list[int] = []
        left = self._max_tokens
        while len(picked) < self._limit:
            worth = {
                place: _RELEVANCE * likeness - (1 - _RELEVANCE) * alike[place]
                for place, likeness in pool.items()
                if place not in picked and self._tokens[place] <= left
            }
            if not worth:
                break
            best = max(worth, key=worth.__getitem__)
            picked.append(best)
            left -= self._tokens[best]
            for place in worth:
                pair = min(place, best), max(place, best)
                if pair not in self._cosines:
                    vectors = self._vectors[place], self._vectors[best]
                    self._cosines[pair] = ranking.similarity(*vectors)
                alike[place] = max(alike[place], self._cosines[pair])
        return picked
