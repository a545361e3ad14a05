"""A question to a model, and the policy that limits how often and how long it is asked."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from chordwise.domain import chunking, critique, items, tokens
from chordwise.domain.analysis import AnalysisDefinition
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.chunking import RowSize, TextBudget
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.memo import memoized_by_identity
from chordwise.domain.prompts import render, render_examples, render_header, render_revision
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.domain.templates import PromptTemplate
from chordwise.errors import ConfigurationError, InvalidAnswerError
from chordwise.llm.model import ChatModel, CompletionRequest, ModelProfile
from chordwise.pipeline.asking.check import RecordCheck
from chordwise.prompts import library
from chordwise.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingPolicy:
    """How often and how long a question is asked before it fails.

    `prompts` names the further templates for answers that stay invalid. All calls and their waits
    together take at most `seconds`. A further prompt or model is tried only while more time is left
    than a timed-out request of the same question took. `require` is called before each request, and
    raises if the answer is no longer needed.
    """

    prompts: tuple[str, ...] = ()
    seconds: float = math.inf
    clock: Callable[[], float] = time.monotonic
    require: Callable[[], None] = lambda: None


ONE_PROMPT = AskingPolicy()


def policy_of(settings: Settings, require: Callable[[], None] = lambda: None) -> AskingPolicy:
    """Return the policy of the settings: `worker.chunk_seconds` and the further prompts.

    `require` raises once another worker has claimed the work, so that no further request is paid
    for.
    """
    seconds = settings.worker.chunk_seconds
    return AskingPolicy(prompts=settings.prompts.fallback, seconds=seconds, require=require)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a model is asked, and how.

    The quotes of the answer are located in `source`. `record_check` is called with each completion
    and the result of its check.
    """

    model: ChatModel
    task: AnalysisTask
    source: Source
    record_check: RecordCheck = lambda *_: None
    policy: AskingPolicy = ONE_PROMPT


def about_part(task: AnalysisTask, text: str, start: int, end: int) -> tuple[AnalysisTask, Source]:
    """Return the question about a part of a document's text, and the source of its quotes.

    If a table continues in the part, its header is repeated there.
    """
    part, header = text[start:end], chunking.table_header(text, start)
    is_whole = not _NO_BLANK.search(text, 0, start) and not _NO_BLANK.search(text, end)
    beginning = Source(text[slice(*header)], offset=header[0]) if header else None
    part_task = replace(
        task, text=part, header=beginning.text if beginning else "", is_whole=is_whole
    )
    return part_task, Source(part, offset=start, header=beginning)


REPAIR_TOKENS = 256
"""The maximum size of the remark below a repeated question, in estimated tokens."""
_NO_BLANK = re.compile(r"\S")
CHUNK_TOKENS, MAX_CHUNK_TOKENS = 3_000, 12_000
"""The size of a chunk for answers that grow with the text, and the maximum for others."""
_MIN_TEXT_TOKENS = 64
_MIN_ROWS = 8
_TOKENS_OF_VALUE, _TOKENS_OF_NAMED_VALUE, _TOKENS_OF_QUOTE = 3, 9, 27
"""In an answer, a value of 3 tokens takes 9, and the quote of a row takes 27 plus the row."""
_RAISED_BY = 2
_MATERIAL_SHARE = 0.9


def request_for(
    model: ChatModel, task: AnalysisTask, template: PromptTemplate | None = None
) -> CompletionRequest:
    """Render the question for a model, with the usual template where none is given.

    White space around the text is omitted.
    """
    task = replace(task, text=task.text.strip() or task.text)
    schema = schema_of(task.options, critique.analysis_of(task))
    template = template or library.template_for(task)
    prompt = render(template, task, schema)
    remark = header = ""
    if examples := render_examples(task):
        header = f"{examples}\n\n"
    if task.header:
        header += f"{render_header(library.latest(library.TABLE_HEADER), task)}\n\n"
    if task.stage is Stage.REVISE:
        remark = f"\n\n{render_revision(library.latest(library.REVISION), task)}"
    return CompletionRequest(
        task=task,
        system=prompt.system,
        user=f"{header}{prompt.user}{remark}",
        schema=schema,
        schema_name=library.CRITIQUE if task.is_critique else task.analysis_type,
        prompt_version=template.version,
        max_output_tokens=model.profile.max_output_tokens,
    )


@memoized_by_identity
def schema_of(options: AnalysisOptions, analysis: AnalysisDefinition) -> JsonObject:
    """Return the schema of the answers, which the chunks of a job share."""
    return analysis.schema(options)


def reserve_for_critique(model: ChatModel, task: AnalysisTask) -> int:
    """Return the tokens to keep free so that the answer can be examined below its question.

    An answer longer than half of the limit, which is rare, may not be examined.
    """
    if not task.options.critique:
        return 0
    kind = task.analysis_type
    principles = tokens.estimate("\n".join(critique.principles_for(kind, task.options)))
    return principles + REPAIR_TOKENS + model.profile.max_output_tokens // 2


def text_budget(model: ChatModel, task: AnalysisTask, chunk_tokens: int | None) -> TextBudget:
    """Return the text that fits into one question to this model, even when it is repeated.

    The maximum is `chunk_tokens`, unless the task has an option for it; without either, it depends
    on the room and the question (docs/configuration.md#size-of-chunks). For a list of objects, the
    chunks are smaller where a text has many records: a row takes more tokens in an answer than in
    the text, and the answer has a limit.

    Raises:
        ConfigurationError: The prompt alone fills the model's context.
    """
    request = request_for(model, task)
    used = tokens.estimate(request.system + request.user) + REPAIR_TOKENS
    used += request.max_output_tokens + reserve_for_critique(model, task)
    room = model.profile.context_tokens - used
    if room < _MIN_TEXT_TOKENS:
        raise ConfigurationError(
            f"The prompt and the answer fill the context of {model.profile.model} "
            f"({model.profile.context_tokens:,} tokens) without any text.",
            "Raise context_tokens or lower max_output_tokens of the model.",
        )
    options, profile, chosen = task.options, model.profile, CHUNK_TOKENS
    values, has_items = values_of_rows(options), options.schema or items.are_named(options)
    lists = values or (task.analysis_type == AnalysisType.EXTRACTION and not has_items)
    if profile.understands_language and not lists:
        chosen = max(CHUNK_TOKENS, min(MAX_CHUNK_TOKENS, room // 2))
    rows = None
    if values and profile.understands_language:
        answer = min(_RAISED_BY * profile.max_output_tokens, profile.output_ceiling)
        quoted = _TOKENS_OF_QUOTE + _TOKENS_OF_NAMED_VALUE * values
        row = max(quoted, _TOKENS_OF_VALUE * values * values)  # or a quote of the row for a value
        rows = RowSize(tokens=min(row, answer / _MIN_ROWS), limit=answer)
    return TextBudget(min(options.chunk_tokens or chunk_tokens or chosen, room), rows)


def values_of_rows(options: AnalysisOptions) -> int:
    """Return the number of values in a row if the schema asks for a list of objects, else 0."""
    return SchemaNode.root_of(options.schema).max_row_width() if options.schema else 0


def room_for_answers(model: ChatModel, task: AnalysisTask) -> float:
    """Return the tokens for the answers in one question that joins them, even when it is repeated.

    The prompt, the model's own answer and its critique are subtracted. The result is not positive
    if no answer fits.
    """
    empty = request_for(model, replace(task, stage=Stage.SYNTHESIZE))
    used = tokens.weigh(empty.system + empty.user) + REPAIR_TOKENS
    used += empty.max_output_tokens + reserve_for_critique(model, task)
    return (model.profile.context_tokens - used) * _MATERIAL_SHARE


def with_problems(
    request: CompletionRequest, error: InvalidAnswerError, profile: ModelProfile
) -> CompletionRequest:
    """Return the same question with the errors of the check below it, as far as they fit.

    A raised output limit is reduced, so that both fit the context.
    """
    problems, words = error.what, f"\n\n{library.latest(library.REPAIR).user}"
    while tokens.estimate(remark := words.replace("$problems", problems)) > REPAIR_TOKENS:
        problems = problems[: len(problems) * 9 // 10]
    user = f"{request.user}{remark}"
    room = profile.context_tokens - tokens.estimate(request.system + user)
    return replace(
        request,
        user=user,
        task=replace(request.task, stage=Stage.REPAIR),
        max_output_tokens=min(request.max_output_tokens, max(room, profile.max_output_tokens)),
    )


def with_raised_limit(
    request: CompletionRequest, profile: ModelProfile
) -> CompletionRequest | None:
    """Return the same question with a higher output limit, or `None` if it cannot be raised.

    The limit is raised once, up to the model's maximum and what the prompt leaves free.
    """
    if request.max_output_tokens > profile.max_output_tokens:
        return None
    room = profile.context_tokens - tokens.estimate(request.system + request.user)
    limit = min(_RAISED_BY * request.max_output_tokens, profile.output_ceiling, room)
    if limit <= request.max_output_tokens:
        return None
    return replace(request, max_output_tokens=limit)
